"""The pixels of a file, decoded within limits to one grey value a pixel."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from common.refusal import Failure, Refusal
from reading.dicom_file import DICOM_ERRORS, Instance, read_dicom
from reading.frame_size import frame_size

DECODING_SECONDS = 20  # that dcmdjpeg has for a file
_RESCALE = (("RescaleSlope", 1), ("RescaleIntercept", 0))  # with what they are where absent


def stored_pixels(path: Path, sha256: str | None = None, seconds: float = DECODING_SECONDS) -> np.ndarray:
    """The pixels of a file as they are stored, [frames, rows, columns].

    sha256: of the file whose header was judged. seconds: the time that another program has to decode them, where one
    must. Raises Refusal: unreadable-pixels; Failure: cannot-read, study-changed, helper-failed.
    """
    try:
        dataset = read_dicom(path, sha256)
        frames, rows, columns = int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            _require_compressed(dataset, frames)
            if not get_decoder(syntax).is_available:
                dataset = _decompressed(path, seconds)
                read_dicom(path, sha256)  # what dcmdjpeg read was still the same
        if not dataset.file_meta.TransferSyntaxUID.is_compressed:
            _require_no_surplus(dataset, frames)
        pixels = dataset.pixel_array
    except DICOM_ERRORS as error:
        reason = f"the pixels of {path.name} cannot be decoded: {type(error).__name__} {str(error)[:200]}"
        raise Refusal("unreadable-pixels", reason) from error
    shape = (frames, rows, columns)
    if pixels.shape not in (shape, shape[1:]):
        raise Refusal("unreadable-pixels", f"the pixels of {path.name} have shape {pixels.shape}, expected {shape}")
    return pixels.reshape(shape)


def _require_compressed(dataset: Dataset, frames: int) -> None:
    """Decoders unpack all they get before they ask what it should be: a bomb is larger than the image it stands for."""
    size = (dataset.Rows, dataset.Columns)
    limit = 2 * dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8 + 4096
    for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
        if len(frame) > limit:
            raise ValueError("compressed pixels larger than the image")
        if (found := frame_size(frame)) not in (None, size):
            raise ValueError(f"a frame of {found[0]} x {found[1]} pixels in an image of {size[0]} x {size[1]}")


def _require_no_surplus(dataset: Dataset, frames: int) -> None:
    """Where there are more pixels than the image has, nobody knows which of them are the image."""
    pixels = frames * dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    expected = (pixels * dataset.BitsAllocated + 7) // 8
    if len(dataset.PixelData) > expected + expected % 2:
        raise ValueError(f"{len(dataset.PixelData)} bytes of pixels, expected {expected}")


def _decompressed(path: Path, seconds: float) -> Dataset:
    """The file as DCMTK writes it without compression. Raises one of DICOM_ERRORS; Failure: helper-failed.

    For lossless JPEG, which archives like and which no decoder of pydicom's reads that is both free of a licence like
    the GPL and safe from broken files; this one may crash, as it is another process.
    """
    with _temporary_folder() as folder:
        plain = folder / "plain.dcm"
        command = ["dcmdjpeg", path.absolute(), plain]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=seconds)
        except subprocess.CalledProcessError as error:
            if error.returncode < 0:
                raise Failure("helper-failed", f"dcmdjpeg was killed on {path.name}; is memory short?") from error
            if b": writing file: " in error.stderr:  # one status for all that can go wrong
                reason = f"dcmdjpeg cannot write what it decodes of {path.name}; is {folder.parent} full?"
                raise Failure("helper-failed", reason) from error
            raise ValueError("dcmdjpeg fails on it") from error
        except subprocess.TimeoutExpired as error:
            raise Failure("helper-failed", f"dcmdjpeg took over {error.timeout:g} s for {path.name}") from error
        except OSError as error:
            reason = f"{path.name} needs dcmdjpeg: install DCMTK (apt-get install dcmtk)"
            raise Failure("helper-failed", f"{reason}; {error.strerror}") from error
        return read_dicom(plain)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Where there is no room for one, that is no fault of the file. Raises Failure: helper-failed."""
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise Failure("helper-failed", f"dcmdjpeg has no folder to write to: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def grey_values(instance: Instance, stored: np.ndarray) -> np.ndarray:
    """Grey values [rows, columns] float32 of one image among the pixels of its file, after rescale.

    Raises Refusal: unreadable-pixels.
    """
    name = instance.name
    if (instance.frame or 0) >= len(stored) or (instance.frame is None and len(stored) > 1):
        raise Refusal("unreadable-pixels", f"{name} is not the frame that it should be of {len(stored)}")
    try:
        slope, intercept = (float(instance.text(keyword) or default) for keyword, default in _RESCALE)
    except ValueError as error:
        raise Refusal("unreadable-pixels", f"the rescale slope or intercept of {name} is no number") from error
    pixels = stored[instance.frame or 0].astype(np.float32) * np.float32(slope or 1) + np.float32(intercept)
    if not np.isfinite(pixels).all():
        raise Refusal("unreadable-pixels", f"{name} has pixels that are no finite numbers")
    return pixels
