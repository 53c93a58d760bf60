"""What a measurement says of itself."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from common.verdicts import FAIL, PASS, Check, SeriesVerdict
from common.volume import Grid
from measuring.measurement import Hippocampus, Measurement, by_hand, labels_in

GRID = Grid((4, 5, 6), np.diag([1, 2, 3, 1]))
INPUT = SeriesVerdict("1.1", "HippoCrop", "MR", 32, None, "meets all conditions")
OTHER = SeriesVerdict("1.2", "T1post", "MR", 22, "description", "another")
OURS = SeriesVerdict("1.3", "HippoVolume.AI report", "OT", 1, "not-our-result", "ours", ours=True)


def _check(name: str) -> Check:
    return Check(name, 1.0, "", "", PASS, "")


def test_the_input_is_the_one_series_that_was_accepted():
    assert Measurement({}, (OTHER, INPUT, OURS)).accepted is INPUT
    for series in ((), (OTHER,), (INPUT, OTHER, INPUT)):
        assert Measurement({}, series).accepted is None


def test_our_own_results_are_not_shown():
    assert Measurement({}, (OTHER, OURS, INPUT)).series_to_show == (OTHER, INPUT)


def test_the_checks_of_the_series_come_before_those_of_each_hippocampus():
    left, right = (Hippocampus(GRID, (_check(f"{side} 1"), _check(f"{side} 2")), side=side) for side in ("l", "r"))
    names = [check.name for check in Measurement({}, hippocampi=(left, right), checks=(_check("series"),)).all_checks]
    assert names == ["series", "l 1", "l 2", "r 1", "r 2"]
    assert Measurement({}).all_checks == ()


def test_labels_lie_on_their_grid():
    assert Hippocampus(GRID, labels=np.zeros(GRID.shape, np.uint8)).labels.shape == GRID.shape
    for shape in ((4, 5, 7), (4, 5), (6, 5, 4)):
        with pytest.raises(ValueError, match="4, 5, 6"):
            Hippocampus(GRID, labels=np.zeros(shape, np.uint8))


@pytest.mark.parametrize("value", [Measurement({}), Hippocampus(GRID)])
def test_what_was_found_stays_as_it_was(value):
    with pytest.raises(FrozenInstanceError):
        value.refusal = FAIL


def test_what_a_person_outlined_in_a_head_has_sides_and_boxes():
    labels = np.zeros((60, 40, 40), np.uint8)
    labels[40:44, 20:25, 18:20], labels[40:44, 15:20, 18:20] = 1, 2
    grid = Grid(labels.shape, np.diag([1.0, 1, 2, 1]))
    left, right = by_hand(grid, labels, ("left", "right"))
    assert left.volumes_mm3 == {"anterior": 80, "posterior": 80, "total": 160} and left.intervals_mm3 is None
    assert right.refusal.code == "nothing-found" and right.labels is None
    np.testing.assert_array_equal(labels_in(grid, (left, right)), labels)
    corner = [one.start for one in left.box]
    np.testing.assert_allclose(left.grid.affine[:3, 3], np.array(corner) * [1, 1, 2])
    assert corner == [28, 3, 12]
    (crop,) = by_hand(grid, labels, (None,))
    assert crop.box is None and crop.volumes_mm3 == left.volumes_mm3
