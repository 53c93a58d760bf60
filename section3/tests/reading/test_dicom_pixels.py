"""The pixels of a file, decoded by whatever can, and whose fault it is where they are not."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from common.refusal import Failure, Refusal
from phantom import write_series
from reading.dicom_file import read_instance
from reading.dicom_pixels import grey_values, stored_pixels
from reading.dicom_volume import load_dicom_volume_as_numpy_from_list


def _pixels(path: Path) -> np.ndarray:
    return grey_values(read_instance(path), stored_pixels(path))


def test_rescale_is_applied_slice_by_slice(tmp_path, noise, edit, load):
    paths = write_series(tmp_path, noise)
    edit(paths, lambda dataset: dataset.update({"RescaleSlope": 0.5, "RescaleIntercept": -3}))
    edit(paths[:1], lambda dataset: dataset.update({"RescaleSlope": 2, "RescaleIntercept": 0}))
    height = int(pydicom.dcmread(paths[0]).ImagePositionPatient[2])
    expected = noise * 0.5 - 3
    expected[..., height] = noise[..., height] * 2
    np.testing.assert_array_equal(load(tmp_path).voxels, expected)


def test_unsigned_pixels_above_the_signed_range(tmp_path, noise, edit, load):
    def shift(dataset):
        stored = dataset.pixel_array.astype(np.uint16) + 40000
        dataset.PixelRepresentation, dataset.PixelData = 0, stored.tobytes()

    edit(write_series(tmp_path, noise), shift)
    np.testing.assert_array_equal(load(tmp_path).voxels, noise.astype(np.float32) + 40000)


def test_an_enhanced_image_rescales_frame_by_frame(tmp_path, noise, edit, to_enhanced, load):
    def rescale(dataset):
        for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = pydicom.Dataset()
            item.RescaleSlope, item.RescaleIntercept = number + 1, -number
            groups.PixelValueTransformationSequence = [item]

    path = to_enhanced(write_series(tmp_path, noise))
    plain = load(tmp_path)
    edit([path], rescale)
    number = np.array([instance.frame for instance in plain.instances])
    np.testing.assert_array_equal(load(tmp_path).voxels, plain.voxels * (number + 1) - number)


# --- transfer syntaxes ------------------------------------------------------------------------------------------------


def _with_pydicom(syntax):
    def compress(path):
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)

    return compress


def _with_program(*command):
    def compress(path):
        subprocess.run([*command, path, path], check=True)

    compress.program = command[0]
    return compress


def _with_pillow(path):
    dataset = pydicom.dcmread(path)
    encoded = io.BytesIO()
    Image.fromarray(dataset.pixel_array.astype(np.uint16)).save(encoded, "JPEG2000", no_jp2=True)
    dataset.PixelData = encapsulate([encoded.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.PixelRepresentation, dataset.file_meta.TransferSyntaxUID = 0, pydicom.uid.JPEG2000Lossless
    dataset.save_as(path)


@pytest.mark.parametrize(
    "write",
    [
        _with_program("dcmconv", "+ti"),
        _with_program("dcmconv", "+tb"),
        _with_program("dcmconv", "+td"),
        _with_pydicom(pydicom.uid.RLELossless),
        _with_pillow,
        _with_program("dcmcjpeg", "+e1"),
        _with_program("dcmcjpeg", "+el"),
        _with_program("dcmcjpls"),
    ],
    ids=["implicit", "big-endian", "deflated", "RLE", "JPEG 2000", "JPEG lossless 1", "JPEG lossless", "JPEG-LS"],
)
def test_every_lossless_transfer_syntax_gives_the_same_voxels(tmp_path, noise, write, need_program, load):
    if hasattr(write, "program"):
        need_program(write.program)
    for path in write_series(tmp_path, noise):
        write(path)
    np.testing.assert_array_equal(load(tmp_path).voxels, noise)


# --- the file's fault -------------------------------------------------------------------------------------------------


def _shorten(dataset):
    dataset.PixelData = dataset.PixelData[:20]


def _colour(dataset):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = dataset.PixelData * 3


def _no_pixels(dataset):
    del dataset.PixelData


def _endless_slope(dataset):
    dataset.RescaleSlope = "1e999"


def _lengthen(dataset):
    dataset.PixelData = dataset.PixelData * 2


def _claim_a_larger_frame(dataset):
    """JPEG-LS of 60000 x 60000 pixels, for which a decoder would make room."""
    start = b"\xff\xf7\x00\x0b\x10\xea\x60\xea\x60\x01\x01\x11\x00"
    dataset.PixelData = encapsulate([b"\xff\xd8" + start + b"\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless


@pytest.mark.parametrize("change", [_shorten, _lengthen, _colour, _no_pixels, _endless_slope, _claim_a_larger_frame])
def test_pixels_that_cannot_be_read_are_refused(tmp_path, noise, edit, load, change):
    path = write_series(tmp_path, noise)[0]
    edit([path], change)
    with pytest.raises(Refusal) as refused:
        load(tmp_path)
    assert refused.value.code == "unreadable-pixels"
    assert path.name in refused.value.reason


# --- not the file's fault ---------------------------------------------------------------------------------------------


def test_a_file_that_vanishes_before_its_pixels_are_read_is_a_failure(tmp_path, noise):
    path = write_series(tmp_path, noise)[0]
    assert _pixels(path).size
    path.unlink()
    with pytest.raises(Failure) as failed:
        stored_pixels(path)
    assert failed.value.code == "cannot-read"
    assert path.name in failed.value.reason


def test_a_file_that_changes_before_its_pixels_are_read_is_a_failure_too(tmp_path, noise, edit, series_in):
    path = write_series(tmp_path, noise)[0]
    series = series_in(tmp_path)
    edit([path], lambda dataset: setattr(dataset, "RescaleSlope", 2))
    with pytest.raises(Failure) as failed:
        load_dicom_volume_as_numpy_from_list(series)
    assert failed.value.code == "study-changed"
    assert path.name in failed.value.reason


@pytest.fixture
def jpeg(tmp_path, noise, edit) -> Path:
    """A file that only dcmdjpeg can decode, if it were a picture."""

    def compress(dataset):
        dataset.PixelData = encapsulate([b"\xff\xd8 no picture \xff\xd9"])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1

    path = write_series(tmp_path / "series", noise)[0]
    edit([path], compress)
    assert not get_decoder(pydicom.uid.JPEGLosslessSV1).is_available
    return path


@pytest.fixture
def put_dcmdjpeg(tmp_path, monkeypatch) -> Callable[[str | None], None]:
    """put_dcmdjpeg(script): what is found under that name from now on; nothing where the script is None."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(script: str | None) -> None:
        program = folder / "dcmdjpeg"
        program.unlink(missing_ok=True)
        if script is not None:
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def _failure(path: Path, **options: float) -> str:
    """Why dcmdjpeg has failed."""
    with pytest.raises(Failure) as failed:
        stored_pixels(path, **options)
    assert failed.value.code == "helper-failed"
    return failed.value.reason


