"""Whole programs on what cannot be read, here and now: a failure to be tried again, and no page about the study."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import encapsulate

import options
from common.refusal import Failure
from common.stopwatch import Stopwatch
from reading.dicom_series import list_files, read_study
from study.process_study import measure_study, process_single_study
from study.study_result import StudyResult

pytestmark = pytest.mark.slow

PROGRAMS = Path(options.__file__).parent
# root reads everything, but for these two capabilities.
ORDINARY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture
def run_as_ordinary_user(need_program, threshold_model, tmp_path) -> Callable:
    """run(program, study): how it ended, for a user to whom permissions apply, and the results by their folder."""
    if os.geteuid() == 0:
        need_program(ORDINARY[0])

    def run(program: str, study: Path, *more: str) -> tuple[subprocess.CompletedProcess, dict[str, dict]]:
        out = tmp_path / "out"
        command = [sys.executable, PROGRAMS / program, study, "--output-dir", out, "--model-path", threshold_model]
        as_user = ORDINARY if os.geteuid() == 0 else []
        ended = subprocess.run([*as_user, *command, *more], capture_output=True, text=True, timeout=600)
        results = {str(path.parent.relative_to(out)): json.loads(path.read_text()) for path in out.rglob("result.json")}
        return ended, results

    return run


def _require_failed(result: dict, code: str) -> None:
    """A failure that may be tried again, with neither a number nor a page."""
    assert (result["status"], result["code"], result["again"]) == ("failed", code, True)
    assert (result["volumes_mm3"], result["outputs"]) == (None, [])
    assert [path.name for path in Path(result["output_dir"]).iterdir()] == ["result.json"]


def _a_file(study: Path, crop: list[Path]) -> Path:
    crop[3].chmod(0)
    return crop[3]


def _a_file_of_another_series(study: Path, crop: list[Path]) -> Path:
    path = next(path for path in list_files(study) if path.parent != crop[0].parent)
    path.chmod(0)
    return path


def _a_folder(mode: int) -> Callable[[Path, list[Path]], Path]:
    def lock(study: Path, crop: list[Path]) -> Path:
        crop[0].parent.chmod(mode)
        return crop[0].parent

    return lock


def _the_study(study: Path, crop: list[Path]) -> Path:
    study.chmod(0)
    return study


@pytest.mark.parametrize(
    "lock",
    [_a_file, _a_file_of_another_series, _a_folder(0), _a_folder(0o300), _a_folder(0o600), _the_study],
    ids=["file", "file beside", "folder", "folder not to list", "folder not to enter", "study"],
)
def test_what_the_user_may_not_read_fails_the_study(make_study, crop_files, run_as_ordinary_user, lock):
    study = make_study()
    locked = lock(study, crop_files(study))
    try:
        ended, results = run_as_ordinary_user("inference_dcm.py", study)
    finally:
        locked.chmod(0o700)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.endswith("cannot be read: Permission denied [cannot-read]")
    (result,) = results.values()
    _require_failed(result, "cannot-read")

    ended, results = run_as_ordinary_user("inference_dcm.py", study)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {result["status"] for result in results.values()} == {"success"}


def test_in_a_batch_too_and_the_other_studies_go_on(make_study, crop_files, run_as_ordinary_user, tmp_path):
    first, second = make_study(1, "both/first"), make_study(2, "both/second")
    path = crop_files(first)[3]
    path.chmod(0)
    ended, results = run_as_ordinary_user("batch_inference_dcm.py", tmp_path / "both", "--engine", "serial")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "1 of 2 studies succeeded" in ended.stdout
    _require_failed(results[read_study(list_files(first)).uid], "cannot-read")
    assert results[read_study(list_files(second)).uid]["status"] == "success"


def test_an_archive_of_which_a_folder_cannot_be_listed_is_not_said_to_be_done(
    make_study, crop_files, run_as_ordinary_user, tmp_path
):
    make_study(1, "both/first")
    second = make_study(2, "both/second")
    second.chmod(0)
    try:
        ended, results = run_as_ordinary_user("batch_inference_dcm.py", tmp_path / "both", "--engine", "serial")
    finally:
        second.chmod(0o700)
    assert ended.returncode == 1
    assert "1 of 2 studies succeeded" in ended.stdout
    _require_failed(results.pop("unidentified"), "cannot-read")
    assert [result["status"] for result in results.values()] == ["success"]


# --- files that go, programs that fail --------------------------------------------------------------------------------


@pytest.fixture
def run(threshold_model, setup_of, tmp_path) -> Callable[[list[Path]], StudyResult]:
    """run(files) works on a study in this process."""
    return lambda files: process_single_study(files, setup_of(threshold_model), tmp_path / "out")


def _written(result: StudyResult) -> dict:
    return json.loads((Path(result.output_dir) / "result.json").read_text())


def test_a_file_that_vanishes_after_the_folder_was_listed_fails_the_study(make_study, crop_files, run):
    study = make_study()
    files = list_files(study)
    assert run(files).status == "success"
    crop_files(study)[3].unlink()
    result = run(files)
    assert result.reason.endswith("cannot be read: No such file or directory")
    _require_failed(_written(result), "cannot-read")  # what was there from before is gone
    assert run(list_files(study)).code == "geometry-gap"  # whoever lists it now sees the study as it is


def test_one_that_vanishes_after_its_header_was_read_names_nobody(
    make_study, crop_files, edit, threshold_model, setup_of
):
    folder = make_study()
    edit(list_files(folder), lambda dataset: setattr(dataset, "PatientName", "Secretson^Anna"))
    path = crop_files(folder)[3]
    path = path.rename(path.with_name("SECRETSON_3.dcm"))
    study = read_study(list_files(folder))
    path.unlink()
    with pytest.raises(Failure, match=r"^\*\*\*_3\.dcm cannot be read: .* \[cannot-read\]$"):
        measure_study(study, setup_of(threshold_model), Stopwatch())


@pytest.mark.parametrize("script", ["kill -9 $$", None], ids=["killed", "missing"])
def test_a_decoder_that_fails_fails_the_study(make_study, crop_files, edit, run, tmp_path, monkeypatch, script):
    def compress(dataset):
        dataset.PixelData = encapsulate([b"\xff\xd8 no picture \xff\xd9"])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1

    study = make_study()
    edit(crop_files(study), compress)
    if shutil.which("dcmdjpeg"):  # and it is the study's own fault where the decoder works
        assert run(list_files(study)).code == "unreadable-pixels"
    (tmp_path / "bin").mkdir()
    if script:
        (tmp_path / "bin" / "dcmdjpeg").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "dcmdjpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = run(list_files(study))
    assert "dcmdjpeg" in result.reason
    _require_failed(_written(result), "helper-failed")
