import numpy as np
import pytest

from uncertainty import main as uncertainty
from uncertainty import signs


def test_doubt_rises_where_models_differ_and_probabilities_are_low():
    sure = np.zeros((3, 8, 8, 8))
    sure[0], sure[:, 2:6, 2:6, 2:6] = 1, np.array([0, 1, 0])[:, None, None, None]
    assert signs(sure, sure, "whole") == pytest.approx([0] * 5)
    unsure = 0.8 * sure + 0.2 / 3
    other = np.roll(unsure, 3, axis=1)
    other[:, :3] = np.array([1, 0, 0])[:, None, None, None]
    assert all(np.array(signs(unsure, other, "whole")) > 0.05)


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")  # a run never differs from itself
def test_doubts_are_correlated_with_errors(folds, phantom_set, tmp_path, capsys):
    options = ["--data-root", str(phantom_set), "--figure", str(tmp_path / "doubt.png")]
    assert uncertainty([str(folds), str(folds), *options]) == 0
    told = capsys.readouterr().out
    assert told.startswith("10 volumes") and told.count("(p ") == 15
    assert (tmp_path / "doubt.png").exists()
