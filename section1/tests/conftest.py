"""Phantom training sets. They are made once; a test that changes files works on a copy."""

import os
import shutil
from pathlib import Path

import pytest

import curation
import phantom

LARGE = {"larger_set", "larger_pairs"}  # fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the larger set are slow."""
    for item in items:
        if LARGE & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def clean_set(tmp_path_factory) -> Path:
    """Eight clean pairs of four persons."""
    root = tmp_path_factory.mktemp("clean")
    phantom.make_training_set(root, 8, seed=1)
    return root


@pytest.fixture(scope="session")
def larger_set(tmp_path_factory) -> Path:
    """Enough clean pairs to learn from them where a label belongs."""
    root = tmp_path_factory.mktemp("larger")
    phantom.make_training_set(root, 24, seed=3)
    return root


@pytest.fixture(scope="session")
def clean_pairs(clean_set) -> list[curation.PairFacts]:
    return curation.curate(clean_set)


@pytest.fixture(scope="session")
def larger_pairs(larger_set) -> list[curation.PairFacts]:
    return curation.curate(larger_set)


@pytest.fixture
def copy_of_clean_set(clean_set, tmp_path) -> Path:
    return shutil.copytree(clean_set, tmp_path / "data")


@pytest.fixture
def real_data() -> Path:
    if not os.environ.get("HIPPO_DATA"):
        pytest.skip("needs the real data in $HIPPO_DATA")
    return Path(os.environ["HIPPO_DATA"])
