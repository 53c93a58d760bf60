"""The page of a refusal: why, in words that stay in their place, and no number that could pass for a volume."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from PIL import Image

from common.refusal import Refusal
from common.structures import COLOURS
from common.verdicts import FAIL, PASS, WARN, Check, SeriesVerdict
from common.volume import Grid, Volume
from measuring.measurement import Hippocampus, Measurement
from pages.canvas import MARGIN, SIZE
from pages.refusal_page import create_refusal_page

pytestmark = pytest.mark.slow

LONG = "The likeness to the mean training crop is 0.261, expected at least 0.376. " * 14
OTHER = SeriesVerdict("1.1", "T1post", "MR", 22, "description", "another")
ACCEPTED = SeriesVerdict("1.2", "HippoCrop", "MR", 22, None, "meets all")
OURS = SeriesVerdict("1.3", "HippoVolume.AI report", "OT", 1, "not-our-result", "ours", ours=True)


def _check(name: str, verdict: str, value: float | None = 0.261) -> Check:
    return Check(name, value, "at least 0.376", "208 crops", verdict, "")


def _source(shape: tuple[int, int, int] = (35, 51, 36), spacing: tuple[float, ...] = (1, 1, 1)) -> Volume:
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Volume(voxels, Grid(shape, np.diag([*spacing, 1])))


@pytest.fixture
def draw(model) -> Callable:
    """draw(reason, checks, series, header, source): the page of that refusal."""

    def draw_page(
        reason: str = "a slice is missing",
        checks: Sequence[Check] = (),
        series: int = 1,
        header: Mapping[str, str] | None = None,
        source: Volume | None = None,
    ) -> Image.Image:
        refusal = Refusal("unfit-input", reason)
        verdicts = (OTHER,) * series + (ACCEPTED,) * (source is not None)
        hippocampi = (Hippocampus(source.grid, tuple(checks), refusal=refusal),) if source else ()
        of_series = () if source else tuple(checks)
        return create_refusal_page(
            Measurement({}, verdicts, source, hippocampi, of_series, refusal), header or {}, model
        )

    return draw_page


def test_it_says_who_and_why(words, draw):
    header = {"PatientName": "Doe^Jane", "PatientID": "ID-7", "StudyDate": "20200119"}
    page = draw(checks=[_check("one_piece", FAIL), _check("size_x", PASS, 35), _check("doubt", WARN)], header=header)
    assert (page.mode, page.size) == ("RGB", SIZE)
    texts = [text for text, _ in words]
    for expected in ("Doe, Jane", "ID-7", "2020-01-19", "A slice is missing", "Code: unfit-input", "T1post"):
        assert expected in texts
    row = texts.index("one piece")
    assert texts[row : row + 4] == ["one piece", "0.261", "at least 0.376", "208 crops"]
    assert "size x" not in texts and "doubt" not in texts
    assert "Research use only" in " ".join(texts)
    assert "0123456789ab" in " ".join(texts)


def test_what_was_refused_is_shown_without_contours(words, draw):
    page = np.asarray(draw(source=_source()), int)
    texts = [text for text, _ in words]
    assert {"Coronal, middle", "Sagittal, middle", "Axial, middle", "HippoCrop"} <= set(texts)
    assert "T1post" not in texts and not any("10 mm" in text for text in texts)
    for colour in COLOURS.values():
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
def test_all_words_stay_in_their_place_beside_pictures(
    words, require_apart, reason, checks, name, shape, spacing, draw
):
    header = {"PatientName": name}
    draw(reason, [_check("likeness", FAIL, None)] * checks, header=header, source=_source(shape, spacing))
    for text, (left, top, right, bottom) in words:
        assert left >= MARGIN - 2 and right <= SIZE[0] - MARGIN + 1, text
        assert top >= 0 and bottom <= SIZE[1], text
    require_apart(words)


def test_the_check_that_it_rests_on_is_the_one_that_is_shown(words, model):
    checks, source = [_check("likeness", FAIL), _check("orientation", FAIL)], _source()
    refusal = Refusal("unfit-input", "it is mirrored")
    hippocampus = Hippocampus(source.grid, tuple(checks), refusal=refusal, cause=checks[1])
    create_refusal_page(Measurement({}, (ACCEPTED,), source, (hippocampus,), refusal=refusal), {}, model)
    texts = [text for text, _ in words]
    assert "orientation" in texts and "likeness" not in texts
    assert any(text.startswith("and 1 more") for text in texts)


def test_it_has_no_table_of_checks_where_none_failed(words, draw):
    draw(checks=[_check("size_x", PASS, 35)])
    assert "Failed check" not in [text for text, _ in words]


@pytest.mark.parametrize("reason", ["a gap", LONG, "x" * 1000, "\ud55c\uad6d\u8a9e <b>"])
@pytest.mark.parametrize("checks", [0, 3, 20])
@pytest.mark.parametrize("series", [0, 5, 50])
def test_all_words_stay_in_their_place(words, require_apart, reason, checks, series, draw):
    draw(reason, [_check("likeness", FAIL, None)] * checks, series)
    for text, (left, top, right, bottom) in words:
        assert left >= MARGIN - 2 and right <= SIZE[0] - MARGIN + 1, text
        assert top >= 0 and bottom <= SIZE[1], text
    require_apart(words)
    for shown, count, what in (("T1post", series, "more series"), ("likeness", checks, "more, all")):
        texts = [text for text, _ in words]
        assert texts.count(shown) == count or any(what in text for text in texts)


def test_our_own_results_are_not_among_the_series(words, model):
    found = Measurement({}, (OTHER, OURS), refusal=Refusal("no-hippocrop-series", "none of 1 series can be the input"))
    create_refusal_page(found, {}, model)
    texts = [text for text, _ in words]
    assert OTHER.description in texts
    assert OURS.description not in texts