def test_a_decoder_that_is_killed_has_failed(jpeg, put_dcmdjpeg):
    put_dcmdjpeg("kill -9 $$")
    assert _failure(jpeg) == f"dcmdjpeg was killed on {jpeg.name}; is memory short?"


def test_a_decoder_that_hangs_has_failed(jpeg, put_dcmdjpeg):
    put_dcmdjpeg(f"exec {shutil.which('sleep')} 600")
    assert _failure(jpeg, seconds=0.2) == f"dcmdjpeg took over 0.2 s for {jpeg.name}"


def test_a_decoder_that_is_missing_has_failed(jpeg, put_dcmdjpeg):
    put_dcmdjpeg(None)
    reason = _failure(jpeg)
    assert jpeg.name in reason
    assert "install DCMTK" in reason


def test_a_decoder_with_no_room_to_write_has_failed(jpeg, put_dcmdjpeg):
    """DCMTK has one exit status for all that can go wrong."""
    put_dcmdjpeg('echo "F: No space left on device: writing file: $2" >&2; exit 1')
    assert "is /" in _failure(jpeg)


def test_dcmtk_says_so_in_these_words(tmp_path, need_program):
    """What the test before makes up is what dcmdjpeg writes."""
    need_program("dcmdjpeg")
    need_program("dcmcjpeg")
    path = write_series(tmp_path, np.ones((64, 64, 2)))[0]  # larger than what it writes at a time
    subprocess.run(["dcmcjpeg", path, path], check=True)
    found = subprocess.run(["dcmdjpeg", path, "/dev/full"], capture_output=True, text=True)
    assert found.returncode > 0
    assert ": writing file: /dev/full" in found.stderr


def test_no_folder_for_the_decoder_is_a_failure_too(jpeg, put_dcmdjpeg, tmp_path, monkeypatch):
    put_dcmdjpeg("exit 1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert "No such file or directory" in _failure(jpeg)


@pytest.mark.parametrize("script", ["exit 1", "echo 'F: Invalid stream: reading file' >&2; exit 1"])
def test_a_decoder_that_declines_the_file_is_right(jpeg, put_dcmdjpeg, script):
    put_dcmdjpeg(script)
    with pytest.raises(Refusal) as refused:
        stored_pixels(jpeg)
    assert refused.value.code == "unreadable-pixels"
    assert jpeg.name in refused.value.reason


def test_so_does_the_real_one(jpeg, need_program):
    need_program("dcmdjpeg")
    with pytest.raises(Refusal) as refused:
        stored_pixels(jpeg)
    assert refused.value.code == "unreadable-pixels"
