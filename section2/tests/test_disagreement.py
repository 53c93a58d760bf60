import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from disagreement import account, best_and_worst, best_shift, border_position, draw_case
from hippocampus_data import Case
from phantom import make_phantom
from volume_stats import score_volume


@pytest.fixture(scope="module")
def case() -> Case:
    phantom = make_phantom(seed=3)
    return Case("hippocampus_003.nii.gz", phantom.image, phantom.labels)


def test_the_border_is_where_the_structures_meet():
    labels = np.zeros((4, 20, 4), np.uint8)
    labels[1:3, 3:10, 1:3], labels[1:3, 10:16, 1:3] = 2, 1
    assert border_position(labels) == 9
    labels[1, 10:12, 1:3] = 2  # half of the faces two further in front
    assert border_position(labels) == 10
    assert np.isnan(border_position(np.zeros_like(labels)))


@pytest.mark.parametrize("move", [(0, 0, 0), (1, -1, 1), (0, 2, -1)])
def test_a_moved_label_is_found_out(case, move):
    padded = np.pad(case.labels, 3)
    moved = np.roll(padded, move, axis=(0, 1, 2))
    assert best_shift(moved, padded) == (move, 1.0)


def test_a_label_at_the_edge_is_not_rolled_over_it():
    found, true = np.zeros((2, 8, 8, 8), np.uint8)
    found[0], true[-1] = 1, 1
    assert best_shift(found, true) == ((0, 0, 0), 0.0)


def test_an_account_tells_what_is_wrong(case):
    padded = np.pad(case.labels, 3)
    found = np.roll(padded, (0, 2, 0), axis=(0, 1, 2))
    told = account(score_volume(case.name, found, padded), found, padded)
    assert "label moved by y +2 mm: whole Dice 1.000" in told
    assert "border: +2.0 mm from the label's" in told and "+0.0 % of the label's" in told


def test_cases_are_drawn_as_on_the_clinics_page():
    """What is bright at the high end of both axes of a plane is drawn above and left: anterior, x, superior."""
    labels = np.zeros((40, 60, 36), np.uint8)
    labels[10:30, 10:30, 10:26], labels[10:30, 30:50, 10:26] = 2, 1
    image = np.zeros(labels.shape)
    image[10, 40:, 24:] = image[25:, [10, 30], 24:] = 1  # the richest planes: x 10, y 10 and y 30
    figure = Figure(figsize=(8, 2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4)
    draw_case(list(axes), image, np.zeros_like(labels), labels)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., 0]
    for axis in axes[[0, 2, 3]]:
        left, low, right, high = (round(v) for v in axis.get_window_extent().extents)
        panel = pixels[200 - high + 3 : 200 - low - 3, left + 3 : right - 3]
        quarters = [half.mean() for rows in np.array_split(panel, 2) for half in np.array_split(rows, 2, axis=1)]
        assert np.argmax(quarters) == 0, quarters


def test_pictures_of_cases_are_drawn_even_where_nothing_was_found(case, tmp_path):
    nothing = np.zeros_like(case.labels)
    scores = [score_volume(case.name, found, case.labels) for found in (case.labels, nothing)]
    best_and_worst([case, case], scores, [case.labels, nothing], tmp_path / "cases.png")
    with Image.open(tmp_path / "cases.png") as picture:
        assert picture.width > 1000
        colours = {tuple(c) for c in np.asarray(picture.convert("RGB")).reshape(-1, 3)[::3].tolist()}
    assert (232, 63, 155) in colours  # the outline of the model
