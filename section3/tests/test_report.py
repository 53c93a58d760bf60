"""The page: contours on the anatomy, words that are the study's, and nothing outside its frame."""

import time

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, config

import report
from phantom import make_phantom
from report import ANTERIOR, COLOURS, POSTERIOR, VIEWS, create_report, drawable, fit_zoom, has_glyph, place_views

MODEL = {"name": "hippocampus-2d", "version": "1.2", "sha256": "0123456789abcdef" * 4}
GRIDS = [  # shapes and spacings, all unequal
    ((30, 44, 37), (1.0, 0.8, 1.3)),
    ((50, 31, 24), (0.5, 1.6, 2.0)),
    ((24, 60, 42), (1.7, 0.6, 0.9)),
]


def make_header(**values: str) -> Dataset:
    header = Dataset()
    with config.disable_value_validation():
        for keyword, value in values.items():
            setattr(header, keyword, value)
    return header


def draw(volume, labels, spacing=(1.0, 1.0, 1.0), header=None, series="HippoCrop", model=MODEL) -> Image.Image:
    voxel = float(np.prod(spacing))
    volumes = {"anterior": (labels == ANTERIOR).sum() * voxel, "posterior": (labels == POSTERIOR).sum() * voxel}
    volumes["total"] = volumes["anterior"] + volumes["posterior"]
    return create_report(volume, labels, spacing, header or Dataset(), volumes, model, series)


# --- geometry


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is True, right and bottom excluded."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def expected_box(block: list[slice], shape, spacing, horizontal: int, vertical: int) -> tuple[float, ...]:
    """Where a block of voxels lies in a picture, in pixels from its corner, if both axes run against the volume's."""
    zoom = fit_zoom(shape, spacing)

    def span(axis: int) -> list[float]:
        return [(shape[axis] - end) * spacing[axis] * zoom for end in (block[axis].stop, block[axis].start)]

    (left, right), (top, bottom) = span(horizontal), span(vertical)
    return left, top, right, bottom


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("label", [ANTERIOR, POSTERIOR])
def test_a_marker_appears_where_it_is_with_its_contour_around_it(shape, spacing, label):
    # Near one corner: no mirror image has it there.
    block = [slice(4, 9), slice(shape[1] - 11, shape[1] - 5), slice(3, 8)]
    volume = np.zeros(shape, np.float32)
    volume[tuple(block)] = 1000
    labels = np.zeros(shape, np.uint8)
    labels[tuple(block)] = label
    page = np.asarray(draw(volume, labels, spacing)).astype(int)

    zoom = fit_zoom(shape, spacing)
    axes = ((0, 2), (0, 2), (1, 2), (0, 1))  # two coronal pictures, a sagittal and an axial one
    for (left, top), (horizontal, vertical) in zip(place_views(shape, spacing, zoom), axes, strict=True):
        width, height = (round(shape[axis] * spacing[axis] * zoom) for axis in (horizontal, vertical))
        picture = page[top : top + height, left : left + width]
        contour = np.all(picture == report._rgb(COLOURS[label]), axis=2)
        grey = np.ptp(picture, axis=2) == 0
        marker = contour | (grey & (picture[..., 0] > 127))
        expected = expected_box(block, shape, spacing, horizontal, vertical)
        assert box_of(contour) == pytest.approx(expected, abs=1)
        assert box_of(marker) == pytest.approx(expected, abs=1.5)
        inner = [round(edge) + step for edge, step in zip(expected, (4, 4, -4, -4), strict=True)]
        assert picture[inner[1] : inner[3], inner[0] : inner[2]].min() > 200


