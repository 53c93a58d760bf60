"""kill -9 of a node or of its worker, in every state: the study is finished afterwards, once, and no input is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from batches import engines
from common.send_outcome import SendOutcome
from node.incoming import DONE
from reading.dicom_series import list_files
from study.study_result import read_result

STATES = ("validating", "loading", "inferring", "reporting", "written", "sending", "done")
IN_WORKER = STATES[:5]
LONG = 600  # seconds: for what should take none, on the busiest machine


@pytest.fixture
def study(make_study, tmp_path) -> list[Path]:
    """The files of a study that has arrived."""
    files = list_files(make_study(1, "sent", brain_series=0))
    (tmp_path / "incoming" / "st").mkdir(parents=True)
    for path in files:
        shutil.copy(path, tmp_path / "incoming" / "st")
    return files


def start(folder: Path, model: Path, at: str) -> subprocess.Popen:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{Path(engines.__file__).parents[1]}:{here}"}
    command = [sys.executable, here / "held_node.py", folder, model, at]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def line_with(node: subprocess.Popen, text: str) -> str:
    """The next line that has the text in it."""
    return next(line for line in node.stdout if text in line)


def finish(folder: Path, make_bench):
    """Another node does what is left, when the leases of the first have ended."""

    def store(paths: list[Path]) -> SendOutcome:
        (folder / "archive").mkdir(exist_ok=True)
        for path in paths:
            shutil.copy(path, folder / "archive")
        return SendOutcome(True, "copied", True)

    bench = make_bench({"archive": store})
    bench.clock.now = time.monotonic() + 10_000
    bench.settle()
    bench.step(2)
    return bench


def require_finished(bench, study: list[Path]) -> list[str]:
    """One result set, in the archive as it was written, and all input put away; returns the states of its way."""
    uid = str(pydicom.dcmread(study[0]).StudyInstanceUID)
    states = [state for _, state in bench.queue.transitions(uid)]
    assert states[-1] == "warning"  # the blocks look masked: a warning about the number, and nothing else
    assert (bench.row(uid)["round"], bench.row(uid)["code"]) == (1, None)
    assert [one["state"] for one in bench.row(uid)["deliveries"]] == ["stored"]
    out = bench.settings.output_dir / uid
    written = {Path(one["file"]).name: (out / one["file"]) for one in read_result(out).outputs}
    archived = {path.name: path.read_bytes() for path in list_files(bench.folder / "archive")}
    assert archived == {name: path.read_bytes() for name, path in written.items() if name.endswith(".dcm")}
    kept = {path.name: path.read_bytes() for path in list_files(bench.incoming)}
    assert kept == {path.name: path.read_bytes() for path in study}
    assert len(list_files(bench.incoming / DONE / uid)) == len(study)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("at", STATES)
def test_a_node_that_is_killed(tmp_path, study, open_setup_files, make_bench, at):
    with start(tmp_path, open_setup_files.model_path, at) as node:
        line_with(node, "held")
        node.kill()
        node.stdout.read()  # until its worker has ended too, which nobody told to
    states = require_finished(finish(tmp_path, make_bench), study)
    # What was done before is not done again.
    assert states.count("inferring") == (2 if at in ("inferring", "reporting") else 1)
    assert states.count("sending") == 1


@pytest.mark.slow
@pytest.mark.parametrize("at", IN_WORKER)
def test_a_worker_that_is_killed(tmp_path, study, open_setup_files, make_bench, at):
    with start(tmp_path, open_setup_files.model_path, at) as node:
        os.kill(int(line_with(node, "held").split()[1]), signal.SIGKILL)
        line_with(node, "archive: stored")
        node.kill()
    states = require_finished(finish(tmp_path, make_bench), study)
    assert states.count("inferring") == (2 if at in ("inferring", "reporting") else 1)
