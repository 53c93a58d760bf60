"""Many studies, as a user has them worked on: from the command line to the folders, the summary and the exit code."""

import csv
import dataclasses
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

import batch_inference_dcm
from batch_inference_dcm import main
from batches.engines import LOCAL_ENGINES
from checks.quality_limits import LIMITS_FILE, Limits, Range
from choosing.series_rules import DEFAULT_RULES
from common.shipped import DEFAULT_MODEL
from reading.dicom_series import list_files

pytestmark = pytest.mark.slow

TOTAL_MM3 = 4 * 12 * 6  # of the blocks


def _uid(study: Path) -> str:
    return str(pydicom.dcmread(list_files(study)[0]).StudyInstanceUID)


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
    assert "2 of 3 studies succeeded, 1 refused, 0 failed" in printed
    assert "Phantom" not in printed

    summary = json.loads((out / "summary.json").read_text())
    assert [summary[key] for key in ("total", "succeeded", "refused", "failed")] == [3, 2, 1, 0]
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


def test_all_engines_write_the_same(request, make_study, tmp_path, threshold_model):
    """Every file but for its times; run on a cluster too where Dask is installed."""
    for seed in (1, 2, 3):
        make_study(seed, f"root/{seed}")
    ways = {name: ["--engine", name] for name in LOCAL_ENGINES}
    if importlib.util.find_spec("distributed"):
        ways["dask"] = ["--scheduler", request.getfixturevalue("cluster")]
    arguments = [str(tmp_path / "root"), "--model-path", str(threshold_model), "--max-workers", "2"]
    for name, options in ways.items():
        assert main([*arguments, "--output-dir", str(tmp_path / name), *options]) == 0
    contents = {name: _timeless_contents(tmp_path / name) for name in ways}
    assert len(contents["serial"]) >= 3 * 3
    assert all(content == contents["serial"] for content in contents.values())


def _timeless_contents(folder: Path) -> dict[str, object]:
    return {str(path.relative_to(folder)): _timeless(path) for path in list_files(folder)}


def _timeless(path: Path) -> object:
    if path.suffix == ".dcm":
        dataset = pydicom.dcmread(path)
        dataset.walk(_drop_times)
        return dataset.to_json()
    if path.suffix == ".json":
        result = json.loads(path.read_text())
        digests = [output.pop("sha256") for output in result["outputs"]]
        assert all(digests)
        return {key: value for key, value in result.items() if key not in ("seconds", "output_dir")}
    return path.read_bytes()


def _drop_times(dataset: pydicom.Dataset, element: pydicom.DataElement) -> None:
    if element.VR in ("DA", "TM", "DT") and not element.keyword.startswith(("Study", "Patient")):
        del dataset[element.tag]


