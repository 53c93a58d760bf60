import csv
import json
import math

import numpy as np
import pytest

from volume_stats import (
    Dice3d,
    Jaccard3d,
    aligned,
    best_and_worst_slice,
    dice_by_slice,
    markdown,
    score_structure,
    score_volume,
    standard_error,
    summarise,
    surface_distances,
    write_scores,
)


def cube(start: int, size: int = 10) -> np.ndarray:
    mask = np.zeros((30, 30, 30), bool)
    mask[start : start + size, 5 : 5 + size, 5 : 5 + size] = True
    return mask


def test_overlap_of_known_cubes():
    a, b = cube(5), cube(10)  # half of each is shared
    assert Dice3d(a, b) == pytest.approx(0.5)
    assert Jaccard3d(a, b) == pytest.approx(1 / 3)
    assert Dice3d(a, a) == Jaccard3d(a, a) == 1


def test_empty_masks():
    empty = np.zeros((30, 30, 30), bool)
    assert Dice3d(empty, empty) == Jaccard3d(empty, empty) == 1
    assert Dice3d(empty, cube(5)) == 0
    scores = score_structure(empty, cube(5), (1, 1, 1))
    assert math.isnan(scores["hd95_mm"]) and scores["volume_error_percent"] == -100 and scores["sensitivity"] == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        Dice3d(cube(5), cube(5)[:20])


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 1.1, 2.3), (2.3, 0.7, 1.1)])
def test_distances_are_in_mm(spacing):
    a, b = cube(5), cube(9)
    scores = score_structure(b, a, spacing)
    assert scores["hd95_mm"] == pytest.approx(4 * spacing[0])
    assert scores["volume_mm3"] == pytest.approx(1000 * math.prod(spacing))
    assert scores["volume_error_mm3"] == 0
    assert scores["asd_mm"] < scores["hd95_mm"]


def test_a_single_voxel_apart():
    a, b = np.zeros((2, 9, 9, 9), bool)
    a[2, 4, 4] = b[6, 4, 4] = True
    there, back = surface_distances(a, b, (1, 1, 1))
    assert there.tolist() == back.tolist() == [4.0]


def test_the_hausdorff_distance_is_the_larger_of_both_directions():
    a, b = cube(5), cube(5)
    b[25, 5:15, 5:15] = True  # a far sheet: the way from b to a is long, from a to b short
    assert (
        score_structure(a, b, (1, 1, 1))["hd95_mm"] == score_structure(b, a, (1, 1, 1))["hd95_mm"] == pytest.approx(11)
    )


def test_sensitivity_and_specificity():
    true, found = cube(5), cube(5, size=5)
    scores = score_structure(found, true, (1, 1, 1))
    assert scores["sensitivity"] == pytest.approx(0.125)
    assert scores["specificity"] == 1
    assert score_structure(true, found, (1, 1, 1))["specificity"] == pytest.approx(1 - 875 / (27000 - 125))


def labelled(front: slice, back: slice) -> np.ndarray:
    labels = np.zeros((20, 30, 20), np.uint8)
    labels[5:15, front, 5:15] = 1
    labels[5:15, back, 5:15] = 2
    return labels


def test_structures_and_the_whole_are_told_apart(tmp_path):
    true, found = labelled(slice(15, 25), slice(5, 15)), labelled(slice(17, 25), slice(5, 17))
    score = score_volume("a.nii.gz", found, true)
    assert score["whole"]["dice"] == 1  # only the border between the structures is wrong
    assert score["anterior"]["dice"] == pytest.approx(1600 / 1800)
    assert score["posterior"]["volume_error_percent"] == pytest.approx(20)

    report = write_scores(tmp_path, "results", [score, score_volume("b.nii.gz", true, true)], {"protocol": "test"})
    assert report["summary"]["anterior"]["dice"]["mean"] == pytest.approx((1 + 1600 / 1800) / 2)
    assert set(score["anterior"]) | {"whole"} == set(report["what_they_are"])
    assert json.loads((tmp_path / "results.json").read_text())["protocol"] == "test"
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [row["name"] for row in rows] == ["a.nii.gz", "b.nii.gz"]
    assert float(rows[0]["posterior_volume_error_percent"]) == pytest.approx(20)


def test_the_best_and_the_worst_slice_of_a_known_case():
    """The label lies in slices 5 to 24; the model is right up to 15, half as wide in 16 to 23, blind in 24."""
    true = labelled(slice(15, 25), slice(5, 15))
    found = true.copy()
    found[10:15, 16:24], found[:, 24] = 0, 0
    dice = dice_by_slice(found, true)
    assert dice["whole"][:5] == [None] * 5 and dice["whole"][25:] == [None] * 5
    assert dice["whole"][5:16] == [1] * 11 and dice["whole"][24] == 0
    assert dice["whole"][16:24] == [pytest.approx(2 * 50 / 150)] * 8
    assert best_and_worst_slice(dice["whole"]) == {"best": {"slice": 5, "dice": 1}, "worst": {"slice": 24, "dice": 0}}
    assert best_and_worst_slice(dice["anterior"])["best"] == {"slice": 15, "dice": 1}
    assert best_and_worst_slice(dice["posterior"]) == {
        "best": {"slice": 5, "dice": 1},
        "worst": {"slice": 5, "dice": 1},
    }


def test_a_case_without_any_structure_has_no_best_slice():
    nothing = np.zeros((4, 5, 6), np.uint8)
    dice = dice_by_slice(nothing, nothing)
    assert dice["whole"] == [None] * 5
    assert best_and_worst_slice(dice["whole"]) is None


def test_columns_of_a_table_never_touch():
    rows = [("name", "value"), ("a", "-1739.579 ± 173.579"), ("longer than that", "1")]
    lines = aligned(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "a                 -1739.579 ± 173.579" and lines[2].endswith(" 1")


def test_what_is_undefined_is_not_averaged():
    true = labelled(slice(15, 25), slice(5, 15))
    scores = [score_volume("a", true, true), score_volume("b", np.zeros_like(true), true)]
    summary = summarise(scores)
    assert summary["anterior"]["hd95_mm"] == {"mean": 0, "min": 0, "max": 0, "n": 1}
    assert summary["anterior"]["dice"]["n"] == 2


def test_the_standard_error_counts_persons():
    values = np.array([0.7, 0.8, 0.9, 0.95])
    assert standard_error(values, list("abcd")) == pytest.approx(values.std(ddof=1) / 2)  # all apart: the usual one
    assert standard_error(values.repeat(2), list("aabbccdd")) == pytest.approx(values.std(ddof=1) / 2)
    assert math.isnan(standard_error(values, list("aaaa")))


def test_a_markdown_table_lines_up():
    lines = markdown([("", "Dice"), ("anterior", ".9"), ("all", "0.95 ± 0.01")]).splitlines()
    assert lines == [
        "|          | Dice        |",
        "| -------- | ----------- |",
        "| anterior | .9          |",
        "| all      | 0.95 ± 0.01 |",
    ]
