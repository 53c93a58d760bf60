"""Several runs distilled into one network."""

import dataclasses
import json
import shutil

import pytest
import torch

from config import Config
from distillation import load_teachers, taught
from hippocampus_data import DataError, Split
from run_ml_pipeline import main
from runs import load_best
from volume_segmenter import VolumeSegmenter, normalise

NETWORK_3D = {"dims": 3, "filters": 2, "depth": 2}


@pytest.fixture
def teachers(tmp_path):
    """Folders of two runs with random weights, a 3D and a 2D one, that trained on volume `a`."""
    folders = [tmp_path / "volumes", tmp_path / "slices"]
    for folder, settings in zip(folders, (NETWORK_3D, {"filters": 2, "depth": 2}), strict=True):
        folder.mkdir()
        config = Config(**settings)
        state = {"config": dataclasses.asdict(config), "weights": VolumeSegmenter(config).state_dict()}
        torch.save(state, folder / "best.pt")
        (folder / "split.json").write_text(json.dumps(dataclasses.asdict(Split(["a"], [], ["b"]))))
    return [str(folder) for folder in folders]


def test_what_is_taught_is_the_mean_of_the_teachers(teachers, tmp_path):
    model = load_teachers(Config(**NETWORK_3D, teachers=teachers), tmp_path / "run", Split(["a"], [], ["b"]))
    volumes = torch.rand(2, 12, 16, 8)
    alone = [load_best(tmp_path / name)[1] for name in ("volumes", "slices")]
    with torch.no_grad():
        expected = torch.stack([(alone[0](v) + alone[1](v)) / 2 for v in volumes])
    found = taught(model, torch.stack([normalise(v) for v in volumes])[:, None])
    torch.testing.assert_close(found, expected)


def test_with_folds_the_teachers_are_those_of_the_same_fold(teachers, tmp_path):
    for run in teachers:
        shutil.copytree(run, f"{run}_folded/fold_2")
    folded = Config(**NETWORK_3D, folds=2, teachers=[f"{run}_folded" for run in teachers])
    assert load_teachers(folded, tmp_path / "run" / "fold_2", Split(["a"], [], ["b"]))
    with pytest.raises(OSError, match="fold_1"):
        load_teachers(folded, tmp_path / "run" / "fold_1", Split(["a"], [], ["b"]))


def test_teachers_that_know_the_test_are_refused(teachers, tmp_path):
    with pytest.raises(DataError, match="held out here"):
        load_teachers(Config(**NETWORK_3D, teachers=teachers), tmp_path, Split(["b"], [], ["a"]))


def test_the_first_teacher_has_the_network_of_the_run(teachers, tmp_path):
    with pytest.raises(ValueError, match="setting filters is 4, but 2"):
        load_teachers(Config(dims=3, filters=4, depth=2, teachers=teachers), tmp_path, Split(["a"], [], ["b"]))


def test_slices_cannot_be_taught():
    with pytest.raises(ValueError, match="teachers"):
        Config(dims=2, teachers=["run"])


@pytest.mark.slow
def test_a_run_with_teachers_starts_from_the_first(phantom_set, tmp_path):
    options = ["--data-root", str(phantom_set), "--dims", "3", "--filters", "2", "--depth", "2", "--batch-size", "4"]
    assert main([*options, "--epochs", "2", "--out", str(tmp_path / "first")]) == 0
    (first,) = (tmp_path / "first").iterdir()
    still = ["--epochs", "1", "--learning-rate", "1e-9", "--ema-decay", "0", "--weight-decay", "0"]
    assert main([*options, *still, "--teachers", str(first), "--out", str(tmp_path / "second")]) == 0
    (second,) = (tmp_path / "second").iterdir()
    before, after = (dict(load_best(run)[1].named_parameters()) for run in (first, second))
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights, atol=1e-6, rtol=0)
