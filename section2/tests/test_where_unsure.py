"""The shares are those of a volume whose answer is known, and of a run."""

import numpy as np
import pytest

from where_unsure import main, shares


def test_shares_of_a_known_answer():
    true = np.zeros((10, 10, 10), bool)
    true[2:8, 2:8, 2:8] = True
    chance = true.astype(float)
    chance[2] *= 0.6  # unsure and right: 36 voxels
    chance[8, 2:8, 2:8] = 0.7  # unsure and wrong: 36
    chance[0, 0, :4] = 0.9  # sure and wrong: 4
    unsure, wrong, promised, dice = shares(chance, true)
    found = 216 + 36 + 4
    assert unsure == pytest.approx(72 / found) and wrong == pytest.approx(36 / 40)
    assert dice == pytest.approx(2 * 216 / (found + 216))
    sure = 180 + 36 * 0.6 + 36 * 0.7 + 4 * 0.9
    assert promised == pytest.approx(2 * sure / (found + sure))


def test_it_tells_of_a_run(folds, phantom_set, capsys):
    assert main([str(folds), "--data-root", str(phantom_set)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("10 volumes: unsure") and "promised" in told
    assert main([str(folds / "fold_1"), "--data-root", str(phantom_set)]) == 1
