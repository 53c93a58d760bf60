"""What is written of one study: the objects of a measurement, or the page of a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from dicom_file import Instance
from dicom_results import (
    MEASUREMENTS,
    PAGE,
    SERIES_PAGE,
    Provenance,
    save_refusal_as_dcm,
    save_report_as_dcm,
    save_series_page_as_dcm,
    with_history,
)
from dicom_series import NOT_OUR_RESULT, Series, Study
from dicom_volume import SourceVolume, load_dicom_volume_as_numpy_from_list
from identity import pseudonymous_header
from refusal import Refusal
from refusal_page import create_refusal_page
from report import create_report
from series_page import create_series_page
from study_result import PAGE_PICTURE, SERIES_PICTURE, StudyResult, replacing_outputs
from verify_results import verify_picture


@dataclass(frozen=True)
class Measurement:
    """What the results are made of; labels [X, Y, Z] lie on the grid of the source."""

    header: Dataset
    source: SourceVolume
    description: str  # of the series, without the patient
    labels: np.ndarray


def write_outputs(measurement: Measurement, result: StudyResult, folder: Path) -> list[dict]:
    """Write the pages and objects of a measurement; return their names and SOP Instance UIDs.

    Raises OSError and VerificationError.
    """
    from result_objects import write_objects  # here, as a refusal need not wait for highdicom

    source = measurement.source
    provenance = with_history(_provenance(measurement.header, source.instances, result), folder / MEASUREMENTS)
    with replacing_outputs(folder) as staging:
        with result.timed("objects"):  # before the pages, as highdicom needs the most memory
            objects = write_objects(source, measurement.labels, result.volumes_mm3, provenance, staging)
        with result.timed("page"):
            pages = _write_pages(measurement, result, provenance, staging)
    return _listed({**pages, **objects, PAGE_PICTURE: None, SERIES_PICTURE: None})


def _write_pages(measurement: Measurement, result: StudyResult, provenance: Provenance, folder: Path) -> dict[str, str]:
    """Write both pages as pictures and as DICOM; return the SOP Instance UIDs by file name."""
    source, shown = measurement.source, _shown(measurement.header, result)
    page = create_report(
        source.voxels,
        measurement.labels,
        source.spacing,
        shown,
        result.volumes_mm3,
        result.model,
        measurement.description,
        result.intervals_mm3,
        result.quality,
    )
    _save_picture(page, folder / PAGE_PICTURE)
    report = save_report_as_dcm(page, folder / PAGE, provenance)
    verify_picture(folder / PAGE, page)

    page = create_series_page(result.series_to_show, shown)
    _save_picture(page, folder / SERIES_PICTURE)
    series_page = save_series_page_as_dcm(page, folder / SERIES_PAGE, provenance)
    verify_picture(folder / SERIES_PAGE, page)
    return {PAGE: report.SOPInstanceUID, SERIES_PAGE: series_page.SOPInstanceUID}


def write_refusal(study: Study, result: StudyResult, folder: Path) -> list[dict]:
    """Write the page that says why there is no number; return its names and SOP Instance UID.

    It belongs to the series that was chosen, or to the whole study where none was. A study of nothing but our own
    results gets none, lest one refusal lead to the next. Raises OSError and VerificationError.
    """
    study = without_our_results(study)
    if not study.series:
        return []
    chosen = [one for one in study.series if one.uid == result.series_instance_uid]
    sources = [instance for one in chosen or study.series for instance in one.instances]
    header = study.header_for(chosen[0] if chosen else Series(uid="", instances=[]))
    provenance = _provenance(header, sources, result)
    with replacing_outputs(folder) as staging, result.timed("page"):
        page = create_refusal_page(
            _shown(header, result),
            result.code,
            result.reason,
            result.quality,
            result.series_to_show,
            result.model,
            _volume_of(chosen[0]) if chosen else None,
        )
        _save_picture(page, staging / PAGE_PICTURE)
        refusal = save_refusal_as_dcm(page, staging / PAGE, provenance, earlier=folder / PAGE)
        verify_picture(staging / PAGE, page)
    return _listed({PAGE: refusal.SOPInstanceUID, PAGE_PICTURE: None})


def _volume_of(series: Series) -> SourceVolume | None:
    """What the series shows, if it is one volume."""
    try:
        return load_dicom_volume_as_numpy_from_list(series)
    except Refusal:
        return None


def _provenance(header: Dataset, sources: Sequence[Instance], result: StudyResult) -> Provenance:
    return Provenance(header, sources, result.model, not result.pseudonym, result.limits_sha256)


def without_our_results(study: Study) -> Study:
    """The study as it was before our results joined it: what we write must not depend on what we wrote."""

    def is_ours(series: Series) -> bool:
        return not all(NOT_OUR_RESULT.is_met(one.text(NOT_OUR_RESULT.attribute)) for one in series.instances)

    return replace(study, series=[series for series in study.series if not is_ours(series)])


def _shown(header: Dataset, result: StudyResult) -> Dataset:
    """What the pages say of patient and study."""
    return pseudonymous_header(result.pseudonym) if result.pseudonym else header


def _save_picture(page: Image.Image, path: Path) -> None:
    page.save(path, compress_level=1)  # a quarter larger, in half the time


def _listed(uids: dict[str, str | None]) -> list[dict]:
    return [{"file": file, "sop_instance_uid": uid} for file, uid in uids.items()]
