"""A small training set of phantoms, and tiny runs on it that several tests look at."""

from pathlib import Path

import pytest
import torch

from phantom import make_training_set
from run_ml_pipeline import main as train

TRAINED_OR_EXPORTED = {"tiny_run", "folds", "pair", "uninterrupted", "exported"}  # fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that look at what was trained or exported are slow."""
    for item in items:
        if TRAINED_OR_EXPORTED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a run that takes seconds."""
    return ["--filters", "4", "--depth", "3", "--epochs", "2", "--batch-size", "32", "--ema-decay", "0.5"]


@pytest.fixture(scope="session")
def phantom_set(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    make_training_set(root, count=10, seed=1)
    return root


@pytest.fixture(scope="session")
def tiny_run(tiny, phantom_set, tmp_path_factory) -> Path:
    """The folder of a finished run: 10 phantoms, 2 epochs."""
    out = tmp_path_factory.mktemp("runs")
    assert train(["--data-root", str(phantom_set), "--out", str(out), "--validation-share", "0.2", *tiny]) == 0
    (run,) = out.iterdir()
    return run


@pytest.fixture(scope="session")
def folds(tiny, phantom_set, tmp_path_factory):
    """A finished cross-validation on phantoms."""
    out = tmp_path_factory.mktemp("folds")
    options = ["--data-root", str(phantom_set), "--out", str(out), "--folds", "2", "--validation-share", "0"]
    assert train([*options, *tiny, "--epochs", "6", "--background", "1"]) == 0
    (run,) = out.iterdir()
    return run


@pytest.fixture(scope="session")
def hang_limit() -> float:
    """Seconds that end a wait for a process which hangs; no machine is as slow as that."""
    return 600


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
