import csv
import json
import math

import numpy as np
import pytest

from held_out_test import HeldOut, by_fold, calibrate, fold_table, half_width, write_report
from hippocampus_data import Case
from phantom import make_phantom
from volume_stats import STRUCTURES, score_volume


def test_the_report_of_folds_says_which_volume_was_in_which(tmp_path, capsys):
    phantoms = [make_phantom(seed=n) for n in range(4)]
    cases = [Case(f"hippocampus_{n}.nii.gz", p.image, p.labels) for n, p in enumerate(phantoms, start=1)]
    labels = [np.roll(case.labels, n, axis=1) for n, case in enumerate(cases)]
    scores = [score_volume(case.name, found, case.labels) for case, found in zip(cases, labels, strict=True)]
    folds = [HeldOut(cases[part], scores[part], labels[part]) for part in (slice(2), slice(2, None))]
    report = write_report(tmp_path, folds, {"protocol": "2 folds"})

    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["name"], row["fold"]) for row in rows] == [
        (case.name, fold) for case, fold in zip(cases, "1122", strict=True)
    ]
    by_fold_rows = list(csv.DictReader((tmp_path / "results_by_fold.csv").open()))
    assert [row["fold"] for row in by_fold_rows] == ["1", "2", "pooled"]
    pooled = json.loads((tmp_path / "results.json").read_text())["by_fold"][-1]
    assert pooled["whole_dice"] == pytest.approx(report["summary"]["whole"]["dice"]["mean"])
    assert float(by_fold_rows[-1]["whole_se"]) == pooled["whole_se"]
    told = capsys.readouterr().out
    assert "mean ± SD" in told and "Dice whole ± SE" in told


def test_persons_and_not_volumes_make_the_standard_error():
    def scores(dice):
        return [
            {"name": f"hippocampus_{n}.nii.gz", **{structure: {"dice": d} for structure in STRUCTURES}}
            for n, d in enumerate(dice, start=1)
        ]

    rows = by_fold([scores([0.8, 0.8, 0.9, 0.9])])
    assert rows[0] == {**rows[1], "fold": 1}
    assert (rows[0]["volumes"], rows[0]["persons"]) == (4, 2)
    assert rows[0]["whole_se"] == pytest.approx(0.05)  # SD .0707 of two persons / sqrt(2)
    assert "0.8500 ± 0.0500" in fold_table(rows)


def of_errors(errors: np.ndarray) -> list[dict]:
    one = [{"true_volume_mm3": 3000 * (1 + e), "volume_mm3": 3000} for e in errors]
    return [{"anterior": s, "posterior": s, "whole": s} for s in one]


def test_nine_of_ten_new_volumes_lie_inside():
    rng = np.random.default_rng(0)
    interval = calibrate([of_errors(rng.normal(0, 0.05, 40)) for _ in range(5)])
    width = interval["half_width"]["whole"]
    assert np.mean(np.abs(rng.normal(0, 0.05, 10_000)) <= width) == pytest.approx(0.9, abs=0.05)
    assert interval["coverage"]["whole"] == pytest.approx(0.9, abs=0.03)


def test_known_ranks():
    assert half_width([[n / 100 for n in range(1, 20)]]) == 0.18  # the 18th of 19
    assert half_width([[0.1] * 4, [0.1] * 4]) == math.inf  # eight cannot tell of nine in ten


def test_one_split_has_no_coverage_and_too_few_volumes_no_interval():
    assert "coverage" not in calibrate([of_errors(np.full(20, 0.02))])
    assert calibrate([of_errors(np.full(3, 0.02))])["half_width"] == {}