def test_an_unlabelled_voxel_is_drawn_where_the_patient_has_it():
    """Superior and anterior are up, anterior is left in the sagittal picture, the patient's right is on the left."""
    shape = (21, 21, 21)
    labels = np.zeros(shape, np.uint8)
    labels[10, 10, 10] = ANTERIOR
    volume = np.zeros(shape, np.float32)
    volume[13:21, 13:21, 13:21] = 1  # right, anterior, superior
    volume[10, 13:21, 13:21] = volume[13:21, 10, 13:21] = volume[13:21, 13:21, 10] = 1
    page = np.asarray(draw(volume, labels).convert("L")).astype(int)
    zoom = fit_zoom(shape, (1, 1, 1))
    side = round(21 * zoom)
    for left, top in place_views(shape, (1, 1, 1), zoom):
        quarters = [
            page[top + y : top + y + side // 3, left + x : left + x + side // 3].mean()
            for y, x in ((0, 0), (0, 2 * side // 3), (2 * side // 3, 0), (2 * side // 3, 2 * side // 3))
        ]
        assert quarters[0] > 200
        assert max(quarters[1:]) < 50


@pytest.mark.parametrize(("shape", "spacing"), [*GRIDS, ((20, 20, 20), (1, 1, 1)), ((120, 120, 120), (1, 1, 1))])
def test_pictures_keep_the_proportions_and_their_area(shape, spacing):
    zoom = fit_zoom(shape, spacing)
    for axis, (left, top) in zip((1, 1, 0, 2), place_views(shape, spacing, zoom), strict=True):
        width, height = report.display_size(shape, spacing, axis, zoom)
        first, second = (shape[side] * spacing[side] for side in report.SIDES[axis])
        assert width / height == pytest.approx(first / second, rel=0.02)
        assert left >= VIEWS[0] and top >= VIEWS[1] and left + width <= VIEWS[2] and top + height <= VIEWS[3]


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_pictures_do_not_overlap(shape, spacing):
    zoom = fit_zoom(shape, spacing)
    used = np.zeros(report.SIZE[::-1], int)
    for axis, (left, top) in zip((1, 1, 0, 2), place_views(shape, spacing, zoom), strict=True):
        width, height = report.display_size(shape, spacing, axis, zoom)
        used[top : top + height, left : left + width] += 1
    assert used.max() == 1


def test_slices_cut_the_middle_of_their_structure():
    labels = np.zeros((10, 30, 10), np.uint8)
    labels[2:5, 20:27, 4] = ANTERIOR
    labels[2:5, 5:14, 6] = POSTERIOR
    anterior, posterior, sagittal, axial = report.choose_views(labels)
    assert (anterior.index, posterior.index, sagittal.index) == (23, 9, 3)
    assert axial.index in (4, 6)


def test_a_contour_is_closed_also_at_the_edge_of_the_picture():
    inside = np.zeros((20, 30), bool)
    inside[:, :12] = True
    core = np.zeros_like(inside)
    core[2:18, 2:10] = True
    assert np.array_equal(report.rim(inside), inside & ~core)


def test_marks_stand_where_the_coronal_pictures_are_cut():
    shape, spacing = (21, 60, 25), (1.3, 0.8, 1.1)
    labels = np.zeros(shape, np.uint8)
    labels[8:12, 48:51, 8:12] = ANTERIOR  # slice 49
    labels[8:12, 10:15, 8:12] = POSTERIOR  # slice 12
    page = np.asarray(draw(np.zeros(shape), labels, spacing)).astype(int)
    zoom = fit_zoom(shape, spacing)
    left, top = place_views(shape, spacing, zoom)[2]
    for index, label in ((49, ANTERIOR), (12, POSTERIOR)):
        marks = np.all(page[top - 7, left : left + round(60 * 0.8 * zoom)] == report._rgb(COLOURS[label]), axis=1)
        assert np.flatnonzero(marks).mean() == pytest.approx((60 - index - 0.5) * 0.8 * zoom, abs=1)


# --- words


def test_the_page_says_what_the_study_says(words):
    header = make_header(
        PatientName="Doe^Jane^M", PatientID="ID-7", StudyDate="20200119", AccessionNumber="ACC-9", StudyTime="112233"
    )
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


def test_the_page_names_no_side(words):
    phantom = make_phantom(0)
    draw(phantom.image, phantom.labels, header=make_header(PatientName="Doe^Jane"))
    spoken = {word.lower().strip(".,:") for text, _ in words for word in text.split()}
    assert not spoken & {"l", "r", "left", "right"}
    assert {"a", "p", "s", "i"} <= spoken


@pytest.mark.parametrize("value", ["", None])
def test_what_the_study_lacks_is_a_dash(words, value):
    keywords = ("PatientName", "PatientID", "StudyDate", "AccessionNumber")
    header = Dataset() if value is None else make_header(**dict.fromkeys(keywords, value))
    draw(np.zeros((20, 20, 20)), np.zeros((20, 20, 20), np.uint8), header=header)
    assert [text for text, _ in words].count("-") == len(keywords)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Müller^Jürgen", "Muller, Jurgen"),
        ("Strauß^Søren", "Strauss, Soren"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou"),
        ("=山田^太郎", "\ufffd\ufffd, \ufffd\ufffd"),
        ("Иванов^Иван", "\ufffd" * 6 + ", " + "\ufffd" * 4),
        ("Doe^\x07\u202eJane", "Doe, \ufffd\ufffdJane"),
        ("^Jane", "Jane"),
        ("Doe^", "Doe"),
        ("^^", ""),
    ],
)
def test_names_are_written_in_letters_that_the_font_has(name, shown):
    assert drawable(report.person(make_header(PatientName=name).PatientName)) == shown


def test_a_letter_that_the_font_lacks_is_never_blank():
    assert not has_glyph("日")
    assert not has_glyph(report.BOX)
    assert any(report.font(20).getmask(report.BOX))
    assert all(has_glyph(character) for character in "AZaz09 -.,:…±")


def test_a_simplified_name_says_so(words):
    phantom = make_phantom(0)
    draw(phantom.image, phantom.labels, header=make_header(PatientName="Müller^Jürgen"))
    assert any("DICOM header has the name" in text for text, _ in words)


LONG = make_header(
    PatientName="Wolfeschlegelsteinhausenbergerdorff^Hubert-Blaine Ödön^^Dr.",
    PatientID="W" * 64,
    StudyDate="20200119",
    AccessionNumber="M" * 16,
)


def test_a_value_of_a_million_letters_costs_no_time(words):
    header = make_header(PatientName="^".join(["x" * 1_000_000] * 2), PatientID="y z" * 300_000)
    started = time.thread_time()
    draw(np.zeros((20, 20, 20)), np.zeros((20, 20, 20), np.uint8), header=header)
    assert time.thread_time() - started < 2
    assert any(text.endswith("…") for text, _ in words)


@pytest.mark.parametrize("header", [Dataset(), LONG], ids=["empty", "long"])
@pytest.mark.parametrize("shape", [(20, 20, 20), (35, 51, 36), (120, 120, 120), (20, 90, 20), (90, 20, 90)])
def test_all_words_stay_in_their_place(words, require_apart, header, shape):
    labels = np.zeros(shape, np.uint8)
    labels[5:9, 5:9, 5:9] = ANTERIOR
    model = {**MODEL, "name": "a rather long name of a model " * 3}
    draw(np.random.default_rng(0).random(shape), labels, (0.9, 1.1, 1.0), header, "HippoCrop " * 7, model)
    for text, (left, top, right, bottom) in words:
        column_end = report.MARGIN + report.COLUMN if left < VIEWS[0] - 20 else report.SIZE[0] - report.MARGIN
        assert left >= report.MARGIN - 6 and right <= column_end + 1, text
        assert top >= 0 and bottom <= report.SIZE[1], text
    require_apart(words)


# --- robustness


@pytest.mark.parametrize("present", [(), (ANTERIOR,), (POSTERIOR,), (ANTERIOR, POSTERIOR)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_pages_are_drawn_whatever_was_found(words, present, dtype):
    phantom = make_phantom(2, shape=(30, 40, 30), intensity_max=200)
    labels = np.where(np.isin(phantom.labels, present), phantom.labels, 0).astype(np.uint8)
    page = draw(phantom.image.astype(dtype), labels)
    assert (page.mode, page.size) == ("RGB", report.SIZE)
    missing = [name for name, label in (("anterior", ANTERIOR), ("posterior", POSTERIOR)) if label not in present]
    assert [text for text, _ in words if "found" in text] == [f"Coronal; no {name} part found" for name in missing]


@pytest.mark.parametrize("value", [0, 7, -3.5, 1.7e6])
def test_a_constant_image_is_grey(value):
    grey = report.window(np.full((20, 20, 20), value))
    assert grey.dtype == np.uint8 and np.all(grey == 128)


def test_the_window_ignores_a_few_bright_voxels():
    volume = np.linspace(0, 100, 27_000).reshape(30, 30, 30)
    volume[0, 0, :3] = 1e6
    grey = report.window(volume)
    assert np.median(grey) == pytest.approx(127, abs=2)


def test_the_same_input_gives_the_same_page_and_stays_as_it_was():
    phantom = make_phantom(4)
    image, labels = phantom.image.copy(), phantom.labels.copy()
    assert draw(image, labels).tobytes() == draw(image, labels).tobytes()
    assert np.array_equal(image, phantom.image) and np.array_equal(labels, phantom.labels)


@pytest.mark.parametrize("shape", [(20, 20, 21), (20, 20)])
def test_grids_that_differ_are_an_error(shape):
    with pytest.raises(ValueError, match="20, 20, 20"):
        draw(np.zeros((20, 20, 20)), np.zeros(shape, np.uint8))
