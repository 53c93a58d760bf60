"""The outputs of one study: the pages and objects of a measurement, or the page of a refusal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from PIL import Image
from pydicom import Dataset

from choosing.series_rules import without_ours
from common.output_files import (
    MEASUREMENTS,
    OVERLAY,
    PAGE,
    PAGE_PICTURE,
    PROBABILITIES,
    SEGMENTATION,
    SERIES_PAGE,
    SERIES_PICTURE,
)
from common.stopwatch import Stopwatch
from common.structures import without_sides
from measuring.measurement import Measurement
from objects.dicom_overlay import draw_overlay, near_labels, save_overlay
from objects.dicom_page import (
    EarlierPage,
    earlier_page,
    in_place_of,
    save_refusal_as_dcm,
    save_report_as_dcm,
    save_series_page_as_dcm,
)
from objects.provenance import Provenance, with_history
from objects.verify_objects import verify_overlay, verify_picture, verify_probabilities, verify_results
from pages.head_page import create_head_page
from pages.refusal_page import create_refusal_page
from pages.report import create_report
from pages.series_page import create_series_page
from pages.views import window
from reading.dicom_file import Instance
from reading.dicom_series import Study
from reading.identity import pseudonym
from study.output_folder import OutputFolder
from study.setup import Setup
from study.study_result import output_rows


def _save_segmentation(*arguments: object) -> Dataset:
    from objects.dicom_segmentation import save_segmentation  # here, as a refusal need not wait for highdicom

    return save_segmentation(*arguments)


@dataclass(frozen=True)
class Writers:
    """What draws and writes the outputs. Others can be handed in: one that errs must be found out."""

    segmentation: Callable = _save_segmentation
    draw_overlay: Callable = draw_overlay
    overlay: Callable = save_overlay
    report: Callable = save_report_as_dcm
    series_page: Callable = save_series_page_as_dcm
    refusal: Callable = save_refusal_as_dcm
    clock: Callable[[], datetime] = datetime.now


WRITERS = Writers()


def write_outputs(
    study: Study,
    measurement: Measurement,
    setup: Setup,
    folder: OutputFolder,
    stopwatch: Stopwatch,
    writers: Writers = WRITERS,
) -> list[dict]:
    """Write pages and objects into `folder`; return their rows for result.json. Raises OSError, VerificationError."""
    writes = _write_refusal if measurement.refusal else _write_measurement
    return output_rows(folder.path, writes(study, measurement, setup, folder, stopwatch, writers))


def _write_measurement(
    study: Study, measurement: Measurement, setup: Setup, folder: OutputFolder, stopwatch: Stopwatch, writers: Writers
) -> dict[str, str | None]:
    """Write both pages and all objects; return their SOP Instance UIDs by file name."""
    provenance = _provenance(measurement, measurement.source.instances, setup, writers.clock())
    before = folder.path / MEASUREMENTS
    provenance = with_history(provenance, before if before.exists() else measurement.predecessor or before)
    provenance = in_place_of(provenance, earlier_page(folder.path / PAGE))
    with folder.replacing_outputs() as staging:
        with stopwatch.timed("objects"):  # before the pages, as highdicom needs the most memory
            objects = _write_objects(measurement, provenance, staging, writers)
            if setup.probability_map:
                objects |= _write_probabilities(measurement, provenance, staging)
        with stopwatch.timed("page"):
            pages = _write_pages(measurement, provenance, _shown(study, measurement, setup), staging, writers)
    return {**pages, **objects, PAGE_PICTURE: None, SERIES_PICTURE: None}


def _write_pages(
    measurement: Measurement, provenance: Provenance, shown: Mapping[str, str], folder: Path, writers: Writers
) -> dict[str, str]:
    """Write both pages as pictures and as DICOM, `shown` being what they may say of patient and study."""
    page = _draw_page(measurement, shown, provenance)
    _save_picture(page, folder / PAGE_PICTURE)
    report = writers.report(page, folder / PAGE, provenance)
    verify_picture(folder / PAGE, page)

    page = create_series_page(measurement.series_to_show, shown)
    _save_picture(page, folder / SERIES_PICTURE)
    series_page = writers.series_page(page, folder / SERIES_PAGE, provenance)
    verify_picture(folder / SERIES_PAGE, page)
    return {PAGE: report.SOPInstanceUID, SERIES_PAGE: series_page.SOPInstanceUID}


def _draw_page(measurement: Measurement, shown: Mapping[str, str], provenance: Provenance) -> Image.Image:
    history = _history(provenance)
    if measurement.is_head:
        return create_head_page(measurement, provenance.model, shown, history=history)
    return create_report(measurement, shown, provenance.model, history)


def _write_objects(measurement: Measurement, provenance: Provenance, folder: Path, writers: Writers) -> dict[str, str]:
    """Write segmentation, measurements and overlay, read them back, and only then hand on their SOP Instance UIDs."""
    from objects.dicom_measurements import save_measurements  # here, see _save_segmentation

    source, labels, volumes = measurement.source, measurement.labels, measurement.volumes
    labels_by_slice = source.by_slice(labels)
    segmentation = writers.segmentation(labels_by_slice, folder / SEGMENTATION, provenance, tuple(volumes))
    measurements = save_measurements(volumes, segmentation, folder / MEASUREMENTS, provenance)
    verify_results(folder / SEGMENTATION, folder / MEASUREMENTS, labels, volumes, source)

    labels, labels_by_slice = without_sides(labels), without_sides(labels_by_slice)  # contours name no side
    near = near_labels(labels_by_slice) if measurement.is_head else range(len(labels_by_slice))
    grey = source.by_slice(window(source.voxels))
    pictures = writers.draw_overlay(grey, labels_by_slice, source.by_slice(measurement.chances), near)
    overlay = writers.overlay(pictures, folder / OVERLAY, provenance)
    paths = (folder / OVERLAY / name for name in overlay)
    verify_overlay(dict(zip(paths, pictures.values(), strict=True)), labels, source)
    return {
        SEGMENTATION: segmentation.SOPInstanceUID,
        MEASUREMENTS: measurements.SOPInstanceUID,
        **{f"{OVERLAY}/{name}": uid for name, uid in overlay.items()},
    }


def _write_probabilities(measurement: Measurement, provenance: Provenance, folder: Path) -> dict[str, str]:
    from objects.dicom_probabilities import save_probabilities  # here, as few want it

    chances = measurement.source.by_slice(measurement.chances)
    written = save_probabilities(chances, folder / PROBABILITIES, provenance)
    verify_probabilities(folder / PROBABILITIES, measurement.chances, measurement.source)
    return {PROBABILITIES: written.SOPInstanceUID}


def _write_refusal(
    study: Study, measurement: Measurement, setup: Setup, folder: OutputFolder, stopwatch: Stopwatch, writers: Writers
) -> dict[str, str | None]:
    """Write the page that says why there is no number; return its SOP Instance UID by file name.

    It belongs to the series that was chosen, or to the whole study where none was. A study of nothing but our own
    results gets none, lest one refusal lead to the next.
    """
    study = without_ours(study)
    if not study.series:
        return {}
    accepted = measurement.accepted
    series = [study.series_of(accepted.series_instance_uid)] if accepted else study.series
    provenance = _provenance(
        measurement, [instance for one in series for instance in one.instances], setup, writers.clock()
    )
    shown = _shown(study, measurement, setup)
    with folder.replacing_outputs() as staging, stopwatch.timed("page"):
        # As the page that is there already first: if it then is the same, it stays the same.
        earlier = earlier_page(folder.path / PAGE)
        for one in _as_before_or_new(provenance, earlier):
            page = create_refusal_page(measurement, shown, one.model, _history(one))
            refusal = writers.refusal(page, staging / PAGE, one)
            if earlier and refusal.SOPInstanceUID == earlier.sop_instance_uid:
                break
        _save_picture(page, staging / PAGE_PICTURE)
        verify_picture(staging / PAGE, page)
    return {PAGE: refusal.SOPInstanceUID, PAGE_PICTURE: None}


def _as_before_or_new(provenance: Provenance, earlier: EarlierPage | None) -> list[Provenance]:
    """When the page of a refusal was made and what it replaced: as the earlier one says, then as of now."""
    if earlier is None:
        return [provenance]
    before = replace(provenance, created=earlier.created, replaces=earlier.replaces)
    return [before, replace(provenance, replaces=earlier.date)]


def _history(provenance: Provenance) -> str:
    """What the face of a page says of its time, nothing where it shall tell no dates."""
    if not provenance.names_patient:
        return ""
    made = f"{'corrected' if provenance.corrected_by else 'analysed'} {provenance.created:%Y-%m-%d}"
    return f"{made}, in place of the page of {provenance.replaces}" if provenance.replaces else made


def _provenance(measurement: Measurement, sources: Sequence[Instance], setup: Setup, created: datetime) -> Provenance:
    by = measurement.corrected_by
    outlines = hashlib.sha256(measurement.labels.tobytes()).hexdigest() if by else ""
    digest = f"{setup.digest}{by}{outlines}"  # each correction is a result of its own
    return Provenance(
        measurement.header, sources, setup.agent.identity, digest, not setup.pseudonymous, created, corrected_by=by
    )


def _shown(study: Study, measurement: Measurement, setup: Setup) -> Mapping[str, str]:
    """What the pages say of patient and study: all, or a pseudonym and nothing else."""
    return {"PatientName": pseudonym(study.uid)} if setup.pseudonymous else measurement.header


def _save_picture(page: Image.Image, path: Path) -> None:
    page.save(path, compress_level=1)  # a quarter larger, in half the time
