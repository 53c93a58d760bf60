"""A study out of an archive, for as long as it is worked on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from archive.dicomweb import DicomWebArchive
from archive.received import temporary_folder
from common.refusal import Refusal
from reading.dicom_series import Series, read_study
from reading.series_rules import Condition, consider_series, get_series_for_inference


@contextmanager
def fetched_study(
    archive: DicomWebArchive, study_uid: str, rules: Iterable[Condition], series_uid: str | None = None
) -> Iterator[list[Path]]:
    """The files of a study: all headers, and the pixels of the series that the rules choose. Gone after the block.

    Raises ArchiveError; Failure: cannot-read.
    """
    with temporary_folder() as folder:
        yield archive.fetch_study(study_uid, folder, lambda files: _series_to_fetch(files, rules, series_uid))


def _series_to_fetch(files: list[Path], rules: Iterable[Condition], series_uid: str | None) -> list[Series]:
    """The series whose pixels are needed, by the headers in `files`; none where the study will be refused."""
    try:
        study = read_study(files)
        return [get_series_for_inference(study, consider_series(study, rules, series_uid))]
    except Refusal:
        return []
