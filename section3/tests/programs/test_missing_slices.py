"""The whole program on series that have fewer slices than they state: crops inherit the number, others lost some."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import inference_dcm

pytestmark = pytest.mark.slow


@pytest.fixture
def run(threshold_model, tmp_path) -> Callable[[Path], tuple[int, dict]]:
    """run(study): exit code and result.json."""

    def call(study: Path) -> tuple[int, dict]:
        out = tmp_path / "out"
        code = inference_dcm.main([str(study), "--output-dir", str(out), "--model-path", str(threshold_model)])
        return code, json.loads((out / "result.json").read_text())

    return call


@pytest.fixture
def state(edit, crop_files) -> Callable[[Path, int], None]:
    """state(study, number): from now on the crop says that it has so many slices."""
    return lambda study, number: edit(
        crop_files(study), lambda dataset: setattr(dataset, "ImagesInAcquisition", number)
    )


def _slices(result: dict) -> list[tuple]:
    return [(check["verdict"], check["value"]) for check in result["quality"] if check["name"] == "slices"]


def test_a_crop_that_inherits_the_number_of_a_larger_series_is_measured_with_a_warning(
    make_study, crop_files, run, state, capsys
):
    study = make_study()
    code, whole = run(study)
    assert (code, _slices(whole)) == (0, [])
    capsys.readouterr()

    state(study, 200)
    code, result = run(study)
    count = len(crop_files(study))
    assert (code, result["status"], result["code"]) == (0, "success", None)
    assert _slices(result) == [("warn", count)]
    assert result["quality_verdict"] == "warn"
    assert result["volumes_mm3"] == whole["volumes_mm3"]
    printed = capsys.readouterr().out
    assert f"warning: The series has {count} slices where its files state 200" in printed


def test_a_slice_that_is_missing_at_an_end_is_a_warning(make_study, crop_files, run):
    study = make_study()
    paths = crop_files(study)
    paths[-1].unlink()
    code, result = run(study)
    assert (code, _slices(result)) == (0, [("warn", len(paths) - 1)])


def test_a_gap_in_the_positions_is_refused_whatever_the_series_states(make_study, crop_files, run, state):
    study = make_study()
    crop_files(study)[5].unlink()
    for stated in (200, len(crop_files(study)), 0):
        state(study, stated)
        code, result = run(study)
        assert (code, result["status"], result["code"]) == (1, "refused", "geometry-gap")
        assert result["volumes_mm3"] is None


def test_beside_a_damaged_file_a_slice_that_is_missing_at_an_end_is_refused(make_study, crop_files, run):
    """The damaged file may be it."""
    study = make_study()
    path = crop_files(study)[-1]
    path.write_bytes(path.read_bytes()[:150])
    code, result = run(study)
    assert (code, result["status"], result["code"]) == (1, "refused", "unreadable-dicom")
    assert path.name in result["reason"]