def test_a_killed_worker_costs_nothing(make_study, tmp_path, threshold_model):
    """It is killed in the last study, whose output folder another run has until then."""
    last = max(_uid(make_study(seed, f"root/{seed}")) for seed in range(3))
    (tmp_path / "out" / last).mkdir(parents=True)
    other_run = os.open(tmp_path / "out" / last, os.O_RDONLY)
    fcntl.flock(other_run, fcntl.LOCK_EX)
    program = [sys.executable, batch_inference_dcm.__file__, str(tmp_path / "root"), "--max-workers", "1"]
    options = ["--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    with subprocess.Popen([*program, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as batch:
        try:
            assert [batch.stdout.readline()[:5] for _ in range(2)] == ["[1/3]", "[2/3]"]
            (worker,) = _workers(batch.pid)
            os.kill(worker, signal.SIGKILL)
        finally:
            os.close(other_run)
        rest, err = batch.communicate(timeout=600)
    assert (batch.returncode, err) == (0, "")
    assert "3 of 3 studies succeeded" in rest


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


def test_no_cluster_is_told_in_one_line(make_study, tmp_path, threshold_model, free_port, monkeypatch, capfd):
    pytest.importorskip("distributed", reason="Dask is not installed (section3/requirements-cluster.txt)")
    monkeypatch.setattr("batches.dask_engine.CONNECT_TIMEOUT", 0.5)
    make_study(1, "root/1")
    address = f"tcp://127.0.0.1:{free_port}"
    arguments = [str(tmp_path / "root"), "--model-path", str(threshold_model), "--output-dir", str(tmp_path / "out")]
    assert main([*arguments, "--scheduler", address]) == 1
    assert capfd.readouterr() == ("", f"no Dask scheduler answers at {address} [no-scheduler]\n")


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


def test_a_search_that_kills_its_workers_is_told_in_one_line(
    make_study, tmp_path, threshold_model, calls, monkeypatch, capfd
):
    make_study(1, "root/1")
    monkeypatch.setattr("batches.batch.study_uids_of", calls.die)
    arguments = [str(tmp_path / "root"), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    assert main([*arguments, "--max-workers", "1"]) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "BrokenExecutor" in err
    assert err.endswith("[worker-died]\n")


def test_a_second_run_resumes(make_study, crop_files, tmp_path, threshold_model, capfd):
    studies = [make_study(seed, f"root/{seed}") for seed in (1, 2, 3)]
    crop_files(studies[2])[4].rename(tmp_path / "missing")
    arguments = [str(tmp_path / "root"), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]
    arguments += ["--engine", "serial", "--resume"]
    assert main(arguments) == 1
    times = {path: path.stat().st_mtime_ns for path in list_files(tmp_path / "out")}
    (tmp_path / "missing").rename(studies[2] / "found")

    assert main([*arguments, "--save-summary"]) == 0
    assert "3 of 3 studies succeeded (2 in an earlier run), 0 refused" in capfd.readouterr().out
    for study in studies[:2]:
        assert all(path.stat().st_mtime_ns == times[path] for path in list_files(tmp_path / "out" / _uid(study)))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["resumed"] == 2
    assert [study["volumes_mm3"]["total"] for study in summary["studies"]] == [TOTAL_MM3] * 3


def _change_model(folder: Path, save_threshold_model: Callable, card: dict) -> None:
    save_threshold_model(folder / "model.onnx", {**card, "version": "0.2"})


def _change_limits(folder: Path, *_: object) -> None:
    (folder / LIMITS_FILE).write_text((folder / LIMITS_FILE).read_text() + "\n")


def _change_rules(folder: Path, *_: object) -> None:
    rules = json.loads((folder / "rules.json").read_text())
    (folder / "rules.json").write_text(json.dumps([*rules, rules[0]]))


@pytest.mark.parametrize(
    ("change", "option"),
    [(_change_model, ()), (_change_limits, ()), (_change_rules, ()), (lambda *_: None, ("--pseudonymous",))],
)
def test_no_result_of_another_setup_is_resumed(make_study, tmp_path, save_threshold_model, card, capfd, change, option):
    """Whatever changes in what studies are measured with, all of them are measured again, once."""
    study = make_study(1, "root/1")
    folder = tmp_path / "model"
    folder.mkdir()
    model = save_threshold_model(folder / "model.onnx", card)
    usual = Range((-1e9, 1e9), (-1e9, 1e9), "none")
    limits = Limits.load(DEFAULT_MODEL.parent)
    dataclasses.replace(limits, ranges=dict.fromkeys(limits.ranges, usual)).save(folder)
    (folder / "rules.json").write_bytes(DEFAULT_RULES.read_bytes())
    arguments = [str(tmp_path / "root"), "--output-dir", str(tmp_path / "out"), "--model-path", str(model)]
    arguments += ["--rules", str(folder / "rules.json"), "--engine", "serial", "--resume"]

    def run(*options: str) -> tuple[bool, str]:
        """Whether the result is an earlier one, and the digest of its setup."""
        assert main([*arguments, *options]) == 0
        result = json.loads((tmp_path / "out" / _uid(study) / "result.json").read_text())
        return "(1 in an earlier run)" in capfd.readouterr().out, result["setup_sha256"]

    is_earlier, first = run()
    assert (is_earlier, run()) == (False, (True, first))
    change(folder, save_threshold_model, card)
    is_earlier, second = run(*option)
    assert (is_earlier, run(*option)) == (False, (True, second))
    assert second != first


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


def test_real_studies(real_studies, tmp_path, capfd):
    assert main([str(real_studies), "--output-dir", str(tmp_path), "--save-summary"]) == 0
    assert len(json.loads((tmp_path / "summary.json").read_text())["studies"]) == 2
    assert "2 of 2 studies succeeded" in capfd.readouterr().out
