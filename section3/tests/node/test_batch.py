"""Many studies: found by content, none able to stop the others, counted."""

import csv
import dataclasses
import json
import shutil
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path

import pydicom
import pytest

from batches.batch import BatchProcessingStats, find_hippocrop_studies, run_batch_inference
from batches.engines import Engine, ProcessExecutor, SerialExecutor
from batches.study_worker import StudyTask
from common.output_files import RESULT
from common.refusal import Failure
from reading.dicom_series import list_files
from study.setup import SetupFiles
from study.study_result import StudyResult


def _uid(study: Path) -> str:
    return str(pydicom.dcmread(list_files(study)[0]).StudyInstanceUID)


def test_studies_are_found_by_content(make_study, tmp_path):
    nested = make_study(1, "root/a/b/c")
    mixed = make_study(2, "root/mixed")
    for path in list_files(make_study(3, "elsewhere")):
        shutil.copy(path, mixed / f"{path.name}.txt")
    (tmp_path / "root" / "notes.dcm").write_text("no DICOM")
    damaged = tmp_path / "root" / "alone" / "slice.dcm"
    damaged.parent.mkdir()
    damaged.write_bytes(list_files(nested)[0].read_bytes()[:200])

    studies = find_hippocrop_studies(list_files(tmp_path / "root"))
    assert set(studies) == {_uid(nested), _uid(tmp_path / "elsewhere"), _uid(tmp_path / "root" / "mixed"), ""}
    assert studies[_uid(nested)] == list_files(nested)
    assert studies[""] == [damaged]


def test_a_damaged_file_goes_to_the_studies_of_its_folder(make_study, crop_files):
    study = make_study()
    damaged = crop_files(study)[0]
    damaged.write_bytes(damaged.read_bytes()[:200])
    (files,) = find_hippocrop_studies(list_files(study)).values()
    assert damaged in files


class _OtherCalls(Executor):
    """An executor that carries out calls of its own instead of those that it is given."""

    def __init__(self, executor: Executor, function, *args: object):
        self._executor, self._call = executor, (function, *args)

    def submit(self, function, /, *args: object) -> Future:
        return self._executor.submit(*self._call)


def test_a_search_that_kills_its_workers_is_a_failure(calls, make_study):
    with ProcessExecutor(1, threads=1, timeout=600) as executor:
        with pytest.raises(Failure, match=r"BrokenExecutor.*\[worker-died\]"):
            find_hippocrop_studies(list_files(make_study()), _OtherCalls(executor, calls.die))
        executor.timeout = 0.5
        with pytest.raises(Failure, match=r"not done within 0\.5 s \[timed-out\]"):
            find_hippocrop_studies(list_files(make_study()), _OtherCalls(executor, calls.take_long))


def test_any_executor_finds_the_same(make_study):
    for number in (1, 2):
        make_study(number, f"root/{number}")
    files = list_files(make_study(3, "root/3").parent)
    with ProcessExecutor(2, threads=1, timeout=600) as executor:
        assert find_hippocrop_studies(files, executor) == find_hippocrop_studies(files)


class _FailingExecutor(SerialExecutor):
    """An engine in which each study comes to grief in its own way."""

    def __init__(self, errors: list[Exception]):
        self._errors = iter(errors)

    def submit(self, function, /, *args):
        def fail():
            raise next(self._errors)

        return super().submit(fail)


def test_what_no_worker_can_tell_is_told_for_it(tmp_path):
    errors = [
        BrokenExecutor("dead"),
        TimeoutError("not done within 9 s"),
        Failure("bad-model", "another one"),
        OSError(),
    ]
    tasks = [_task(tmp_path, study_uid=f"1.{number}") for number in range(len(errors))]
    _write_earlier_result(tasks[0].output_dir)
    stats = run_batch_inference(tasks, Engine(_FailingExecutor(errors), 1, 1))

    codes = ["worker-died", "timed-out", "bad-model", "worker-died"]
    assert [(one.status, one.code) for one in stats.results] == [("failed", code) for code in codes]
    for task, code in zip(tasks, codes, strict=True):
        assert [path.name for path in task.output_dir.iterdir()] == ["result.json"]
        result = json.loads((task.output_dir / "result.json").read_text())
        assert (result["study_instance_uid"], result["code"]) == (task.study_uid, code)


def _task(tmp_path: Path, study_uid: str) -> StudyTask:
    return StudyTask(study_uid, [], tmp_path / study_uid, SetupFiles(tmp_path / "model.onnx", ()), "", threads=1)


def _write_earlier_result(folder: Path) -> None:
    """One with a page."""
    folder.mkdir(parents=True)
    (folder / "report.png").write_bytes(b"of an earlier run")
    result = StudyResult(outputs=[{"file": "report.png", "sop_instance_uid": None}])
    (folder / RESULT).write_text(json.dumps(dataclasses.asdict(result)))


