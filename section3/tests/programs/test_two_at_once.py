"""Several runs on one folder of outputs: each ends well, and what is there at the end is whole and of one run."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

import options
from reading.dicom_series import list_files
from study.study_result import sha256_of

pytestmark = pytest.mark.slow

PROGRAMS = Path(options.__file__).parent

# inference_dcm.py, which stops before the n-th thing that it does in the folder, and tells how many there were.
STOPPED_RUN = """
import os, signal, sys
programs, out, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.argv[1:] = sys.argv[4:]
sys.path.insert(0, programs)
import inference_dcm
done = 0
def count(event, arguments):
    global done
    if event.split(".")[0] in ("open", "os", "fcntl", "shutil") and arguments and out in str(arguments[0]):
        done += 1
        if done == moment:
            os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(count)
code = inference_dcm.main()
print(done)
sys.exit(code)
"""


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def start(threshold_model, out) -> Iterator[Callable]:
    """start(study, ...) starts inference_dcm.py on it, or another program; none outlives the test."""
    started = []

    def run(study: Path, *more: str, program: tuple = (PROGRAMS / "inference_dcm.py",)) -> subprocess.Popen:
        command = [sys.executable, *program, study, "--output-dir", out, "--model-path", threshold_model, *more]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(list(map(str, command)), stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=600)


def _require_well(processes: list[subprocess.Popen]) -> None:
    ended = [(*process.communicate(timeout=600), process.returncode) for process in processes]
    assert [(err, code) for _, err, code in ended] == [("", 0)] * len(processes)


def _require_whole(folder: Path) -> dict:
    """The result there, which lists exactly what there is, as it is."""
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "success"
    listed = {row["file"]: row["sha256"] for row in result["outputs"]}
    there = {str(path.relative_to(folder)): sha256_of(path) for path in list_files(folder)}
    there.pop("result.json")
    assert there == listed
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"overlay"}
    uids = {row["file"]: row["sop_instance_uid"] for row in result["outputs"] if row["sop_instance_uid"]}
    objects = {file: pydicom.dcmread(folder / file) for file in uids}
    assert {file: one.SOPInstanceUID for file, one in objects.items()} == uids
    assert {one.StudyInstanceUID for one in objects.values()} == {result["study_instance_uid"]}
    return result


def test_runs_on_one_study(make_study, start, out):
    study = make_study()
    _require_well([start(study) for _ in range(4)])
    _require_whole(out)


def test_runs_on_two_studies(make_study, start, out):
    studies = [make_study(1, "one"), make_study(2, "two")]
    _require_well([start(study) for study in studies * 2])
    result = _require_whole(out)
    assert result["study_instance_uid"] in {pydicom.dcmread(list_files(one)[0]).StudyInstanceUID for one in studies}


def test_batches_on_one_root(make_study, start, out, tmp_path):
    for seed in (1, 2, 3):
        make_study(seed, f"root/{seed}")
    batch = (PROGRAMS / "batch_inference_dcm.py",)
    more = ("--max-workers", "2", "--save-summary")
    _require_well([start(tmp_path / "root", *more, program=batch) for _ in range(2)])
    folders = [path for path in out.iterdir() if path.is_dir()]
    uids = {_require_whole(folder)["study_instance_uid"] for folder in folders}
    assert uids == {folder.name for folder in folders} and len(uids) == 3
    assert {path.name for path in out.iterdir()} == uids | {"summary.csv", "summary.json"}
    assert {row["study_instance_uid"] for row in csv.DictReader((out / "summary.csv").open())} == uids
    assert json.loads((out / "summary.json").read_text())["succeeded"] == 3


def _wait_until_open(process: subprocess.Popen, folder: Path) -> None:
    """Until the process has the folder open, as one has that waits for its turn there, or has ended."""
    give_up = time.monotonic() + 600
    while time.monotonic() < give_up and process.poll() is None:
        try:
            opened = {str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
        except OSError:  # it is closing one, or has ended
            opened = set()
        if str(folder) in opened:
            return
        time.sleep(0.01)
    assert process.poll() is not None, f"it does not open {folder}"


@pytest.mark.parametrize("seed", range(4))
def test_who_waits_for_a_run_that_is_killed_finishes(make_study, start, out, seed):
    studies = [make_study(1, "one"), make_study(2, "two")]
    dry = start(studies[0], program=("-c", STOPPED_RUN, PROGRAMS, out, "0"))
    moments = int(dry.communicate(timeout=600)[0].split()[-1])
    assert dry.returncode == 0 and moments > 50
    if seed % 2:
        _require_well([start(studies[1])])  # so that there is something to replace

    moment = str(random.Random(seed).randrange(moments // 10, moments))
    killed = start(studies[0], program=("-c", STOPPED_RUN, PROGRAMS, out, moment))
    os.waitid(os.P_PID, killed.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert killed.poll() is None, "it was never stopped"
    others = [start(study) for study in studies]
    for process in others:
        _wait_until_open(process, out)
    assert [process.poll() for process in others] == [None, None]  # they wait
    os.kill(killed.pid, signal.SIGKILL)
    _require_well(others)
    assert killed.wait(600) == -signal.SIGKILL
    _require_whole(out)


def test_a_study_with_a_folder_of_the_same_name_loses_nothing(make_study, add_series, start, crop_files):
    """Its slices lie in overlay/, where ours would go, and the results are to go to the study's own folder."""
    study = make_study()
    extra = add_series(study, description="T1")
    (study / "overlay").mkdir()
    slices = [*crop_files(study), *extra][:32]
    for number, path in enumerate(slices, 1):
        path.rename(study / "overlay" / f"{number:03d}.dcm")
    assert len(slices) == 32
    before = {path: sha256_of(path) for path in list_files(study)}
    for _ in range(2):  # the second time as well
        process = start(study, "--output-dir", str(study))
        _, err = process.communicate(timeout=600)
        assert process.returncode == 1
        assert err.endswith("[cannot-write]\n") and err.count("\n") == 1
        assert {path: sha256_of(path) for path in list_files(study)} == before
