"""The slope is that of known answers, and a run is told of with its images kept."""

import nibabel as nib
import numpy as np
import pytest

from known_atrophy import AMOUNTS, errors, main, slopes, table


def test_the_slope_of_known_answers():
    true = np.array([3000.0, 2500, 2000, 1500, 1300])
    half = np.stack([true, 1500 + 0.5 * true, true, np.ones(5)], axis=1)
    assert slopes(half[None])[0] == pytest.approx([0.5, 1.0])
    assert errors(half)[0] == 0 and errors(half)[-1] == pytest.approx(100 * (2150 / 1300 - 1))
    last = table(np.stack([half, half])).splitlines()[-1].replace(" ", "")
    assert last == "|43|1300|1.000|+65.4,0.0|+0.0,0.0|"


def test_it_tells_of_a_run(folds, phantom_set, tmp_path, capsys):
    figure, keep = tmp_path / "atrophy.png", tmp_path / "shrunken"
    options = ["--data-root", str(phantom_set), "--figure", str(figure), "--save", str(keep)]
    assert main([str(folds), *options]) == 0
    told = capsys.readouterr().out
    assert told.startswith("10 volumes of 5 persons") and told.count("slope by the mask") == 2
    assert figure.stat().st_size > 10_000
    assert len(list(keep.iterdir())) == len(AMOUNTS) - 1
    (first, *_), names = sorted((keep / "kept_0.6").iterdir()), sorted((phantom_set / "images").iterdir())
    assert first.name == names[0].name and nib.load(first).shape == nib.load(names[0]).shape


def test_a_run_that_held_nobody_out_is_refused(folds, phantom_set, capsys):
    assert main([str(folds / "all"), "--data-root", str(phantom_set)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
