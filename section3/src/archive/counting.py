"""How much an archive says that it holds of a study: all but what we made ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from archive.sending import ArchiveError
from choosing.series_rules import is_ours
from reading.dicom_file import DICOM_ERRORS, Instance
from reading.dicom_series import Series

COUNT = "NumberOfSeriesRelatedInstances"
MOST_SERIES = 1000  # of a study; who answers with more is not believed
MOST_INSTANCES = 1_000_000


def count_instances(series: Sequence[Dataset]) -> int:
    """From what was answered of each series. Raises ArchiveError where one has no sensible count."""
    try:
        counts = [int(one[COUNT].value) for one in series if not is_ours(Series("", [Instance(Path(), one)]))]
    except DICOM_ERRORS as error:
        raise ArchiveError(f"its counts cannot be read ({type(error).__name__})") from error
    if len(series) > MOST_SERIES or not all(0 < count <= MOST_INSTANCES for count in counts):
        raise ArchiveError("its counts make no sense")
    return sum(counts)
