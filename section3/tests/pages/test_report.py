"""The page: contours on the anatomy, words that are the study's, and nothing outside its frame."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from PIL import Image

from common.structures import ANTERIOR, COLOURS, POSTERIOR
from common.verdicts import PASS, WARN, Check, SeriesVerdict
from common.volume import Grid, Volume
from measuring.measure_crop import get_predicted_volumes
from measuring.measurement import Hippocampus, Measurement
from pages.canvas import COLUMN, MARGIN, SIZE, VIEWS
from pages.report import create_report, fit_zoom, place_views
from pages.views import SIDES, display_size
from phantom import make_phantom

GRIDS = [  # shapes and spacings, all unequal
    ((30, 44, 37), (1.0, 0.8, 1.3)),
    ((50, 31, 24), (0.5, 1.6, 2.0)),
    ((24, 60, 42), (1.7, 0.6, 0.9)),
]


def _grid(shape: tuple[int, ...], spacing: tuple[float, ...] = (1, 1, 1)) -> Grid:
    return Grid(shape, np.diag([*spacing, 1]))


def _rgb(label: int) -> list[int]:
    return list(bytes.fromhex(COLOURS[label].removeprefix("#")))


@pytest.fixture
def draw(model) -> Callable:
    """draw(voxels, labels, spacing, header, series, ...): the page of that measurement."""

    def draw_report(
        voxels: np.ndarray,
        labels: np.ndarray,
        spacing: tuple[float, ...] = (1, 1, 1),
        header: Mapping[str, str] | None = None,
        series: str = "HippoCrop",
        model: Mapping[str, str] = model,
        checks: Sequence[Check] = (),
        intervals_mm3: Mapping[str, list[float]] | None = None,
        history: str = "",
    ) -> Image.Image:
        grid = _grid(voxels.shape, spacing)
        volumes = get_predicted_volumes(labels, grid)
        hippocampus = Hippocampus(grid, tuple(checks[1:]), labels, volumes, intervals_mm3)
        accepted = SeriesVerdict("1.2", series, "MR", voxels.shape[0], None, "meets all conditions")
        found = Measurement({}, (accepted,), Volume(voxels, grid), (hippocampus,), tuple(checks[:1]))
        return create_report(found, header or {}, model, history)

    return draw_report


# --- geometry


def _box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is True, right and bottom excluded."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def _expected_box(block: list[slice], shape, spacing, horizontal: int, vertical: int) -> tuple[float, ...]:
    """Where a block of voxels lies in a picture, in pixels from its corner, if both axes run against the volume's."""
    zoom = fit_zoom(_grid(shape, spacing))

    def span(axis: int) -> list[float]:
        return [(shape[axis] - end) * spacing[axis] * zoom for end in (block[axis].stop, block[axis].start)]

    (left, right), (top, bottom) = span(horizontal), span(vertical)
    return left, top, right, bottom


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("label", [ANTERIOR, POSTERIOR])
def test_a_marker_appears_where_it_is_with_its_contour_around_it(shape, spacing, label, draw):
    # Near one corner: no mirror image has it there.
    block = [slice(4, 9), slice(shape[1] - 11, shape[1] - 5), slice(3, 8)]
    volume = np.zeros(shape, np.float32)
    volume[tuple(block)] = 1000
    labels = np.zeros(shape, np.uint8)
    labels[tuple(block)] = label
    page = np.asarray(draw(volume, labels, spacing)).astype(int)

    zoom = fit_zoom(_grid(shape, spacing))
    axes = ((0, 2), (0, 2), (1, 2), (0, 1))  # two coronal pictures, a sagittal and an axial one
    for (left, top), (horizontal, vertical) in zip(place_views(_grid(shape, spacing), zoom), axes, strict=True):
        width, height = (round(shape[axis] * spacing[axis] * zoom) for axis in (horizontal, vertical))
        picture = page[top : top + height, left : left + width]
        contour = np.all(picture == _rgb(label), axis=2)
        grey = np.ptp(picture, axis=2) == 0
        marker = contour | (grey & (picture[..., 0] > 127))
        expected = _expected_box(block, shape, spacing, horizontal, vertical)
        assert _box_of(contour) == pytest.approx(expected, abs=1)
        assert _box_of(marker) == pytest.approx(expected, abs=1.5)
        inner = [round(edge) + step for edge, step in zip(expected, (4, 4, -4, -4), strict=True)]
        assert picture[inner[1] : inner[3], inner[0] : inner[2]].min() > 200


