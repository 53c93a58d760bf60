"""Sending to a real listener, and to peers that refuse, fail, keep silent or are not there.

Fetching back needs an archive: test_orthanc.py.
"""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

import archive
from archive import SendOutcome, send_to_archive
from dimse import DimseArchive

pytestmark = pytest.mark.usefixtures("pauses")

LOCALHOST = "127.0.0.1"
ONLY_MR = r"""
[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LittleEndianExplicit
[[PresentationContexts]]
[MR]
PresentationContext1 = MRImageStorage\Uncompressed
[[Profiles]]
[OnlyMR]
PresentationContexts = MR
"""


@pytest.fixture(autouse=True)
def dcmtk(need_program) -> None:
    need_program("storescu")
    need_program("storescp")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return probe.getsockname()[1]


@pytest.fixture
def listen(free_port, tmp_path) -> Iterator[Callable]:
    """listen(*options) starts storescp, which writes to tmp_path/archive, and returns its port."""
    started = []

    def start(*options: str) -> int:
        (tmp_path / "archive").mkdir()
        command = ["storescp", "-od", str(tmp_path / "archive"), *options, str(free_port)]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((LOCALHOST, free_port)) == 0:
                    return free_port
            time.sleep(0.05)
        raise TimeoutError("storescp does not listen")

    yield start
    for process in started:
        process.kill()
        process.wait()


def send(files: list[Path], port: int, timeout: float = 30) -> SendOutcome:
    return send_to_archive(files, DimseArchive(LOCALHOST, port, "ARCHIVE", timeout))


def test_files_arrive(listen, files, tmp_path):
    outcome = send(files, listen())
    assert outcome.sent
    assert "3 of 3" in outcome.detail and "ARCHIVE" in outcome.detail
    assert len(list((tmp_path / "archive").iterdir())) == 3
    assert outcome.stored is None  # this listener gives nothing back


def test_odd_file_names_arrive(listen, files, tmp_path, monkeypatch):
    monkeypatch.chdir(files[0].parent)
    odd = [files[0].rename("-q"), files[1].rename("@args"), files[2].rename("a b;$(touch x)'\"é")]
    assert send([Path(path.name) for path in odd], listen()).sent


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--refuse"], "Rejected"),
        (["--abort-after"], "aborted"),
        (["-xf", "{profiles}", "OnlyMR"], "No Acceptable Presentation Contexts"),
    ],
)
def test_a_peer_that_refuses_is_a_failure_at_once(listen, files, tmp_path, pauses, options, reason):
    profiles = tmp_path / "profiles.cfg"
    profiles.write_text(ONLY_MR)
    for path in files:
        ds = pydicom.dcmread(path)
        ds.SOPClassUID = SecondaryCaptureImageStorage
        ds.save_as(path, enforce_file_format=True)
    outcome = send(files, listen(*(o.format(profiles=profiles) for o in options)))
    assert not outcome.sent
    assert reason in outcome.detail and "0 of 3" in outcome.detail
    assert pauses == []


def test_a_peer_without_room_is_asked_again_and_then_a_failure(listen, files, tmp_path, pauses):
    port = listen()
    (tmp_path / "archive").rmdir()
    outcome = send(files, port)
    assert not outcome.sent
    assert "OutOfResources" in outcome.detail
    assert pauses == list(archive.PAUSES)


def test_a_peer_that_finds_room_gets_everything(listen, files, tmp_path, monkeypatch):
    port = listen()
    (tmp_path / "archive").rmdir()
    monkeypatch.setattr(archive, "sleep", lambda _: (tmp_path / "archive").mkdir())
    assert send(files, port).sent
    assert len(list((tmp_path / "archive").iterdir())) == 3


def test_a_peer_that_was_starting_gets_everything(listen, files, free_port, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "sleep", lambda _: listen())
    assert send(files, free_port).sent
    assert len(list((tmp_path / "archive").iterdir())) == 3


@pytest.mark.parametrize("content", [None, b"not DICOM"])
def test_a_file_that_cannot_be_read_is_a_failure(listen, files, content):
    files[1].unlink()
    if content:
        files[1].write_bytes(content)
    outcome = send(files, listen())
    assert not outcome.sent
    assert files[1].name in outcome.detail


def test_a_closed_port_is_a_failure(files, free_port, pauses):
    outcome = send(files, free_port)
    assert pauses == list(archive.PAUSES)
    assert not outcome.sent
    assert "Connection refused" in outcome.detail


def test_a_silent_peer_costs_no_more_than_the_time_limit(files):
    with socket.create_server((LOCALHOST, 0)) as server:
        started = time.monotonic()
        outcome = send(files, server.getsockname()[1], timeout=0.5)
    assert not outcome.sent
    assert "0.5 s" in outcome.detail
    assert time.monotonic() - started < 5


def test_a_peer_that_falls_silent_costs_no_more_than_the_time_limit(listen, files):
    outcome = send(files, listen("--sleep-during", "20"), timeout=0.5)
    assert not outcome.sent
    assert "0.5 s" in outcome.detail


def test_a_warning_is_told(files, monkeypatch, tmp_path):
    program = tmp_path / "storescu"
    lines = ["Success", "Warning: CoercionOfDataElements", "Warning: CoercionOfDataElements"]
    program.write_text("#!/bin/sh\n" + "".join(f"echo 'I: Received Store Response ({line})'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = send(files, 104)
    assert outcome.sent
    assert outcome.detail.count("Warning: CoercionOfDataElements") == 1


def test_nothing_to_send_is_not_sent(listen):
    assert not send([], listen()).sent


@pytest.mark.parametrize("responses", [0, 2])
def test_an_exit_status_of_success_is_not_believed_alone(files, monkeypatch, tmp_path, responses):
    program = tmp_path / "storescu"
    program.write_text("#!/bin/sh\n" + "echo 'I: Received Store Response (Success)'\n" * responses)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = send(files, 104)
    assert not outcome.sent
    assert f"{responses} of 3" in outcome.detail


def test_without_storescu_the_outcome_says_what_to_install(files, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = send(files, 104)
    assert not outcome.sent
    assert "dcmtk" in outcome.detail
