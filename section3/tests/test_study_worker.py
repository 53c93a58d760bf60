"""An earlier result is taken only where working on the study again could but repeat it."""

import dataclasses
import hashlib
import json
import os
import shutil

import pytest

import study_worker
from archive import SendOutcome
from dicom_series import list_files
from inference_dcm import DEFAULT_MODEL
from quality import Limits
from refusal import Refusal
from study_worker import StudyTask, proven_result, work_on


@pytest.fixture
def task(make_study, tmp_path, threshold_model) -> StudyTask:
    """A study that has been worked on, some time after its files were written."""
    files = list_files(make_study())
    for path in files:
        os.utime(path, (1e9, 1e9))
    sha256 = hashlib.sha256(threshold_model.read_bytes()).hexdigest()
    done = StudyTask("1.2", files, tmp_path / "out", threshold_model, sha256, threads=1)
    result, is_earlier = work_on(done)
    assert (result.status, is_earlier) == ("success", False)
    return dataclasses.replace(done, resume=True)


def test_a_proven_result_is_taken_as_it_is(task):
    before = {path: path.stat().st_mtime_ns for path in list_files(task.output_dir)}
    result, is_earlier = work_on(task)
    assert is_earlier
    assert dataclasses.asdict(result) == json.loads((task.output_dir / "result.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in list_files(task.output_dir)} == before


def test_copies_and_moves_of_the_study_change_nothing(task, tmp_path):
    moved = [path.rename(tmp_path / f"slice{number}") for number, path in enumerate(task.files)]
    shutil.copy2(moved[0], tmp_path / "again")
    assert proven_result(dataclasses.replace(task, files=[*moved, tmp_path / "again"]))


def _change_result(**changes):
    def change(task, **_):
        path = task.output_dir / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _new_model(task, **_):
    return dataclasses.replace(task, model_sha256="0" * 64)


def _other_rules(task, **_):
    return dataclasses.replace(task, conditions=task.conditions[:-1])


def _other_limits(task, tmp_path, **_):
    Limits.load(DEFAULT_MODEL.parent).save(tmp_path)
    return dataclasses.replace(task, model_path=tmp_path / "model.onnx")


def _an_instance_more(task, add_series, **_):
    more = add_series(task.files[0].parent)
    for path in more:
        os.utime(path, (1e9, 1e9))
    return dataclasses.replace(task, files=task.files + more)


def _an_instance_less(task, crop_files, **_):
    (lowest, *_) = crop_files(task.files[0].parents[1])
    return dataclasses.replace(task, files=[path for path in task.files if path != lowest])


def _a_newer_file(task, **_):
    os.utime(task.files[0])


def _a_damaged_file(task, **_):
    task.files[0].write_bytes(task.files[0].read_bytes()[:200])
    os.utime(task.files[0], (1e9, 1e9))


def _another_page(task, **_):
    with (task.output_dir / "report.dcm").open("ab") as file:
        file.write(b"\0")


def _no_page(task, **_):
    (task.output_dir / "report.png").unlink()


def _half_a_result(task, **_):
    path = task.output_dir / "result.json"
    path.write_text(path.read_text()[:300])


def _not_yet_sent(task, **_):
    return dataclasses.replace(task, send=lambda paths: SendOutcome(True, "stored"))


@pytest.mark.parametrize(
    "change",
    [
        _new_model,
        _other_rules,
        _other_limits,
        _an_instance_more,
        _an_instance_less,
        _a_newer_file,
        _a_damaged_file,
        _another_page,
        _no_page,
        _half_a_result,
        _not_yet_sent,
        _change_result(status="failed"),
        _change_result(model=None),
        _change_result(revision="0"),
        _change_result(outputs=[{"file": "report.dcm"}]),
        _change_result(what_this_version_does_not_know=1),
    ],
)
def test_what_is_not_proven_is_done_again(task, change, add_series, crop_files, tmp_path):
    changed = change(task, add_series=add_series, crop_files=crop_files, tmp_path=tmp_path) or task
    assert proven_result(changed) is None


def test_a_model_that_changed_since_the_batch_began_is_refused(task):
    with pytest.raises(Refusal, match=r"\[bad-model\]"):
        work_on(dataclasses.replace(task, resume=False, model_sha256="0" * 64))


def test_the_model_is_loaded_once(task, monkeypatch):
    monkeypatch.setattr(study_worker, "UNetInferenceAgent", None)
    assert work_on(dataclasses.replace(task, resume=False))[0].status == "success"
