import json
import shutil
from pathlib import Path

import numpy as np

import combine_runs
from model_export import ExportedModel
from run_ml_pipeline import main

TINY_3D = ["--filters", "2", "--depth", "2", "--epochs", "1", "--batch-size", "4", "--validation-share", "0.2"]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_runs_are_averaged_and_tested_on_what_none_was_trained_on(tiny_run, phantom_set, tmp_path):
    data = ["--data-root", str(phantom_set)]
    assert main([*data, "--out", str(tmp_path / "runs"), "--dims", "3", *TINY_3D]) == 0
    (other,) = (tmp_path / "runs").iterdir()
    assert combine_runs.main([*data, str(tiny_run), str(other), "--out", str(tmp_path / "mean")]) == 0
    (folder,) = (tmp_path / "mean").iterdir()
    volume = np.random.default_rng(0).random((34, 50, 37)) * 100
    mean = (ExportedModel(tiny_run / "model.onnx")(volume) + ExportedModel(other / "model.onnx")(volume)) / 2
    averaged = ExportedModel(folder / "model.onnx")
    np.testing.assert_allclose(averaged(volume), mean, atol=1e-5)
    assert averaged.card["accuracy"]["volumes"] == 2
    assert read(folder / "results.json")["protocol"].endswith("2 networks averaged")


def test_runs_with_different_tests_are_not_averaged(tiny_run, tmp_path, phantom_set, capsys):
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    split = read(other / "split.json")
    split["test"], split["train"] = split["train"][:2], split["test"] + split["train"][2:]
    (other / "split.json").write_text(json.dumps(split))
    assert combine_runs.main(["--data-root", str(phantom_set), str(tiny_run), str(other), "--out", str(tmp_path)]) == 1
    assert "were tested on different volumes" in capsys.readouterr().err
