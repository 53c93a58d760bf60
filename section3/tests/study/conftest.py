"""Studies to work on, those that will be refused among them, and what became of them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from reading.dicom_series import list_files
from study.process_study import process_single_study
from study.setup import Setup
from study.study_result import StudyResult


@pytest.fixture
def out(tmp_path) -> Path:
    """Where `process` writes."""
    return tmp_path / "out"


@pytest.fixture
def setup(setup_of, threshold_model) -> Setup:
    return setup_of(threshold_model)


@pytest.fixture
def process(out, setup) -> Callable[..., StudyResult]:
    """process(study, setup, **options) -> what became of the study, after result.json was seen to say the same."""
    usual = setup

    def run(study: Path, setup: Setup = usual, **options: object) -> StudyResult:
        result = process_single_study(list_files(study), setup, out, **options)
        assert json.loads((out / "result.json").read_text()) == json.loads(json.dumps(asdict(result)))
        return result

    return run


@pytest.fixture
def make_refused(make_study, crop_files, edit) -> Callable[[str], Path]:
    """make_refused(reason): a study that is refused for a gap, as it has no crop, or as nothing is found in it."""

    def make(reason: str) -> Path:
        study = make_study()
        crop = crop_files(study)
        if reason == "gap":
            crop[5].unlink()
        elif reason == "no crop":
            for path in crop:
                path.unlink()
        elif reason == "nothing found":
            edit(crop, lambda dataset: setattr(dataset, "PixelData", b"\x2c\x01" * (len(dataset.PixelData) // 2)))
        else:
            raise ValueError(reason)
        return study

    return make


@pytest.fixture
def digests() -> Callable[[Path], dict[str, str]]:
    """digests(folder): of all files in or below it, by their names from there."""

    def find(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in list_files(folder)
        }

    return find
