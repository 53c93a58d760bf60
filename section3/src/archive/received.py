"""What an archive gave, read within the limits of reading.dicom_file: it passes through files."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import FileDataset

from archive.sending import ArchiveError
from common.refusal import Failure
from reading.dicom_file import DICOM_ERRORS, DamagedFile, Instance, read_dicom, read_instance


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for what comes, gone after the block. Raises ArchiveError."""
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise ArchiveError(f"there is no temporary folder for what comes: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def write_received(content: bytes, path: Path) -> Path:
    """Raises ArchiveError."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ArchiveError(f"what comes cannot be written to {path.parent}: {error.strerror}") from error
    return path


def read_received(path: Path) -> FileDataset:
    """Raises ArchiveError."""
    try:
        return read_dicom(path)
    except Failure as failure:
        raise ArchiveError(failure.reason) from failure
    except DICOM_ERRORS as error:
        raise _unreadable(type(error).__name__) from error


def read_received_header(path: Path) -> Instance:
    """Raises ArchiveError."""
    try:
        found = read_instance(path, digest=False)
    except Failure as failure:
        raise ArchiveError(failure.reason) from failure
    if isinstance(found, Instance):
        return found
    raise _unreadable(found.fault if isinstance(found, DamagedFile) else "no DICOM image")


def _unreadable(fault: str) -> ArchiveError:
    return ArchiveError(f"what came cannot be read ({fault})")
