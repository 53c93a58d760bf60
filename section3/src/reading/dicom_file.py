"""One DICOM file, read within limits: whatever is in it can neither crash nor stall the program, nor fill the memory.

The limits count bytes and reads, not seconds: a file that is refused once is refused on any machine.
"""

import hashlib
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import MediaStorageDirectoryStorage

from common.refusal import Failure

MEBIBYTE = 1 << 20
MAX_HEADER_BYTES = 16 * MEBIBYTE  # a thousand frames of enhanced MR have 3
MAX_FILE_BYTES = 256 * MEBIBYTE
MAX_INFLATED_BYTES = 16 * MEBIBYTE  # of a file in the deflated transfer syntax
MAX_READS = 300_000  # two or three an element
MAX_VALUE_BYTES = 1 << 16  # of any value that is asked for here

PREAMBLE_BYTES = 128 + 4  # with the prefix DICM

# What pydicom and its decoders raise on damaged files. An OSError here is theirs, as of a picture that is none: where
# the disk itself fails, reading raises a Failure. Short memory is no fault of the file either.
DICOM_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)

# Formal faults of the headers are no concern of the user, and pydicom's messages quote values that may name a patient.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")


class BeyondLimitsError(ValueError):
    """A file asks for more than any image needs."""


@dataclass(frozen=True)
class Instance:
    """One DICOM image: its file, its header without the pixel data; a frame of a multi-frame image has its number."""

    path: Path
    header: Dataset
    frame: int | None = None  # from 0
    sha256: str = ""  # of the file as it was read
    _values: dict[str, object] = field(default_factory=dict, init=False, repr=False, compare=False)
    _texts: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.path.name if self.frame is None else f"{self.path.name}, frame {self.frame + 1}"

    def value(self, keyword: str) -> object:
        """An attribute as pydicom has it, None where it is absent, absurdly long or cannot be decoded."""
        if keyword not in self._values:  # what pydicom cannot decode it may well give when it is asked again
            self._values[keyword] = self._value(keyword)
        return self._values[keyword]

    def _value(self, keyword: str) -> object:
        try:
            element = self.header.get_item(keyword)
            if isinstance(element, RawDataElement):
                if len(element.value or b"") > MAX_VALUE_BYTES:
                    return None
                element = self.header[element.tag]
            return None if element is None else element.value
        except DICOM_ERRORS:
            return None

    def text(self, keyword: str) -> str:
        """An attribute as stripped text, several values with backslashes between them, "" where there is none."""
        if keyword not in self._texts:  # a study is asked for the same few again and again
            self._texts[keyword] = self._text(keyword)
        return self._texts[keyword]

    def _text(self, keyword: str) -> str:
        value = self.value(keyword)
        if value is None or isinstance(value, bytes | Sequence):
            return ""
        try:
            return "\\".join(map(str, value)).strip() if isinstance(value, MultiValue) else str(value).strip()
        except DICOM_ERRORS:
            return ""


@dataclass(frozen=True)
class DamagedFile:
    """A file that is DICOM but cannot be read, and the name of what went wrong."""

    path: Path
    fault: str


def read_instance(path: Path, digest: bool = True) -> Instance | DamagedFile | None:
    """The header of a file; None where the file is no DICOM image.

    digest: whether to read all of the file, to know it again. Raises Failure: cannot-read, study-changed.
    """
    with _disk(path):
        if path.stat().st_size == 0:  # so are the kernel's own files, which can block whoever reads them
            return None
    with _opened(path) as file:
        try:
            header = pydicom.dcmread(_LimitedReader(path, file, MAX_HEADER_BYTES), stop_before_pixels=True)
            if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
                return None
        except InvalidDicomError as error:
            return DamagedFile(path, _name(error)) if _is_cut_preamble(path) else None
        except DICOM_ERRORS as error:
            return DamagedFile(path, _name(error))
        return Instance(path, header, sha256=_digest(path, file) if digest else "")


def _name(error: Exception) -> str:
    """With the module: there are struct.error and zlib.error."""
    return f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")


def _is_cut_preamble(path: Path) -> bool:
    """Whether the file ends within the zeros with which nearly every DICOM file begins."""
    with _disk(path):
        return path.stat().st_size < PREAMBLE_BYTES and not path.read_bytes().rstrip(b"DICM").strip(b"\0")


def read_dicom(path: Path, sha256: str | None = None) -> FileDataset:
    """A whole DICOM file as pydicom reads it; with `sha256`, the very file that was read before.

    Raises one of DICOM_ERRORS, where it asks for too much BeyondLimitsError. Raises Failure: cannot-read,
    study-changed.
    """
    with _opened(path) as file:
        if sha256 is not None and _digest(path, file) != sha256:
            raise _changed(path)
        file.seek(0)
        return pydicom.dcmread(_LimitedReader(path, file, MAX_FILE_BYTES))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, which must be at the end of the block what it was at its start. Raises Failure."""
    with _disk(path):
        file = path.open("rb")
    with file:
        before = os.fstat(file.fileno())
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _changed(path)


def _digest(path: Path, file: BinaryIO) -> str:
    digest = hashlib.sha256()
    with _disk(path):
        file.seek(0)
        while content := file.read(MEBIBYTE):
            digest.update(content)
    return digest.hexdigest()


def _changed(path: Path) -> Failure:
    return Failure("study-changed", f"{path.name} changed while the study was read; is it still arriving?")


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What the disk does not do is no fault of the file. Raises Failure: cannot-read."""
    try:
        yield
    except OSError as error:
        raise Failure("cannot-read", f"{path.name} cannot be read: {error.strerror}") from error


class _LimitedReader:
    """A file for pydicom to read from, as long as it reads within the limits."""

    def __init__(self, path: Path, file: BinaryIO, max_bytes: int):
        self._path, self._file = path, file
        self._bytes_left, self._reads_left = max_bytes, MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # pydicom asks for all the rest only to inflate it
            return self._inflatable_rest()
        self._bytes_left -= size
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise BeyondLimitsError
        with _disk(self._path):
            return self._file.read(size)

    def _inflatable_rest(self) -> bytes:
        with _disk(self._path):
            rest = self._file.read(MAX_INFLATED_BYTES)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflater.decompress(rest, MAX_INFLATED_BYTES)
        if self._file.read(1) or inflater.unconsumed_tail:
            raise BeyondLimitsError
        return rest
