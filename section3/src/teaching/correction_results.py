"""A corrected mask through the same door as a measurement of ours: SEG, SR and pages, into the archive."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from archive.dicomweb import DicomWebArchive
from archive.sending import send_to_archive
from choosing.series_rules import is_ours, without_ours
from common.stopwatch import Stopwatch
from common.structures import SIDES
from common.verdicts import SeriesVerdict
from measuring.measurement import Measurement, by_hand
from reading.dicom_series import Series, Study
from reading.dicom_volume import load_head
from study.process_study import write_and_send
from study.setup import Setup
from study.study_outputs import write_outputs
from study.study_result import StudyResult
from teaching.archive_images import fetched
from teaching.image_store import FINAL, ImageStore, StoredImage, StoredLabel
from teaching.images import HEAD, labels_of, read_image

SOMEBODY = "a person"  # where the viewer does not say who
CORRECTED = "corrected"  # the folder of the store where results lie
ARCHIVE = "archive"  # whose corrections were pulled from there


def send_correction(
    archive: DicomWebArchive, store: ImageStore, image: StoredImage, setup: Setup, folder: Path
) -> StudyResult:
    """Write and send the newest correction of a series of the archive; its SR names the one of ours that it supersedes.

    Raises NoSuchThing, where there is none; Refusal; Failure: cannot-fetch.
    """
    label = store.label(image, FINAL)
    with fetched(archive, image.study_uid, lambda one: one.uid == image.series_uid or _is_report(one)) as study:
        measurement = _corrected(store, image, label, study)
        result = StudyResult.begun(setup).with_study(study, setup).with_measurement(measurement)
        send = partial(send_to_archive, archive=archive)
        path = folder / image.series_uid
        return write_and_send(result, study, measurement, setup, path, send, write_outputs, Stopwatch())


def _corrected(store: ImageStore, image: StoredImage, label: StoredLabel, study: Study) -> Measurement:
    series = study.series_of(image.series_uid)
    source = load_head(series)
    labels = labels_of(store.content_of_label(label), read_image(store.content_of(image), image.ending))
    about = (series.uid, series.description, series.modality, len(series.instances))
    return Measurement(
        without_ours(study).header_for(series),
        (SeriesVerdict(*about, None, "corrected by a person"),),
        source,
        by_hand(source.grid, labels, SIDES if image.kind == HEAD else (None,)),
        corrected_by=label.client if label.client not in ("", ARCHIVE) else SOMEBODY,
        predecessor=_newest_report(study),
    )


def _is_report(series: Series) -> bool:
    return series.modality == "SR" and is_ours(series)


def _newest_report(study: Study) -> Path | None:
    reports = [one for series in study.series if _is_report(series) for one in series.instances]
    when = ("InstanceCreationDate", "InstanceCreationTime")
    newest = max(reports, key=lambda one: [one.text(keyword) for keyword in when], default=None)
    return newest.path if newest else None
