"""A study out of an archive, for as long as it is worked on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from archive.dicomweb import DicomWebArchive
from archive.received import temporary_folder
from choosing.series_choice import choose_series
from choosing.series_rules import Condition
from common.refusal import Refusal
from reading.dicom_series import Series, read_study


@contextmanager
def fetched_study(
    archive: DicomWebArchive,
    study_uid: str,
    rules: Sequence[Condition],
    head_rules: Sequence[Condition] = (),
    series_uid: str | None = None,
) -> Iterator[list[Path]]:
    """The files of a study: all headers, and the pixels of the series that the rules choose. Gone after the block.

    Raises ArchiveError; Failure: cannot-read.
    """
    with temporary_folder() as folder:
        choose = partial(_series_to_fetch, rules=rules, head_rules=head_rules, series_uid=series_uid)
        yield archive.fetch_study(study_uid, folder, choose)


def _series_to_fetch(
    files: list[Path], rules: Sequence[Condition], head_rules: Sequence[Condition], series_uid: str | None
) -> list[Series]:
    """The series whose pixels are needed, by the headers in `files`; none where the study will be refused."""
    try:
        study = read_study(files)
        return choose_series(study, rules, head_rules, series_uid).series(study)
    except Refusal:
        return []
