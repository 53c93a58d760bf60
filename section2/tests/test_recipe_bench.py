"""The bench of the recipe: every variant on every fold, compared by all volumes."""

import pytest

import recipe_bench
from config import Config
from hippocampus_data import fold_splits, person_of
from variants import Variant, folder_of, pseudo_labelled

SMALL = {"dims": 3, "filters": 2, "depth": 1, "batch_size": 2, "epochs": 1, "validation_share": 0.0, "folds": 2}
# Finds both parts of a phantom after 14 epochs.
LEARNS = SMALL | {"filters": 8, "depth": 2, "learning_rate": 4e-3, "ema_decay": 0.9, "augment": False, "epochs": 2}


def test_every_variant_is_a_recipe_that_differs_from_the_base():
    for name, changes in recipe_bench.VARIANTS.items():
        recipe, base = Config(**(recipe_bench.BASE | changes)), Config(**recipe_bench.BASE)
        assert (recipe == base) == (name == "base")


@pytest.mark.slow
def test_it_trains_every_fold_compares_and_goes_on(phantom_set, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--data-root", str(phantom_set), "--out", str(out), "--variant", "batch of 1"]
    assert recipe_bench.main(options, SMALL) == 0
    table = capsys.readouterr().out
    assert table.startswith("|") and "batch of 1" in table
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/results.csv")}
    assert len(before) == 4 and (out / "recipe.png").is_file()
    assert recipe_bench.main(options, SMALL) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*/results.csv")} == before


def test_every_long_variant_is_a_recipe():
    for changes in recipe_bench.LONG_VARIANTS.values():
        Config(**(recipe_bench.LONG_BASE | changes))


@pytest.mark.slow
def test_the_long_ones_are_compared_with_what_is_shipped(phantom_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe_bench, "LONG_BASE", SMALL)
    monkeypatch.setattr(recipe_bench, "LONG_VARIANTS", {"the same again": {}, "instance norm": {"norm": "instance"}})
    monkeypatch.setattr(recipe_bench, "QUICK", tmp_path / "out" / "long" / "the_same_again" / "fold1")
    assert recipe_bench.main(["--data-root", str(phantom_set), "--out", str(tmp_path / "out"), "--long"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[3].startswith("| the same again") and rows[3].count("+0.0000 (+0.0000 to +0.0000)") == 3
    assert rows[4].startswith("| instance norm")


@pytest.mark.slow
def test_unlabelled_images_of_persons_held_out_are_never_learned_from(phantom_set, tmp_path, capsys):
    images, out = phantom_set / "images", tmp_path / "out"
    options = ["--data-root", str(phantom_set), "--out", str(out)]
    assert recipe_bench.main([*options, "--unlabelled", str(images)], LEARNS) == 0
    assert recipe_bench.WITH_MORE in capsys.readouterr().out
    split = fold_splits([path.name for path in images.iterdir()], 2, 0.0, 0)[0]
    teacher = folder_of(out / "unlabelled", recipe_bench.ALONE) / "fold1"
    more = pseudo_labelled(Variant(unlabelled=str(images), labelled_by=str(teacher)), split)
    assert more and {person_of(one.name) for one in more}.isdisjoint(person_of(name) for name in split.test)
    assert recipe_bench.main([*options, "--unlabelled", str(tmp_path)], SMALL) == 1
