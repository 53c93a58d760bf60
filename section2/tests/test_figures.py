import csv
from pathlib import Path

import numpy as np
import pytest

import figures
from config import Config

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.mark.parametrize(
    ("recipe", "title"),
    [
        ("classic", "training (not augmented; CE)"),
        ("slices", "training (augmented; CE + Dice)"),
        ("volumes", "training (augmented; CE + Dice)"),
    ],
)
def test_the_training_curve_is_named_after_what_was_trained(recipe, title):
    assert figures.training_title(Config.load(RECIPES / f"{recipe}.json")) == title


def test_a_loss_with_teachers_and_another_weight_says_so():
    config = Config(dims=3, dice_weight=0.5, teachers=["run"])
    assert figures.training_title(config) == "training (augmented; CE + 0.5 Dice + CE to teachers)"


def test_slices_are_upright_as_on_the_clinics_page():
    """Of a coronal slice [x, z] the highest x is left and the highest z up."""
    plane = np.zeros((3, 5))
    plane[2, 4] = 1
    shown = figures.upright(plane)
    assert shown.shape == (5, 3) and shown[0, 0] == 1


def test_learning_curves_of_folds_are_read_from_their_histories(tmp_path):
    history = [
        {
            "epoch": n,
            "train_loss": 1 / (n + 1),
            "validation_loss": 0.5,
            "dice_anterior": 0.8,
            "dice_posterior": 0.7,
            "dice": 0.75,
        }
        for n in range(3)
    ]
    for fold in ("fold_1", "fold_2"):
        (tmp_path / fold).mkdir()
        with (tmp_path / fold / "history.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, history[0])
            table.writeheader()
            table.writerows(history)
    figures.learning_curves_of_folds(sorted(tmp_path.glob("fold_*/history.csv")), Config(), tmp_path / "folds.png")
    figures.learning_curves([{"epoch": 0, "train_loss": 1.0}], Config(), tmp_path / "all.png")  # nothing was validated
    assert (tmp_path / "folds.png").stat().st_size > (tmp_path / "all.png").stat().st_size > 0
