import numpy as np
import pytest

from volume_bias import FACTORS, chosen_elsewhere, measured
from volume_bias import main as volume_bias


def test_a_higher_factor_makes_volumes_smaller(folds, phantom_set, tmp_path, capsys):
    assert volume_bias([str(folds), "--data-root", str(phantom_set), "--figure", str(tmp_path / "bias.png")]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| 1")]
    whole = [float(row[3].split("/")[2]) for row in rows]
    assert len(whole) == len(FACTORS) and whole == sorted(whole, reverse=True) and whole[0] > whole[-1]
    assert (tmp_path / "bias.png").exists()


def test_the_bias_of_a_known_mask():
    labels = np.zeros((6, 6, 6), int)
    labels[1:5, 1:3], labels[1:5, 3:5] = 1, 2
    probabilities = np.stack([labels == n for n in range(3)]).astype(float)
    assert measured(probabilities, labels) == pytest.approx(np.array([[1, 0]] * 3))
    probabilities[:, 1, 1] = np.array([1, 0, 0])[:, None]
    assert measured(probabilities, labels)[0] == pytest.approx([2 * 42 / 90, -12.5])


def test_the_factor_is_chosen_on_other_folds():
    right = [np.zeros((4, len(FACTORS), 3, 2)) for _ in range(2)]
    for n, fold in enumerate(right):  # the first fold is right at its last factor, the second at its first
        fold[..., 1] = 5
        fold[:, -1 if n == 0 else 0, :, 1] = 0
    assert chosen_elsewhere(right)[..., 1].min() == 5


def test_programs_need_folds(tiny_run, phantom_set, capsys):
    assert volume_bias([str(tiny_run), "--data-root", str(phantom_set)]) == 1
    assert "expected two or more" in capsys.readouterr().err
