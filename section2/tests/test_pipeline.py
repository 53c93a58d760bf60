import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import combine_runs
from config import Config
from hippocampus_data import person_of
from model_export import ExportedModel
from run_ml_pipeline import main

TINY_3D = ["--filters", "2", "--depth", "2", "--epochs", "1", "--batch-size", "4", "--validation-share", "0.2"]
PROGRAM = Path(__file__).resolve().parents[1] / "src" / "run_ml_pipeline.py"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_leaves_all_that_is_promised(tiny_run):
    expected = {
        "config.json",
        "split.json",
        "history.csv",
        "last.pt",
        "best.pt",
        "model.onnx",
        "results.json",
        "results.csv",
    }
    expected |= {"learning_curves.png", "bland_altman.png", "dice_by_volume.png", "best_and_worst.png", "tensorboard"}
    assert {p.name for p in tiny_run.iterdir()} == expected
    assert len(list(csv.DictReader((tiny_run / "history.csv").open()))) == 2


def test_results_are_of_persons_that_were_not_trained_on(tiny_run):
    split = read(tiny_run / "split.json")
    tested = [row["name"] for row in csv.DictReader((tiny_run / "results.csv").open())]
    assert tested == split["test"] and len(tested) == 2
    assert not {person_of(n) for n in tested} & {person_of(n) for n in split["train"] + split["validation"]}


def test_the_card_carries_what_was_measured(tiny_run):
    card, results = ExportedModel(tiny_run / "model.onnx").card, read(tiny_run / "results.json")
    for structure in ("anterior", "posterior", "whole"):
        assert card["accuracy"][structure]["dice"] == results["summary"][structure]["dice"]["mean"]
    assert card["accuracy"]["protocol"] == results["protocol"]
    assert card["training"]["volumes"] == len(read(tiny_run / "split.json")["train"])
    assert "Research use only" in card["intended_use"]


def test_tensorboard_has_scalars_and_the_same_pictures_at_each_epoch(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tiny_run / "tensorboard"))
    events.Reload()
    assert {"train/loss", "validation/loss", "learning/rate", "dice/anterior", "dice/posterior"} <= set(
        events.Tags()["scalars"]
    )
    pictures = events.Tags()["images"]
    assert len(pictures) == 2
    assert all([image.step for image in events.Images(tag)] == [0, 1] for tag in pictures)


def test_training_on_phantoms_learns_their_structures(phantom_set, tmp_path):
    options = ["--filters", "8", "--depth", "3", "--epochs", "6", "--batch-size", "16", "--ema-decay", "0.8"]
    assert main(["--data-root", str(phantom_set), "--out", str(tmp_path), *options, "--learning-rate", "0.005"]) == 0
    summary = read(next(tmp_path.glob("*/results.json")))["summary"]
    assert summary["whole"]["dice"]["mean"] > 0.75
    assert summary["anterior"]["dice"]["mean"] > 0.65 and summary["posterior"]["dice"]["mean"] > 0.65


def test_folds_test_everybody_once_and_end_with_a_model_of_all(tiny, phantom_set, tmp_path):
    assert main(["--data-root", str(phantom_set), "--out", str(tmp_path), "--folds", "2", *tiny, "--epochs", "1"]) == 0
    (run,) = tmp_path.iterdir()
    report = read(run / "results.json")
    assert report["volumes"] == 10 and report["protocol"].startswith("2 folds by volumes of persons held out")
    tested = [name for fold in ("fold_1", "fold_2") for name in read(run / fold / "split.json")["test"]]
    assert len(tested) == len(set(tested)) == 10
    card = ExportedModel(run / "all" / "model.onnx").card
    assert card["training"]["volumes"] == 10
    assert card["accuracy"]["protocol"] == report["protocol"]


def test_fine_tuning_starts_from_the_weights_and_tells_before_and_after(tiny_run, phantom_set, tmp_path):
    options = ["--fine-tune", str(tiny_run / "model.onnx"), "--epochs", "1", "--learning-rate", "1e-9"]
    assert main(["--data-root", str(phantom_set), "--out", str(tmp_path), *options]) == 0
    (run,) = tmp_path.iterdir()
    results = read(run / "results.json")
    assert results["config"]["filters"] == 4  # the parent's network
    before, after = (results[key]["whole"]["dice"]["mean"] for key in ("summary_before", "summary"))
    assert before == read(tiny_run / "results.json")["summary"]["whole"]["dice"]["mean"]
    assert after == pytest.approx(before, abs=0.05)  # nothing was learned at that rate, nothing forgotten
    parent = ExportedModel(run / "model.onnx").card["training"]["parent"]
    assert parent["sha256"] == hashlib.sha256((tiny_run / "model.onnx").read_bytes()).hexdigest()


def test_fine_tuning_cannot_change_the_network(tiny_run, phantom_set, tmp_path, capsys):
    options = ["--fine-tune", str(tiny_run / "model.onnx"), "--filters", "8"]
    assert main(["--data-root", str(phantom_set), "--out", str(tmp_path / "out"), *options]) == 1
    assert "has filters 4; it cannot be changed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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


def start(*options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, PROGRAM, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has switched Ctrl-C off for all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_epochs(out: Path, process: subprocess.Popen, epochs: int) -> Path:
    """The run's folder, as soon as so many epochs are in its history."""
    for _ in range(1200):
        history = list(out.glob("*/history.csv"))
        if history and len(history[0].read_text().splitlines()) > epochs:
            return history[0].parent
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("no epoch within a minute")


@pytest.fixture(scope="module")
def uninterrupted(tiny, phantom_set, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert main(["--data-root", str(phantom_set), "--out", str(out), *tiny, "--epochs", "4"]) == 0
    return torch.load(next(out.glob("*/last.pt")))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_was_stopped_goes_on_to_the_same_result(tiny, phantom_set, tmp_path, uninterrupted, how, code):
    process = start("--data-root", phantom_set, "--out", tmp_path, *tiny, "--epochs", "4")
    run = wait_for_epochs(tmp_path, process, 2)
    process.send_signal(how)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert not (run / "model.onnx").exists(), "it finished before it could be stopped"
    if how == signal.SIGINT:
        assert told.strip().endswith(f"--resume {run} goes on") and "Traceback" not in told

    assert main(["--data-root", str(phantom_set), "--resume", str(run)]) == 0
    resumed = torch.load(run / "last.pt")
    for a, b in zip(resumed["averaged"].values(), uninterrupted["averaged"].values(), strict=True):
        assert torch.equal(a, b)
    assert (run / "model.onnx").exists()


@pytest.mark.parametrize("recipe", sorted(PROGRAM.parents[1].glob("recipes/*.json")), ids=lambda path: path.stem)
def test_recipes_are_settings(recipe):
    Config.load(recipe)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--data-root", "no/such/folder"], "no NIfTI files in no/such/folder/images"),
        (["--context", "4"], "setting context cannot be 4"),
        (["--config", "no.json"], "no.json"),
        (["--resume", "no/such/run"], "config.json"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, options, complaint):
    assert main(["--out", str(tmp_path), *options]) == 1
    told = capsys.readouterr().err
    assert complaint in told and len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_a_usage_error():
    with pytest.raises(SystemExit) as stopped:
        main(["--no-such-option"])
    assert stopped.value.code == 2
