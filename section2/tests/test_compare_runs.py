import csv
import math

import numpy as np
import pytest

from compare_runs import main
from paired_differences import compare, interval, read_scores
from volume_stats import STRUCTURES, score_structure

RNG = np.random.default_rng(0)
NAMES = [f"hippocampus_{n:03d}.nii.gz" for n in range(1, 61)]  # two of each of 30 persons
LEVELS = RNG.normal(0.88, 0.03, len(NAMES))
NOISE = RNG.normal(0, 0.01, len(NAMES))


def write_run(folder, dice, names=NAMES, volume=1000.0, hd95=1.5):
    """A run's results.csv with these Dice values [N] and otherwise the same everywhere."""
    folder.mkdir()
    mask = np.ones((3, 3, 3), bool)
    measures = score_structure(mask, mask, (1, 1, 1)) | {"true_volume_mm3": volume, "hd95_mm": hd95}
    with (folder / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", *(f"{s}_{m}" for s in STRUCTURES for m in measures)])
        for name, value in zip(names, dice, strict=True):
            table.writerow([name, *(v for _ in STRUCTURES for v in (measures | {"dice": value}).values())])
    return folder


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.02, "better"), (-0.02, "worse"), (0.0, "inside the noise"), (0.0005, "inside the noise")]
)
def test_a_gain_is_told_from_noise(tmp_path, capsys, gain, verdict):
    reference = write_run(tmp_path / "a", LEVELS)
    run = write_run(tmp_path / "b", LEVELS + NOISE - NOISE.mean() + gain)
    assert main([str(reference), str(run), "--names", "old", "new"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("60 volumes of 30 persons")
    rows = [[cell.strip() for cell in line.split("|")] for line in told.splitlines() if line.startswith("| new")]
    assert len(rows) == 9
    assert {row[10] for row in rows if row[3] == "Dice"} == {verdict}
    assert [float(row[6]) for row in rows if row[3] == "Dice"] == [pytest.approx(gain, abs=1e-4)] * 3
    assert {row[10] for row in rows if row[3] != "Dice"} == {"inside the noise"}


def test_less_is_better_for_distances(tmp_path):
    far, near = (read_scores(write_run(tmp_path / f"{mm}", LEVELS, hd95=mm)) for mm in (2.0, 1.0))
    (found,) = [d for d in compare("near", near, far, NAMES) if (d.structure, d.measure) == ("whole", "hd95_mm")]
    assert (found.mean, found.better, found.worse, found.verdict) == (-1, 1, 0, "better")


def test_the_sides_of_a_person_count_as_one():
    values = np.random.default_rng(1).normal(0, 1, 100)
    persons = [str(n) for n in range(100)]
    low, high = interval(values, persons)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.05)
    assert interval(np.repeat(values, 2), np.repeat(persons, 2).tolist()) == pytest.approx((low, high))
    assert interval(values, persons) == (low, high)  # seeded


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    persons = np.repeat([str(n) for n in range(40)], 2).tolist()
    held = 0
    for _ in range(200):
        values = np.repeat(rng.normal(0, 1, 40), 2) + rng.normal(0, 0.5, 80)
        low, high = interval(values, persons)
        held += low <= 0 <= high
    assert 0.9 <= held / 200 <= 0.98


def test_only_common_volumes_count_and_the_figure_is_drawn(tmp_path, capsys):
    a, b = write_run(tmp_path / "a", LEVELS), write_run(tmp_path / "b", LEVELS[10:] + 0.01, NAMES[10:])
    c = write_run(tmp_path / "c", LEVELS[:30] - 0.01, NAMES[:30])
    assert main([str(a), str(b), str(c), "--figure", str(tmp_path / "forest.png")]) == 0
    assert capsys.readouterr().out.startswith("20 volumes of 10 persons")
    assert (tmp_path / "forest.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_undefined_is_left_out(tmp_path):
    a = read_scores(write_run(tmp_path / "a", LEVELS))
    b = read_scores(write_run(tmp_path / "b", LEVELS))
    for name in NAMES[:20]:
        b[name]["whole_hd95_mm"] = math.nan
    for name in NAMES:
        b[name]["anterior_hd95_mm"] = math.nan
    found = {(d.structure, d.measure): d for d in compare("b", b, a, NAMES)}
    assert found["whole", "hd95_mm"].volumes == 40 and found["whole", "dice"].volumes == 60
    assert ("anterior", "hd95_mm") not in found


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"names": [f"other_{n}.nii.gz" for n in range(60)]}, "no volume was tested in all of"),
        ({"volume": 999.0}, "the label of hippocampus_001.nii.gz is not the same"),
        ({"names": NAMES[:2] + [f"other_{n}.nii.gz" for n in range(58)]}, "an interval needs two persons"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, capsys, change, complaint):
    a, b = write_run(tmp_path / "a", LEVELS), write_run(tmp_path / "b", LEVELS, **change)
    assert main([str(a), str(b), "--figure", str(tmp_path / "f.png")]) == 1
    told = capsys.readouterr().err
    assert complaint in told and len(told.splitlines()) == 1
    assert not (tmp_path / "f.png").exists()


def test_no_run_and_another_table_are_refused(tmp_path, capsys):
    a = write_run(tmp_path / "a", LEVELS)
    assert main([str(a), str(tmp_path)]) == 1
    (tmp_path / "results.csv").write_text("name,dice\n")
    assert main([str(a), str(tmp_path)]) == 1
    missing, lacking = capsys.readouterr().err.splitlines()
    assert "does not exist" in missing and "lacks the columns absolute" not in missing
    assert "lacks the columns anterior_absolute_volume_error_percent" in lacking


@pytest.mark.parametrize("options", [["a"], ["a", "a"], ["a", "b", "--names", "one"]])
def test_two_runs_with_names_of_their_own_are_asked_for(options):
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 2
