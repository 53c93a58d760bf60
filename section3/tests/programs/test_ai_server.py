"""The AI node as its user runs it: it serves until it is stopped, says what it did, and begins again what failed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

import ai_server
from ai_server import main
from archive.dicomweb import DicomWebArchive
from archive.dimse import DimseArchive
from node.study_queue import DONE, FINAL, Pauses, Report, StudyQueue
from options import archive_at
from phantom import write_study
from reading.dicom_series import list_files
from study.study_result import read_result

LONG = 600  # seconds: for what should take none, on the busiest machine
LOCALHOST = "127.0.0.1"
FIRST, SECOND = "1.2.1", "1.2.2"


@pytest.fixture
def database(tmp_path) -> Path:
    """Of a node with a study that was set aside, and one that could not be sent everywhere."""
    path = tmp_path / "queue.sqlite3"
    with StudyQueue(path) as queue:
        queue.observe(FIRST, {"a": [1, 1]}, True, 900)
        queue.set_aside(queue.claim(60), "bad-model", "there is none")
        queue.observe(SECOND, {"a": [1, 1], "b": [1, 1]}, True, 900)
        queue.reported(queue.claim(60), Report(DONE), ["here", "there"])
        queue.delivered(queue.claim_delivery("here", 60), True, "confirmed")
        queue.delivered(queue.claim_delivery("there", 60), False, "connection refused", Pauses(9, 1, 9, 1))
    return path


def test_status_tells_every_study_and_where_its_results_are(database, capsys):
    assert main(["status", "--database", str(database)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (first,) = (line for line in out.splitlines() if line.startswith(FIRST))
    (second,) = (line for line in out.splitlines() if line.startswith(SECOND))
    assert "failed" in first and first.endswith("[bad-model] there is none")
    assert "warning" in second and "[not-stored]" in second
    assert "    here: stored, attempts: 1 confirmed\n" in out
    assert "    there: aside, attempts: 1 connection refused\n" in out
    assert "2 studies" in out


def test_status_for_programs(database, capsys):
    assert main(["status", "--json", "--database", str(database)]) == 0
    studies = {one["study_uid"]: one for one in json.loads(capsys.readouterr().out)}
    assert (studies[FIRST]["state"], studies[FIRST]["code"], studies[FIRST]["files"]) == ("failed", "bad-model", 1)
    assert {one["destination"]: one["state"] for one in studies[SECOND]["deliveries"]} == {
        "here": "stored",
        "there": "aside",
    }


def test_retry_begins_again_once(database, capsys):
    assert main(["retry", FIRST, "--database", str(database)]) == 0
    assert main(["retry", SECOND, "--database", str(database)]) == 0
    assert capsys.readouterr().out == f"{FIRST}: discovered\n{SECOND}: sending\n"
    for study, says in ((FIRST, "is discovered"), ("1.2.3", "no study")):
        assert main(["retry", study, "--database", str(database)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--incoming", "."),
        ("--incoming", "nowhere", "--database", "q"),
        ("--incoming", ".", "--database", "../q", "--output-dir", "out"),
        ("--incoming", ".", "--database", "q", "--output-dir", "../out"),
        ("--incoming", ".", "--database", "q", "--max-workers", "0"),
        ("--incoming", ".", "--database", "q", "--quiet-seconds", "-1"),
        ("--incoming", ".", "--database", "q", "--quiet-seconds", "nan"),
        ("--incoming", ".", "--database", "q", "--also-send-to", "PACS@host"),
        ("--incoming", ".", "--database", "q", "--require-sent"),
        ("status",),
        ("status", "--database", "nowhere"),
        ("retry", "--database", "nowhere"),
        ("retry", "1.2", "--database", "nowhere"),
    ],
)
def test_usage_is_exit_code_2_and_nothing_is_written(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["model", "database", "no database"])
def test_a_node_that_cannot_begin_says_so_in_one_line(what, tmp_path, capsys):
    (tmp_path / "text").write_text("neither model nor database" * 100)
    (tmp_path / "incoming").mkdir()
    database = {"model": tmp_path / "q", "database": tmp_path / "text", "no database": tmp_path / "nowhere" / "q"}[what]
    more = ["--model-path", str(tmp_path / "text")] if what == "model" else []
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        code = main(["--incoming", str(tmp_path / "incoming"), "--database", str(database), *more])
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert code == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1


@pytest.mark.parametrize("inside", ["--output-dir", "--database"])
def test_what_is_written_does_not_lie_where_all_is_input(inside, tmp_path, capsys):
    paths = {"--output-dir": str(tmp_path / "out"), "--database": str(tmp_path / "q")}
    (tmp_path / "incoming").mkdir()
    paths[inside] = str(tmp_path / "incoming" / "inside")
    assert main(["--incoming", str(tmp_path / "incoming"), *(part for pair in paths.items() for part in pair)]) == 2
    assert "taken for input" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / "incoming"]


def test_a_destination_is_known_by_its_address():
    assert archive_at("PACS@host:104") == DimseArchive("host", 104, "PACS")
    assert archive_at("https://pacs/dicom-web/") == DicomWebArchive("https://pacs/dicom-web")


# --- with real parts --------------------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path, need_program, free_port) -> Iterator[int]:
    """The port of a storescp that writes a folder a study into tmp_path/incoming."""
    need_program("storescp")
    (tmp_path / "incoming").mkdir()
    options = ["-aet", "HIPPOAI", "-od", tmp_path / "incoming", "--sort-on-study-uid", "st"]
    process = subprocess.Popen(["storescp", *options, str(free_port)], env={**os.environ, "TCP_NODELAY": "1"})
    yield free_port
    process.kill()
    process.wait()


def send(port: int, folder: Path) -> None:
    """By storescu, as soon as the listener answers."""
    command = ["storescu", "-aec", "HIPPOAI", "+sd", "+r", LOCALHOST, str(port), folder]
    for _ in range(LONG):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TCP_NODELAY": "1"})
        if "Connection refused" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr


@pytest.fixture
def start_node(tmp_path) -> Iterator[Callable[[], subprocess.Popen]]:
    """start_node() starts one; all have one folder, database and output folder."""
    command = [
        sys.executable,
        ai_server.__file__,
        "--incoming",
        tmp_path / "incoming",
        "--output-dir",
        tmp_path / "out",
    ]
    options = ["--database", tmp_path / "queue.sqlite3", "--quiet-seconds", "1", "--max-workers", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started: list[subprocess.Popen] = []
    yield lambda: started.append(subprocess.Popen([*command, *options], **pipes)) or started[-1]
    for process in started:
        process.kill()
        process.communicate()


def _all_finished(database: Path, studies: dict[int, Path]) -> bool:
    """Whether the node has what was sent, and is done with it."""
    if not database.exists():
        return False
    with StudyQueue(database) as queue:
        told = [one for one in queue.studies() if one["state"] in FINAL]
    return sum(one["files"] for one in told) >= sum(len(list_files(folder)) for folder in studies.values())


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_from_the_listener_to_the_results_until_it_is_stopped(tmp_path, listener, start_node, end, capsys):
    node = start_node()
    studies = {seed: write_study(tmp_path / f"{seed}", seed=seed, brain_series=1) for seed in (1, 2)}
    uids = {str(pydicom.dcmread(list_files(folder)[0]).StudyInstanceUID) for folder in studies.values()}
    for folder in studies.values():
        send(listener, folder)
    lines = []
    while not _all_finished(tmp_path / "queue.sqlite3", studies):
        lines.append(node.stdout.readline())
        assert lines[-1], lines
    node.send_signal(end)
    assert node.wait(LONG) == 0
    assert "Phantom" not in "".join(lines) and "Traceback" not in node.stdout.read()

    assert main(["status", "--json", "--database", str(tmp_path / "queue.sqlite3")]) == 0
    told = {one["study_uid"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(told) == uids
    for uid in uids:
        assert read_result(tmp_path / "out" / uid).status == "success"
        assert told[uid]["state"] in ("done", "warning") and told[uid]["code"] is None
    arrived = [path for folder in studies.values() for path in list_files(folder)]
    assert len(list_files(tmp_path / "incoming")) == len(arrived)


@pytest.mark.slow
def test_two_nodes_share_the_work_and_do_nothing_twice(tmp_path, start_node):
    studies = {seed: write_study(tmp_path / "incoming" / f"{seed}", seed=seed, brain_series=0) for seed in range(6)}
    uids = [str(pydicom.dcmread(list_files(folder)[0]).StudyInstanceUID) for folder in studies.values()]
    arrived = sorted(path.name for path in list_files(tmp_path / "incoming"))
    nodes = [start_node(), start_node()]
    lines = {node: [] for node in nodes}
    threads = [threading.Thread(target=lambda node=node: lines[node].extend(node.stdout)) for node in nodes]
    for thread in threads:
        thread.start()
    with StudyQueue(tmp_path / "queue.sqlite3") as queue:
        while sum(one["state"] in FINAL for one in queue.studies()) < len(uids):
            assert all(node.poll() is None for node in nodes), lines
            time.sleep(0.05)
        for node in nodes:
            node.send_signal(signal.SIGTERM)
            assert node.wait(LONG) == 0
        for thread in threads:
            thread.join(LONG)
        for uid in uids:
            states = [state for _, state in queue.transitions(uid)]
            assert [states.count(state) for state in ("discovered", "inferring", "sending")] == [1, 1, 1]
    assert sum("round 1" in line for told in lines.values() for line in told) == len(uids)
    assert sorted(path.name for path in list_files(tmp_path / "incoming")) == arrived
