"""Sending to a real listener, and to peers that refuse, fail, keep silent or are not there.

Fetching back needs an archive: programs/test_orthanc.py.
"""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from archive.dimse import DimseArchive
from archive.sending import Patience, send_to_archive
from common.send_outcome import SendOutcome

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
def listen(free_port, tmp_path) -> Iterator[Callable]:
    """listen(*options) starts storescp, which writes to tmp_path/archive, and returns its port."""
    started = []

    def start(*options: str) -> int:
        (tmp_path / "archive").mkdir()
        command = ["storescp", "-od", str(tmp_path / "archive"), *options, str(free_port)]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        give_up = time.monotonic() + 600
        while time.monotonic() < give_up:
            assert started[-1].poll() is None, "storescp has ended"
            with socket.socket() as probe:
                if probe.connect_ex((LOCALHOST, free_port)) == 0:
                    return free_port
            time.sleep(0.02)
        raise TimeoutError("storescp does not listen")

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def send(patience) -> Callable:
    """send(files, port) sends to whoever listens there."""

    def send_to(files: list[Path], port: int, timeout: float = 600, patience: Patience = patience) -> SendOutcome:
        return send_to_archive(files, DimseArchive(LOCALHOST, port, "ARCHIVE", timeout, patience))

    return send_to


def test_files_arrive(listen, files, tmp_path, send):
    outcome = send(files, listen())
    assert outcome.sent
    assert "3 of 3" in outcome.detail and "ARCHIVE" in outcome.detail
    assert len(list((tmp_path / "archive").iterdir())) == 3
    assert outcome.stored is None  # this listener gives nothing back


def test_odd_file_names_arrive(listen, files, tmp_path, monkeypatch, send):
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
def test_a_peer_that_refuses_is_a_failure_at_once(listen, files, tmp_path, pauses, options, reason, send):
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


def test_a_peer_without_room_is_asked_again_and_then_a_failure(listen, files, tmp_path, pauses, send, patience):
    port = listen()
    (tmp_path / "archive").rmdir()
    outcome = send(files, port)
    assert not outcome.sent
    assert "OutOfResources" in outcome.detail
    assert pauses == list(patience.pauses)


def test_a_peer_that_finds_room_gets_everything(listen, files, tmp_path, send):
    port = listen()
    (tmp_path / "archive").rmdir()
    patience = Patience(sleep=lambda _: (tmp_path / "archive").mkdir())
    assert send(files, port, patience=patience).sent
    assert len(list((tmp_path / "archive").iterdir())) == 3


def test_a_peer_that_was_starting_gets_everything(listen, files, free_port, tmp_path, send):
    assert send(files, free_port, patience=Patience(sleep=lambda _: listen())).sent
    assert len(list((tmp_path / "archive").iterdir())) == 3


@pytest.mark.parametrize("content", [None, b"not DICOM"])
def test_a_file_that_cannot_be_read_is_a_failure(listen, files, content, send):
    files[1].unlink()
    if content:
        files[1].write_bytes(content)
    outcome = send(files, listen())
    assert not outcome.sent
    assert files[1].name in outcome.detail


def test_a_closed_port_is_a_failure(files, free_port, pauses, send, patience):
    outcome = send(files, free_port)
    assert pauses == list(patience.pauses)
    assert not outcome.sent
    assert "Connection refused" in outcome.detail


def test_a_silent_peer_costs_no_more_than_the_time_limit(files, send):
    with socket.create_server((LOCALHOST, 0)) as server:
        outcome = send(files, server.getsockname()[1], timeout=0.5)
    assert not outcome.sent
    assert "0.5 s" in outcome.detail


def test_a_peer_that_falls_silent_costs_no_more_than_the_time_limit(listen, files, send):
    outcome = send(files, listen("--sleep-during", "600"), timeout=0.5)
    assert not outcome.sent
    assert "0.5 s" in outcome.detail


def test_a_warning_is_told(files, monkeypatch, tmp_path, send):
    program = tmp_path / "storescu"
    lines = ["Success", "Warning: CoercionOfDataElements", "Warning: CoercionOfDataElements"]
    program.write_text("#!/bin/sh\n" + "".join(f"echo 'I: Received Store Response ({line})'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = send(files, 104)
    assert outcome.sent
    assert outcome.detail.count("Warning: CoercionOfDataElements") == 1


def test_what_comes_back_damaged_proves_nothing(files, monkeypatch, tmp_path, send):
    programs = {
        "storescu": "echo 'I: Received Store Response (Success)'\n" * len(files),
        "getscu": "echo 'no DICOM' > \"$8/instance\"\necho 'I: Received C-GET Response (Success)'\n",
    }
    for name, lines in programs.items():
        (tmp_path / name).write_text("#!/bin/sh\n" + lines)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = send(files, 104)
    assert (outcome.sent, outcome.stored) == (True, None)
    assert "cannot be read (InvalidDicomError)" in outcome.detail


def test_nothing_to_send_is_not_sent(listen, send):
    assert not send([], listen()).sent


@pytest.mark.parametrize("responses", [0, 2])
def test_an_exit_status_of_success_is_not_believed_alone(files, monkeypatch, tmp_path, responses, send):
    program = tmp_path / "storescu"
    program.write_text("#!/bin/sh\n" + "echo 'I: Received Store Response (Success)'\n" * responses)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = send(files, 104)
    assert not outcome.sent
    assert f"{responses} of 3" in outcome.detail


def test_without_storescu_the_outcome_says_what_to_install(files, monkeypatch, tmp_path, send):
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = send(files, 104)
    assert not outcome.sent
    assert "dcmtk" in outcome.detail
