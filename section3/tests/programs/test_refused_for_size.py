"""The whole program on a series that is too large: the page of the refusal shows what it is."""

import json

import numpy as np
import pydicom
import pytest
from PIL import Image

import inference_dcm
from pages.refusal_page import PICTURED
from phantom import write_series


@pytest.fixture
def head() -> np.ndarray:
    """270 x 220 x 120 mm of 2 mm; on the right, in front, 100 x 60 x 90 mm that the axial plane alone cuts."""
    voxels = np.full((135, 110, 60), 100, np.int16)
    voxels[10:60, 20:90, 5:50] = 400
    voxels[70:120, 60:90, 5:50] = 900
    return voxels


@pytest.fixture
def refused_page(tmp_path, threshold_model):
    """refused_page(): the code of the refusal, and its page [rows, columns, RGB] as it is in the archive's file too."""

    def run():
        study, out = tmp_path / "study", tmp_path / "out"
        assert inference_dcm.main([str(study), "--output-dir", str(out), "--model-path", str(threshold_model)]) == 1
        result = json.loads((out / "result.json").read_text())
        assert result["status"] == "refused"
        page = np.asarray(Image.open(out / "report.png").convert("RGB"))
        np.testing.assert_array_equal(pydicom.dcmread(out / "report.dcm").pixel_array, page)
        return result["code"], page

    return run


def test_the_page_shows_the_head_that_was_taken_for_a_crop(head, tmp_path, refused_page, words):
    write_series(tmp_path / "study", head, spacing=(2, 2, 2), orientation="PIR")
    code, page = refused_page()
    assert code == "geometry-field-of-view"
    texts = [text for text, _ in words]
    assert {"Coronal, middle", "Sagittal, middle", "Axial, middle", PICTURED} <= set(texts)
    assert "135 x 110 x 60 voxels of 2 x 2 x 2 mm" in texts

    rows, columns = np.nonzero((page == 255).all(axis=-1))  # no letter and no line is so bright
    (left, top, _, _) = next(box for text, box in words if text == "Axial, middle")
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert width / height == pytest.approx(100 / 60, rel=0.05)
    assert len(rows) == pytest.approx(width * height, rel=0.05)  # all of it, and nothing beside it
    # As radiologists look at it: 15 voxels of 2 mm from the left side of the picture, 20 from its top.
    zoom = width / 100
    assert columns.min() - left == pytest.approx(30 * zoom, abs=4)
    assert rows.min() - top == pytest.approx(40 * zoom, abs=30)  # the title lies between


def test_what_is_no_volume_has_no_picture(head, tmp_path, refused_page, words):
    paths = write_series(tmp_path / "study", head[:, :, :10], spacing=(2, 2, 2))
    heights = {path: pydicom.dcmread(path).ImagePositionPatient[2] for path in paths}
    sorted(paths, key=heights.get)[5].unlink()
    code, page = refused_page()
    assert code == "geometry-gap"
    assert not any(text == PICTURED or text.endswith(", middle") for text, _ in words)
    assert {"Verdict", "Decided by"} <= {text for text, _ in words}  # the table of series is there instead
    assert not (page == 255).all(axis=-1).any()
