"""The size that a compressed frame states, read without unpacking it."""

import io
import random
import subprocess

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames

from phantom import write_series
from reading.frame_size import frame_size

ROWS, COLUMNS = 19, 37


@pytest.fixture
def path(tmp_path):
    """A slice of that size."""
    return write_series(tmp_path, np.arange(COLUMNS * ROWS * 2).reshape(COLUMNS, ROWS, 2))[0]


def _frame(path):
    (frame,) = generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1)
    return frame


@pytest.mark.parametrize(
    "command", [("dcmcjpeg", "+e1"), ("dcmcjpeg", "+el"), ("dcmcjpeg", "+eb"), ("dcmcjpls",)], ids=" ".join
)
def test_what_dcmtk_compresses(path, need_program, command):
    need_program(command[0])
    subprocess.run([*command, path, path], check=True)
    assert frame_size(_frame(path)) == (ROWS, COLUMNS)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG2000", {"no_jp2": True})]
)
def test_what_pillow_compresses(kind, options):
    encoded = io.BytesIO()
    Image.new("L", (COLUMNS, ROWS), 7).save(encoded, kind, **options)
    assert frame_size(encoded.getvalue()) == (ROWS, COLUMNS)


def test_run_lengths_state_no_size(path):
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    assert frame_size(frame) is None


@pytest.mark.parametrize("start", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00", b"\xff\x4f\xff\x51"])
def test_of_rubbish_there_is_an_answer(start):
    choice = random.Random(0)
    for length in range(200):
        size = frame_size(start + choice.randbytes(length))
        assert size is None or len(size) == 2
