"""Programs that find out what matters: studies of variants, bias of the volumes, signs of doubt."""

import json

import numpy as np
import pytest

import augmentation
import studies
from hippocampus_data import Split
from run_ml_pipeline import main as train
from uncertainty import main as uncertainty
from uncertainty import signs
from volume_bias import FACTORS, chosen_elsewhere, measured
from volume_bias import main as volume_bias


@pytest.fixture(scope="module")
def folds(tiny, phantom_set, tmp_path_factory):
    """A finished cross-validation on phantoms."""
    out = tmp_path_factory.mktemp("folds")
    options = ["--data-root", str(phantom_set), "--out", str(out), "--folds", "2", "--validation-share", "0"]
    assert train([*options, *tiny, "--epochs", "6", "--background", "1"]) == 0
    (run,) = out.iterdir()
    return run


def test_every_variant_differs_from_the_base():
    assert all(variant != studies.Variant() for name, variant in studies.VARIANTS.items() if name != "base")
    limits = {limit for variant in studies.VARIANTS.values() for limit in variant.limits}
    assert all(getattr(augmentation, limit) > 0 for limit in limits)


def test_fewer_to_learn_from_never_changes_the_test():
    names = [f"hippocampus_{n:03d}.nii.gz" for n in range(1, 41)]
    split = Split(names[:32], [], names[32:])
    without = studies.fewer(split, studies.Variant(left_out=("005", "039")))
    assert without.test == split.test
    assert set(split.train) - set(without.train) == {"hippocampus_005.nii.gz"}


def test_a_study_trains_compares_and_goes_on(phantom_set, tmp_path, monkeypatch, capsys):
    small = {"filters": 2, "depth": 2, "epochs": 1, "validation_share": 0.0, "folds": 2, "only_fold": 1}
    monkeypatch.setattr(studies, "BASE", small)
    monkeypatch.setattr(studies, "run_all", in_this_process)
    options = ["--study", "labels", "--data-root", str(phantom_set), "--out", str(tmp_path)]
    assert studies.main(options) == 0
    told = capsys.readouterr().out
    assert "| one class |" in told and "| base |" in told and (tmp_path / "labels.png").exists()
    results = tmp_path / "one_class" / "results.json"
    assert json.loads(results.read_text())["cost"]["peak_mb"] > 50
    written = results.stat().st_mtime_ns
    assert studies.main(options) == 0
    assert results.stat().st_mtime_ns == written


def in_this_process(names, root, out, workers):
    """studies.run_all without processes, so that a test's small settings hold."""
    for name in names:
        if not (studies.folder_of(out, name) / "results.json").exists():
            studies.run_variant(studies.VARIANTS[name], root, studies.folder_of(out, name), 1)


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


def test_programs_need_folds(tiny_run, phantom_set, capsys):
    assert volume_bias([str(tiny_run), "--data-root", str(phantom_set)]) == 1
    assert "expected two or more" in capsys.readouterr().err
