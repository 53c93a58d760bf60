"""One DICOM file, read within limits: whatever is in it can neither crash nor stall the program, nor fill the memory.

The limits count bytes and reads, not seconds: a file that is refused once is refused on any machine.
"""

import logging
import struct
import warnings
import zlib
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

MEBIBYTE = 1 << 20
MAX_HEADER_BYTES = 16 * MEBIBYTE  # a thousand frames of enhanced MR have 3
MAX_FILE_BYTES = 256 * MEBIBYTE
MAX_INFLATED_BYTES = 16 * MEBIBYTE  # of a file in the deflated transfer syntax
MAX_READS = 300_000  # two or three an element
MAX_VALUE_BYTES = 1 << 16  # of any value that is asked for here

PREAMBLE_BYTES = 128 + 4  # with the prefix DICM

# What pydicom and its decoders raise on damaged files.
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
    MemoryError,
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
    _texts: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.path.name if self.frame is None else f"{self.path.name}, frame {self.frame + 1}"

    def value(self, keyword: str) -> object:
        """An attribute as pydicom has it, None where it is absent, absurdly long or cannot be decoded."""
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


def read_instance(path: Path) -> Instance | DamagedFile | None:
    """The header of a file; None where the file is no DICOM image."""
    try:
        if path.stat().st_size == 0:  # so are the kernel's own files, which can block whoever reads them
            return None
        header = read_dicom(path, pixels=False)
        if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
    except InvalidDicomError as error:
        return DamagedFile(path, _name(error)) if _is_cut_preamble(path) else None
    except DICOM_ERRORS as error:
        return DamagedFile(path, _name(error))
    return Instance(path, header)


def _name(error: Exception) -> str:
    """With the module: there are struct.error and zlib.error."""
    return f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")


def _is_cut_preamble(path: Path) -> bool:
    """Whether the file ends within the zeros with which nearly every DICOM file begins."""
    return path.stat().st_size < PREAMBLE_BYTES and not path.read_bytes().rstrip(b"DICM").strip(b"\0")


def read_dicom(path: Path, pixels: bool = True) -> FileDataset:
    """A DICOM file as pydicom reads it. Raises one of DICOM_ERRORS, where it asks for too much BeyondLimitsError."""
    with path.open("rb") as file:
        reader = _LimitedReader(file, MAX_FILE_BYTES if pixels else MAX_HEADER_BYTES)
        return pydicom.dcmread(reader, stop_before_pixels=not pixels)


class _LimitedReader:
    """A file for pydicom to read from, as long as it reads within the limits."""

    def __init__(self, file: BinaryIO, max_bytes: int):
        self._file = file
        self._bytes_left, self._reads_left = max_bytes, MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # pydicom asks for all the rest only to inflate it
            return self._inflatable_rest()
        self._bytes_left -= size
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise BeyondLimitsError
        return self._file.read(size)

    def _inflatable_rest(self) -> bytes:
        rest = self._file.read(MAX_INFLATED_BYTES)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflater.decompress(rest, MAX_INFLATED_BYTES)
        if self._file.read(1) or inflater.unconsumed_tail:
            raise BeyondLimitsError
        return rest
