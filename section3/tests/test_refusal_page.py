"""The page of a refusal: why, in words that stay in their place, and no number that could pass for a volume."""

import numpy as np
import pytest
from pydicom import Dataset

import report
from dicom_volume import SourceVolume
from quality import FAIL, PASS, WARN
from refusal_page import create_refusal_page

MODEL = {"name": "hippocampus-2d", "version": "1.2", "sha256": "0123456789abcdef" * 4}
LONG = "The likeness to the mean training crop is 0.261, expected at least 0.376. " * 14


def _check(name: str, verdict: str, value: float | None = 0.261) -> dict:
    return {"name": name, "value": value, "limit": "at least 0.376", "source": "208 crops", "verdict": verdict}


def _series(count: int) -> list[dict]:
    row = {"description": "T1post", "instances": 22, "accepted": False, "condition": "description", "reason": "another"}
    return [row] * count


ACCEPTED = {"description": "HippoCrop", "instances": 22, "accepted": True, "condition": None, "reason": "meets all"}


def _draw(reason="a slice is missing", quality=(), series=1, header=None, source=None):
    rows = _series(series) + [ACCEPTED] * (source is not None)
    return create_refusal_page(header or Dataset(), "unfit-input", reason, quality, rows, MODEL, source)


def _source(shape=(35, 51, 36), spacing=(1.0, 1.0, 1.0)) -> SourceVolume:
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return SourceVolume(voxels, spacing, np.diag([*spacing, 1]), [])


def test_it_says_who_and_why(words):
    header = Dataset()
    header.PatientName, header.PatientID, header.StudyDate = "Doe^Jane", "ID-7", "20200119"
    page = _draw(quality=[_check("one_piece", FAIL), _check("size_x", PASS, 35), _check("doubt", WARN)], header=header)
    assert (page.mode, page.size) == ("RGB", report.SIZE)
    texts = [text for text, _ in words]
    for expected in ("Doe, Jane", "ID-7", "2020-01-19", "A slice is missing", "Code: unfit-input", "T1post"):
        assert expected in texts
    row = texts.index("one piece")
    assert texts[row : row + 4] == ["one piece", "0.261", "at least 0.376", "208 crops"]
    assert "size x" not in texts and "doubt" not in texts
    assert "Research use only" in " ".join(texts)
    assert "0123456789ab" in " ".join(texts)


def test_what_was_refused_is_shown_without_contours(words):
    page = np.asarray(_draw(source=_source()), int)
    texts = [text for text, _ in words]
    assert {"Coronal, middle", "Sagittal, middle", "Axial, middle", "HippoCrop"} <= set(texts)
    assert "T1post" not in texts and not any("10 mm" in text for text in texts)
    for colour in report.COLOURS.values():
        assert not (page == list(bytes.fromhex(colour[1:]))).all(axis=-1).any()
    # The volume grows brighter with x, which is shown from right to left.
    coronal = next(box for text, box in words if text.startswith("Coronal"))
    top, left = round(coronal[3]) + 20, round(coronal[0])
    picture = page[top : top + 150, left : left + 150]
    assert (picture.max(axis=-1) == picture.min(axis=-1)).all()
    assert picture[:, 0].mean() > picture[:, -1].mean() + 50


@pytest.mark.parametrize(
    ("reason", "checks", "name"),
    [("a gap", 0, ""), (LONG, 20, "Featherstonehaugh-Cholmondeley^Bartholomew Max"), ("x" * 1000, 1, "\ud55c\uad6d")],
)
@pytest.mark.parametrize(
    ("shape", "spacing"), [((35, 51, 36), (1, 1, 1)), ((3, 90, 60), (2, 0.5, 1)), ((240, 240, 3), (1, 1, 1))]
)
def test_all_words_stay_in_their_place_beside_pictures(words, require_apart, reason, checks, name, shape, spacing):
    header = Dataset()
    header.PatientName = name
    _draw(reason, [_check("likeness", FAIL, None)] * checks, header=header, source=_source(shape, spacing))
    for text, (left, top, right, bottom) in words:
        assert left >= report.MARGIN - 2 and right <= report.SIZE[0] - report.MARGIN + 1, text
        assert top >= 0 and bottom <= report.SIZE[1], text
    require_apart(words)


def test_it_has_no_table_of_checks_where_none_failed(words):
    _draw(quality=[_check("size_x", PASS, 35)])
    assert "Failed check" not in [text for text, _ in words]


@pytest.mark.parametrize("reason", ["a gap", LONG, "x" * 1000, "\ud55c\uad6d\u8a9e <b>"])
@pytest.mark.parametrize("checks", [0, 3, 20])
@pytest.mark.parametrize("series", [0, 5, 50])
def test_all_words_stay_in_their_place(words, require_apart, reason, checks, series):
    _draw(reason, [_check("likeness", FAIL, None)] * checks, series)
    for text, (left, top, right, bottom) in words:
        assert left >= report.MARGIN - 2 and right <= report.SIZE[0] - report.MARGIN + 1, text
        assert top >= 0 and bottom <= report.SIZE[1], text
    require_apart(words)
    for shown, count, what in (("T1post", series, "more series"), ("likeness", checks, "more, all")):
        texts = [text for text, _ in words]
        assert texts.count(shown) == count or any(what in text for text in texts)