def test_an_unlabelled_voxel_is_drawn_where_the_patient_has_it(draw):
    """Superior and anterior are up, anterior is left in the sagittal picture, the patient's right is on the left."""
    shape = (21, 21, 21)
    labels = np.zeros(shape, np.uint8)
    labels[10, 10, 10] = ANTERIOR
    volume = np.zeros(shape, np.float32)
    volume[13:21, 13:21, 13:21] = 1  # right, anterior, superior
    volume[10, 13:21, 13:21] = volume[13:21, 10, 13:21] = volume[13:21, 13:21, 10] = 1
    page = np.asarray(draw(volume, labels).convert("L")).astype(int)
    zoom = fit_zoom(_grid(shape))
    side = round(21 * zoom)
    for left, top in place_views(_grid(shape), zoom):
        quarters = [
            page[top + y : top + y + side // 3, left + x : left + x + side // 3].mean()
            for y, x in ((0, 0), (0, 2 * side // 3), (2 * side // 3, 0), (2 * side // 3, 2 * side // 3))
        ]
        assert quarters[0] > 200
        assert max(quarters[1:]) < 50


@pytest.mark.parametrize(("shape", "spacing"), [*GRIDS, ((20, 20, 20), (1, 1, 1)), ((120, 120, 120), (1, 1, 1))])
def test_pictures_keep_the_proportions_and_their_area(shape, spacing):
    zoom = fit_zoom(_grid(shape, spacing))
    for axis, (left, top) in zip((1, 1, 0, 2), place_views(_grid(shape, spacing), zoom), strict=True):
        width, height = display_size(_grid(shape, spacing), axis, zoom)
        first, second = (shape[side] * spacing[side] for side in SIDES[axis])
        assert width / height == pytest.approx(first / second, rel=0.02)
        assert left >= VIEWS[0] and top >= VIEWS[1] and left + width <= VIEWS[2] and top + height <= VIEWS[3]


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_pictures_do_not_overlap(shape, spacing):
    zoom = fit_zoom(_grid(shape, spacing))
    used = np.zeros(SIZE[::-1], int)
    for axis, (left, top) in zip((1, 1, 0, 2), place_views(_grid(shape, spacing), zoom), strict=True):
        width, height = display_size(_grid(shape, spacing), axis, zoom)
        used[top : top + height, left : left + width] += 1
    assert used.max() == 1


def test_marks_stand_where_the_coronal_pictures_are_cut(draw):
    shape, spacing = (21, 60, 25), (1.3, 0.8, 1.1)
    labels = np.zeros(shape, np.uint8)
    labels[8:12, 48:51, 8:12] = ANTERIOR  # slice 49
    labels[8:12, 10:15, 8:12] = POSTERIOR  # slice 12
    page = np.asarray(draw(np.zeros(shape), labels, spacing)).astype(int)
    zoom = fit_zoom(_grid(shape, spacing))
    left, top = place_views(_grid(shape, spacing), zoom)[2]
    for index, label in ((49, ANTERIOR), (12, POSTERIOR)):
        marks = np.all(page[top - 7, left : left + round(60 * 0.8 * zoom)] == _rgb(label), axis=1)
        assert np.flatnonzero(marks).mean() == pytest.approx((60 - index - 0.5) * 0.8 * zoom, abs=1)


# --- words


def test_the_page_says_what_the_study_says(words, draw):
    header = {
        "PatientName": "Doe^Jane^M",
        "PatientID": "ID-7",
        "StudyDate": "20200119",
        "AccessionNumber": "ACC-9",
        "StudyTime": "112233",
    }
    phantom = make_phantom(0)
    draw(phantom.image, phantom.labels, header=header, series="hippo crop 2")
    text = " | ".join(word for word, _ in words)
    total = int((phantom.labels > 0).sum())
    for expected in (
        "Doe, Jane M",
        "ID-7",
        "2020-01-19",
        "ACC-9",
        "hippo crop 2",
        "hippocampus-2d",
        "1.2",
        "0123456789ab",
    ):
        assert expected in text
    for expected in (f"{total} | mm | 3", "Anterior", "Posterior", "10 mm", "not for diagnosis", "Not for treatment"):
        assert expected in text
    assert "Research use only" in text.replace(" | ", " ")


def test_the_page_names_no_side(words, draw):
    phantom = make_phantom(0)
    draw(phantom.image, phantom.labels, header={"PatientName": "Doe^Jane"})
    spoken = {word.lower().strip(".,:") for text, _ in words for word in text.split()}
    assert not spoken & {"l", "r", "left", "right"}
    assert {"a", "p", "s", "i"} <= spoken


@pytest.mark.parametrize("value", ["", None])
def test_what_the_study_lacks_is_a_dash(words, value, draw):
    keywords = ("PatientName", "PatientID", "StudyDate", "AccessionNumber")
    header = {} if value is None else dict.fromkeys(keywords, value)
    draw(np.zeros((20, 20, 20)), np.zeros((20, 20, 20), np.uint8), header=header)
    assert [text for text, _ in words].count("-") == len(keywords)


def test_a_simplified_name_says_so(words, draw):
    phantom = make_phantom(0)
    draw(phantom.image, phantom.labels, header={"PatientName": "Müller^Jürgen"})
    assert any("DICOM header has the name" in text for text, _ in words)


LONG = {
    "PatientName": "Wolfeschlegelsteinhausenbergerdorff^Hubert-Blaine Ödön^^Dr.",
    "PatientID": "W" * 64,
    "StudyDate": "20200119",
    "AccessionNumber": "M" * 16,
}


@pytest.mark.parametrize("header", [{}, LONG], ids=["empty", "long"])
@pytest.mark.parametrize("shape", [(20, 20, 20), (35, 51, 36), (120, 120, 120), (20, 90, 20), (90, 20, 90)])
def test_all_words_stay_in_their_place(words, require_apart, header, shape, draw, model):
    labels = np.zeros(shape, np.uint8)
    labels[5:9, 5:9, 5:9] = ANTERIOR
    model = {**model, "name": "a rather long name of a model " * 3}
    draw(np.random.default_rng(0).random(shape), labels, (0.9, 1.1, 1.0), header, "HippoCrop " * 7, model)
    for text, (left, top, right, bottom) in words:
        column_end = MARGIN + COLUMN if left < VIEWS[0] - 20 else SIZE[0] - MARGIN
        assert left >= MARGIN - 6 and right <= column_end + 1, text
        assert top >= 0 and bottom <= SIZE[1], text
    require_apart(words)


def test_the_intervals_are_on_the_page(words, draw):
    phantom = make_phantom(0)
    intervals = {"anterior": [1000.4, 1300.6], "posterior": [900, 1100], "total": [2000, 2300]}
    draw(phantom.image, phantom.labels, intervals_mm3=intervals)
    texts = [text for text, _ in words]
    assert [text for text in texts if "expert's" in text] == [
        "An expert's volume lies in 2000 to 2300",
        "expert's: 1000 to 1301",
        "expert's: 900 to 1100",
    ]
    assert "nine times in ten. This is no range of normal values." in texts


def test_what_must_be_looked_at_with_care_is_named(words, draw):
    phantom = make_phantom(0)
    checks = [
        Check("voxel_size", 2.0, "", "", WARN, "Volumes may come out too small: 2 mm."),
        Check("doubt", 1.0, "", "", PASS, ""),
    ]
    draw(phantom.image, phantom.labels, checks=checks)
    draw(phantom.image, phantom.labels, checks=checks[1:])
    assert [text for text, _ in words if text.startswith("Quality")] == [
        "Quality: 1 of 2 checks passed. Not passed: voxel size.",
        "Quality: 1 of 1 checks passed.",
    ]
    warnings = [(text, box) for text, box in words if "too small" in text]
    assert [text for text, _ in warnings] == ["With care: Volumes may come out too small: 2 mm."]
    number = next(box for text, box in words if text == "Total volume")
    assert 0 < warnings[0][1][1] - number[3] < 160  # beside the number, before the parts


def test_the_date_of_the_analysis_is_on_the_page(words, draw):
    phantom = make_phantom(0)
    draw(phantom.image, phantom.labels, history="analysed 2026-11-25")
    assert any("analysed 2026-11-25" in text for text, _ in words)


# --- robustness


@pytest.mark.parametrize("present", [(), (ANTERIOR,), (POSTERIOR,), (ANTERIOR, POSTERIOR)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_pages_are_drawn_whatever_was_found(words, present, dtype, draw):
    phantom = make_phantom(2, shape=(30, 40, 30), intensity_max=200)
    labels = np.where(np.isin(phantom.labels, present), phantom.labels, 0).astype(np.uint8)
    page = draw(phantom.image.astype(dtype), labels)
    assert (page.mode, page.size) == ("RGB", SIZE)
    missing = [name for name, label in (("anterior", ANTERIOR), ("posterior", POSTERIOR)) if label not in present]
    assert [text for text, _ in words if "found" in text] == [f"Coronal; no {name} part found" for name in missing]


def test_the_same_input_gives_the_same_page_and_stays_as_it_was(draw):
    phantom = make_phantom(4)
    image, labels = phantom.image.copy(), phantom.labels.copy()
    assert draw(image, labels).tobytes() == draw(image, labels).tobytes()
    assert np.array_equal(image, phantom.image) and np.array_equal(labels, phantom.labels)


def test_grids_that_differ_are_an_error(model):
    labels = np.zeros((20, 20, 21), np.uint8)
    hippocampus = Hippocampus(
        _grid(labels.shape), labels=labels, volumes_mm3={"anterior": 0, "posterior": 0, "total": 0}
    )
    series = (SeriesVerdict("1.2", "HippoCrop", "MR", 20, None, ""),)
    source = Volume(np.zeros((20, 20, 20), np.float32), _grid((20, 20, 20)))
    with pytest.raises(ValueError, match=r"20, 20, 21.*20, 20, 20"):
        create_report(Measurement({}, series, source, (hippocampus,)), {}, model)
