import csv
import json

import numpy as np
import pytest

from agreement import main as agreement
from held_out_test import by_fold, fold_table, write_report
from hippocampus_data import Case
from phantom import make_phantom
from volume_stats import STRUCTURES, score_volume


def test_the_report_of_folds_says_which_volume_was_in_which(tmp_path, capsys):
    phantoms = [make_phantom(seed=n) for n in range(4)]
    cases = [Case(f"hippocampus_{n}.nii.gz", p.image, p.labels) for n, p in enumerate(phantoms, start=1)]
    labels = [np.roll(case.labels, n, axis=1) for n, case in enumerate(cases)]
    scores = [score_volume(case.name, found, case.labels) for case, found in zip(cases, labels, strict=True)]
    report = write_report(tmp_path, cases, [scores[:2], scores[2:]], labels, {"protocol": "2 folds"})

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


def test_a_run_agrees_with_itself(tiny_run, phantom_set, tmp_path, capsys):
    options = ["--data-root", str(phantom_set), "--names", "one", "other", "--figure", str(tmp_path / "agreement.png")]
    assert agreement([str(tiny_run), str(tiny_run), *options]) == 0
    told = capsys.readouterr().out
    assert told.startswith("2 volumes of 1 persons")
    (mutual,) = [line for line in told.splitlines() if line.startswith("| one and other")]
    assert mutual.count("1.0000") == 3
    assert (tmp_path / "agreement.png").exists()


def test_agreement_needs_runs(tmp_path, phantom_set, capsys):
    assert agreement([str(tmp_path), str(tmp_path), "--data-root", str(phantom_set)]) == 1
    assert "config.json" in capsys.readouterr().err
