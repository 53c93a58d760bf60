import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from config import Config
from hippocampus_data import person_of
from model_export import ExportedModel
from phantom import make_phantom
from run_ml_pipeline import main
from volume_segmenter import VolumeSegmenter

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


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
        "model.pth",
        "results.json",
        "results.csv",
        "results_by_slice.csv",
    }
    expected |= {"learning_curves.png", "bland_altman.png", "dice_by_volume.png", "best_and_worst.png", "tensorboard"}
    assert {p.name for p in tiny_run.iterdir()} == expected
    assert len(list(csv.DictReader((tiny_run / "history.csv").open()))) == 2


def test_results_are_of_persons_that_were_not_trained_on(tiny_run):
    split = read(tiny_run / "split.json")
    tested = [row["name"] for row in csv.DictReader((tiny_run / "results.csv").open())]
    assert tested == split["test"] and len(tested) == 2
    assert not {person_of(n) for n in tested} & {person_of(n) for n in split["train"] + split["validation"]}


def test_the_weights_alone_give_what_the_exported_model_gives(tiny_run):
    """As section2/README.md tells to load them."""
    segmenter = VolumeSegmenter(Config.load(tiny_run / "config.json")).eval()
    segmenter.load_state_dict(torch.load(tiny_run / "model.pth", weights_only=True))
    volume = make_phantom(seed=7).image
    with torch.no_grad():
        found = segmenter(torch.from_numpy(volume).float()).numpy()
    np.testing.assert_allclose(found, ExportedModel(tiny_run / "model.onnx")(volume), atol=1e-5)


def test_the_report_names_the_best_and_the_worst_slice_of_each_case(tiny_run):
    slices = read(tiny_run / "results.json")["slices"]
    assert slices["axis"].startswith("coronal")
    assert list(slices["cases"]) == read(tiny_run / "split.json")["test"]
    rows = list(csv.DictReader((tiny_run / "results_by_slice.csv").open()))
    for name, case in slices["cases"].items():
        by_slice = {int(row["slice"]): float(row["whole"]) for row in rows if row["name"] == name and row["whole"]}
        for key, extreme in (("best", max), ("worst", min)):
            assert case["whole"][key]["dice"] == extreme(by_slice.values()) == by_slice[case["whole"][key]["slice"]]


def test_the_card_carries_what_was_measured(tiny_run):
    card, results = ExportedModel(tiny_run / "model.onnx").card, read(tiny_run / "results.json")
    for structure in ("anterior", "posterior", "whole"):
        assert card["accuracy"][structure]["dice"] == results["summary"][structure]["dice"]["mean"]
    assert card["accuracy"]["protocol"] == results["protocol"]
    assert card["training"]["volumes"] == len(read(tiny_run / "split.json")["train"])
    assert "Research use only" in card["intended_use"]


@pytest.mark.slow
def test_training_on_phantoms_learns_their_structures(phantom_set, tmp_path):
    options = ["--filters", "8", "--depth", "3", "--epochs", "6", "--batch-size", "16", "--ema-decay", "0.8"]
    assert main(["--data-root", str(phantom_set), "--out", str(tmp_path), *options, "--learning-rate", "0.005"]) == 0
    summary = read(next(tmp_path.glob("*/results.json")))["summary"]
    assert summary["whole"]["dice"]["mean"] > 0.75
    assert summary["anterior"]["dice"]["mean"] > 0.65 and summary["posterior"]["dice"]["mean"] > 0.65


@pytest.mark.slow
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


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.json")), ids=lambda path: path.stem)
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