def test_the_table_shows_every_study_with_its_volumes_or_its_code():
    volumes = {"anterior": 1500.4, "posterior": 1300.2, "total": 2800.6}
    stats = BatchProcessingStats(total=3, workers=2)
    stats.results.append(
        StudyResult(study_instance_uid="1.9", volumes_mm3=volumes, seconds={"read": 0.5, "model": 0.3})
    )
    stats.results.append(StudyResult(study_instance_uid="1.2", volumes_mm3=volumes, sent=False))
    stats.results.append(StudyResult(status="refused", code="no-dicom"))
    head, *rows, last = stats.table().splitlines()
    assert [row.split()[0] for row in rows] == ["unknown", "1.2", "1.9"]
    assert rows[0].split() == ["unknown", "-", "-", "-", "-", "0.0", "refused", "[no-dicom]"]
    assert rows[1].endswith("success (not sent)")
    assert rows[2].split() == ["1.9", "-", "1500", "1300", "2801", "0.8", "success"]
    assert last.startswith("2 of 3 studies succeeded, 1 refused, 0 failed")
    assert "mm3" in head


def _head_result() -> StudyResult:
    """A head of which the right side was refused."""
    check = {"name": "margin", "value": 0.0, "limit": "", "source": "", "sentence": "", "verdict": "fail"}
    return StudyResult(
        study_instance_uid="1.3",
        volumes_mm3={"left": {"anterior": 1500.4, "posterior": 1300.2, "total": 2800.6}},
        not_shown={"right": {"code": "structure-cut", "reason": "It lies outside."}},
        quality=[{**check, "side": "right"}],
        quality_verdict="fail",
    )


def test_of_a_head_each_side_has_a_line_and_columns_of_its_own():
    stats = BatchProcessingStats(total=1, workers=1, results=[_head_result()])
    _, left, right, _ = stats.table().splitlines()
    assert left.split() == ["1.3", "left", "1500", "1300", "2801", "0.0", "success"]
    assert right.split() == ["1.3", "right", "-", "-", "-", "0.0", "success,", "not", "shown", "[structure-cut]"]
    assert "left 2801 mm3" in stats.progress()

    (row,) = csv.DictReader(stats.csv().splitlines())
    assert (row["left_anterior_mm3"], row["left_total_mm3"], row["left_code"]) == ("1500.4", "2800.6", "")
    assert (row["right_total_mm3"], row["right_code"], row["total_mm3"]) == ("", "structure-cut", "")
    assert row["quality_not_passed"] == "right margin fail"


def test_the_summaries_have_every_volume_interval_verdict_code_and_time():
    check = {"name": "margin", "value": 0.0, "limit": "at least 1", "source": "", "sentence": ""}
    good = StudyResult(
        study_instance_uid="1.1",
        volumes_mm3={"anterior": 1500.4, "posterior": 1300.2, "total": 2800.6},
        intervals_mm3={"anterior": [1400.0, 1600.0], "posterior": [1200.0, 1400.0], "total": [2700.0, 2900.0]},
        quality_verdict="warn",
        quality=[{**check, "verdict": "pass"}, {**check, "name": "doubt", "verdict": "warn"}],
        seconds={"read": 0.25, "model": 0.5},
    )
    refused = StudyResult(
        "refused",
        "implausible-result",
        study_instance_uid="1.2",
        quality_verdict="fail",
        quality=[{**check, "verdict": "fail"}, {**check, "name": "ratio", "verdict": "fail"}],
    )
    stats = BatchProcessingStats(total=2, workers=1, results=[refused, good])

    first, second = csv.DictReader(stats.csv().splitlines())
    numbers = {name: value for name, value in first.items() if name.endswith("mm3")}
    of_sides = {name for name in first if name.startswith(("left", "right"))}
    assert len(of_sides) == 8 and not any(first[name] or second[name] for name in of_sides)
    numbers = {name: value for name, value in numbers.items() if name not in of_sides}
    assert numbers == {
        "anterior_mm3": "1500.4",
        "anterior_low_mm3": "1400.0",
        "anterior_high_mm3": "1600.0",
        "posterior_mm3": "1300.2",
        "posterior_low_mm3": "1200.0",
        "posterior_high_mm3": "1400.0",
        "total_mm3": "2800.6",
        "total_low_mm3": "2700.0",
        "total_high_mm3": "2900.0",
    }
    assert (first["code"], first["quality"], first["quality_not_passed"]) == ("", "warn", "doubt warn")
    assert (first["seconds"], first["seconds_read"], first["seconds_model"]) == ("0.75", "0.25", "0.5")
    assert {second[name] for name in numbers} == {""}
    assert (second["code"], second["quality"]) == ("implausible-result", "fail")
    assert second["quality_not_passed"] == "margin fail, ratio fail"

    in_json, _ = stats.summary()["studies"]
    for name in ("volumes_mm3", "intervals_mm3", "quality_verdict", "quality", "code", "seconds"):
        assert in_json[name] == getattr(good, name)
