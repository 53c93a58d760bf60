"""Many studies: found by content, none able to stop the others."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pydicom
import pytest

import batch_inference_dcm
from batch_inference_dcm import BatchProcessingStats, find_hippocrop_studies, main, run_batch_inference
from dicom_series import list_files
from engines import Engine, SerialExecutor
from refusal import Refusal
from study_result import StudyResult
from study_worker import StudyTask

TOTAL_MM3 = 4 * 12 * 6  # of the blocks


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


def test_one_bad_study_does_not_stop_the_others(make_study, crop_files, tmp_path, threshold_model, capfd):
    good = [make_study(seed, f"root/{seed}") for seed in (1, 2)]
    bad = make_study(3, "root/3")
    crop_files(bad)[4].unlink()
    out = tmp_path / "out"
    arguments = [str(tmp_path / "root"), "--output-dir", str(out), "--model-path", str(threshold_model)]
    assert main([*arguments, "--max-workers", "2", "--save-summary"]) == 1

    printed, err = capfd.readouterr()
    assert err == ""
    for number in (1, 2, 3):
        assert f"[{number}/3] " in printed
    assert "s left)" in printed
    assert "2 of 3 studies succeeded, 1 did not" in printed
    assert "Phantom" not in printed

    summary = json.loads((out / "summary.json").read_text())
    assert (summary["total"], summary["succeeded"], summary["failed"]) == (3, 2, 1)
    by_uid = {study["study_instance_uid"]: study for study in summary["studies"]}
    assert by_uid[_uid(bad)]["code"] == "geometry-gap"
    for study in good:
        assert by_uid[_uid(study)]["volumes_mm3"]["total"] == TOTAL_MM3
        assert (out / _uid(study) / "report.dcm").exists()
    assert {path.name for path in (out / _uid(bad)).iterdir()} == {"report.dcm", "report.png", "result.json"}


def test_all_succeeded_exits_0_and_the_summary_goes_where_it_is_asked(make_study, tmp_path, threshold_model):
    study = make_study(1, "root/1")
    path = tmp_path / "reports" / "today.json"
    arguments = [str(tmp_path / "root"), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    assert main([*arguments, "--save-summary", str(path)]) == 0
    assert json.loads(path.read_text())["studies"][0]["study_instance_uid"] == _uid(study)


def test_the_rules_of_a_site_choose_the_series(make_study, edit, tmp_path, threshold_model, capfd):
    study = make_study(1, "root/1")
    edit(list_files(study), _rename_crop)
    arguments = [str(tmp_path / "root"), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    arguments += ["--max-workers", "1", "--resume"]
    rules = [{"name": "crop", "attribute": "SeriesDescription", "test": "is", "values": ["MTL crop"]}]
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    assert main([*arguments, "--rules", str(tmp_path / "rules.json")]) == 0
    assert main(arguments) == 1  # what other rules chose is no earlier result
    assert "[no-hippocrop-series]" in capfd.readouterr().out

    (tmp_path / "rules.json").write_text("{}")
    assert main([*arguments, "--rules", str(tmp_path / "rules.json")]) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith("[bad-rules]\n")


def _rename_crop(dataset: pydicom.Dataset) -> None:
    if dataset.SeriesDescription == "HippoCrop":
        dataset.SeriesDescription = "MTL crop"


def test_a_killed_worker_costs_nothing(make_study, tmp_path, threshold_model):
    for seed in range(6):
        make_study(seed, f"root/{seed}")
    program = [sys.executable, batch_inference_dcm.__file__, str(tmp_path / "root"), "--max-workers", "1"]
    options = ["--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    with subprocess.Popen([*program, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as batch:
        assert batch.stdout.readline().startswith("[1/6]")
        (worker,) = _workers(batch.pid)
        os.kill(worker, signal.SIGKILL)
        rest, err = batch.communicate(timeout=60)
    assert (batch.returncode, err) == (0, "")
    assert "6 of 6 studies succeeded" in rest


def _workers(pid: int) -> list[int]:
    """The processes that multiprocessing spawned below `pid`, less its resource tracker."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(child) for path in children for child in path.read_text().split()]
    return [child for child in pids if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize(
    ("make", "exit_code", "end"),
    [
        (lambda root: None, 2, "below it\n"),
        (lambda root: root.touch(), 2, "below it\n"),
        (lambda root: root.mkdir(), 1, "[no-dicom]\n"),
        (lambda root: (root.mkdir(), (root / "text.dcm").write_text("x")), 1, "[no-dicom]\n"),
    ],
)
def test_a_root_without_studies_gets_one_line(tmp_path, threshold_model, capfd, make, exit_code, end):
    root = tmp_path / "root"
    make(root)
    arguments = [str(root), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    assert main(arguments) == exit_code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith(end)
    assert not (tmp_path / "out").exists()


def test_a_bad_model_is_told_once(make_study, tmp_path, capfd):
    make_study(1, "root/1")
    (tmp_path / "model.onnx").write_text("no model")
    assert main([str(tmp_path / "root"), "--model-path", str(tmp_path / "model.onnx")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("[bad-model]") == err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "b"],
        ["--max-workers", "0"],
        ["--max-workers", "many"],
        ["--timeout", "0"],
        ["--engine", "steam"],
        ["--engine", "serial", "--scheduler", "tcp://127.0.0.1:1"],
        ["--scheduler", "localhost"],
        ["--unknown"],
    ],
)
def test_wrong_usage_exits_2(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


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
    assert rows[0].split() == ["unknown", "-", "-", "-", "0.0", "refused", "[no-dicom]"]
    assert rows[1].endswith("success (not sent)")
    assert rows[2].split() == ["1.9", "1500", "1300", "2801", "0.8", "success"]
    assert last.startswith("2 of 3 studies succeeded, 1 did not")
    assert "mm3" in head


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
        Refusal("bad-model", "another one"),
        OSError(),
    ]
    tasks = [_task(tmp_path, study_uid=f"1.{number}") for number in range(len(errors))]
    (tasks[0].output_dir).mkdir(parents=True)
    (tasks[0].output_dir / "report.png").write_bytes(b"of an earlier run")
    stats = run_batch_inference(tasks, Engine(_FailingExecutor(errors), 1, 1))

    codes = ["worker-died", "timed-out", "bad-model", "worker-died"]
    assert [(one.status, one.code) for one in stats.results] == [("failed", code) for code in codes]
    for task, code in zip(tasks, codes, strict=True):
        assert [path.name for path in task.output_dir.iterdir()] == ["result.json"]
        result = json.loads((task.output_dir / "result.json").read_text())
        assert (result["study_instance_uid"], result["code"]) == (task.study_uid, code)


def test_a_search_that_kills_its_workers_is_told_in_one_line(make_study, tmp_path, threshold_model, monkeypatch, capfd):
    make_study(1, "root/1")
    monkeypatch.setattr(batch_inference_dcm, "study_uids_of", os._exit)
    arguments = [str(tmp_path / "root"), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    assert main([*arguments, "--max-workers", "1"]) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith("[worker-died]\n")


def _task(tmp_path, study_uid: str) -> StudyTask:
    return StudyTask(study_uid, [], tmp_path / study_uid, tmp_path / "model.onnx", model_sha256="", threads=1)


def test_a_second_run_resumes(make_study, crop_files, tmp_path, threshold_model, capfd):
    studies = [make_study(seed, f"root/{seed}") for seed in (1, 2, 3)]
    crop_files(studies[2])[4].rename(tmp_path / "missing")
    arguments = [str(tmp_path / "root"), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    arguments += ["--engine", "serial", "--resume"]
    assert main(arguments) == 1
    times = {path: path.stat().st_mtime_ns for path in list_files(tmp_path / "out")}
    (tmp_path / "missing").rename(studies[2] / "found")

    assert main([*arguments, "--save-summary"]) == 0
    assert "3 of 3 studies succeeded (2 in an earlier run), 0 did not" in capfd.readouterr().out
    for study in studies[:2]:
        assert all(path.stat().st_mtime_ns == times[path] for path in list_files(tmp_path / "out" / _uid(study)))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["resumed"] == 2
    assert [study["volumes_mm3"]["total"] for study in summary["studies"]] == [TOTAL_MM3] * 3


def test_the_summary_is_csv_and_json(make_study, crop_files, tmp_path, threshold_model):
    good, bad = make_study(1, "root/1"), make_study(2, "root/2")
    crop_files(bad)[4].unlink()
    out = tmp_path / "out"
    arguments = [str(tmp_path / "root"), "--output-dir", str(out), "--model-path", str(threshold_model)]
    arguments += ["--engine", "threads"]
    assert main([*arguments, "--save-summary"]) == 1
    with (out / "summary.csv").open(newline="") as file:
        rows = {row["study_instance_uid"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {_uid(good), _uid(bad)}
    first, second = rows[_uid(good)], rows[_uid(bad)]
    assert (first["status"], first["code"], float(first["total_mm3"])) == ("success", "", TOTAL_MM3)
    assert (second["status"], second["code"], second["total_mm3"]) == ("refused", "geometry-gap", "")
    steps = [float(first[f"seconds_{step}"]) for step in ("read", "volume", "model", "page", "objects")]
    assert float(first["seconds"]) == pytest.approx(sum(steps), abs=0.003)
    assert (second["seconds_model"], second["seconds_objects"]) == ("", "")
    assert float(second["seconds_page"]) > 0  # of the page that says why

    assert (first["quality"], first["quality_not_passed"]) == ("warn", "model warn")  # it comes without limits
    assert (second["quality"], second["quality_not_passed"]) == ("", "")

    main([*arguments, "--save-summary", str(tmp_path / "only.csv")])
    assert (tmp_path / "only.csv").read_text().startswith("study_instance_uid,")


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
    refused = StudyResult("refused", "implausible-result", study_instance_uid="1.2", quality_verdict="fail")
    refused.quality = [{**check, "verdict": "fail"}, {**check, "name": "ratio", "verdict": "fail"}]
    stats = BatchProcessingStats(total=2, workers=1, results=[refused, good])

    first, second = csv.DictReader(stats.csv().splitlines())
    numbers = {name: value for name, value in first.items() if name.endswith("mm3")}
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


def test_real_studies(real_studies, tmp_path, capfd):
    assert main([str(real_studies), "--output-dir", str(tmp_path), "--save-summary"]) == 0
    assert len(json.loads((tmp_path / "summary.json").read_text())["studies"]) == 2
    assert "2 of 2 studies succeeded" in capfd.readouterr().out
