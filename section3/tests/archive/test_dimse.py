"""Sending to a real listener, and to peers that refuse, fail, lie, keep silent or are not there.

A real archive: programs/test_orthanc.py.
"""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet

from archive.dimse import DimseArchive
from archive.sending import Patience, send_to_archive
from common.send_outcome import SendOutcome
from servers import LOCALHOST

pytestmark = pytest.mark.slow

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
def peer() -> Iterator[Callable]:
    """peer(statuses, give) starts a peer that answers like nobody else: its port, and the UIDs that came.

    statuses: what it says to each C-STORE in turn, the last one to all that follow. give: what it sends to a C-GET of
    the instances that came, or the status to refuse it with. A status may be a dataset that says more.
    """
    started = []

    def start(
        *statuses: int | pydicom.Dataset, give: Callable | int | pydicom.Dataset = 0xA900
    ) -> tuple[int, list[str]]:
        came = []

        def store(event: evt.Event) -> int | pydicom.Dataset:
            came.append(event.dataset)
            came[-1].file_meta = event.file_meta
            return statuses[min(len(came), len(statuses)) - 1]

        def get(_: evt.Event) -> Iterator:
            given = give(came) if callable(give) else []
            yield len(given) or 1
            yield from ((0xFF00, one) for one in given)
            if not given:
                yield (0x0000 if callable(give) else give), None

        entity = AE("ARCHIVE")
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        for context in StoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_STORE, store), (evt.EVT_C_GET, get)]
        started.append(entity.start_server((LOCALHOST, 0), block=False, evt_handlers=handlers))
        return started[-1].server_address[1], came

    yield start
    for server in started:
        server.shutdown()


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


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF])
@pytest.mark.parametrize("stored_before", [0, 1, 2])
def test_a_peer_out_of_resources_is_asked_again(peer, files, pauses, send, status, stored_before):
    port, came = peer(*[0x0000] * stored_before, status, 0x0000)
    outcome = send(files, port)
    assert outcome.sent
    assert "3 of 3" in outcome.detail
    assert len(pauses) == 1
    assert len({one.SOPInstanceUID for one in came}) == 3


def test_a_peer_that_stays_out_of_resources_is_given_up(peer, files, pauses, send, patience):
    port, came = peer(0x0000, 0xA700)
    outcome = send(files, port)
    assert not outcome.sent
    assert "OutOfResources" in outcome.detail and "0 of 3" in outcome.detail
    assert pauses == list(patience.pauses)
    assert len(came) >= len(pauses) + 1


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_peer_that_warns_has_stored_and_is_told(peer, files, pauses, send, status):
    port, came = peer(status)
    outcome = send(files, port)
    assert outcome.sent
    assert outcome.detail.count("Warning") == 1
    assert (len(came), pauses) == (3, [])


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0110, 0x0122, 0x0124, 0x0001, 0xFFFF])
def test_a_peer_that_does_not_take_a_file_is_a_failure_at_once(peer, files, pauses, send, status):
    port, _ = peer(0x0000, status)
    outcome = send(files, port)
    assert not outcome.sent
    assert "1 of 3" in outcome.detail
    assert pauses == []


@pytest.mark.parametrize("code", [0xA700, 0xA900, 0xB000, 0xC123, 0x0110])
def test_what_a_peer_says_of_a_patient_is_not_repeated(peer, files, send, code):
    status = pydicom.Dataset()
    status.Status, status.ErrorComment, status.OffendingElement = code, "SECRETSON ANNA", 0x00100010
    refusal = pydicom.Dataset()
    refusal.Status, refusal.ErrorComment = 0xA900, "SECRETSON ANNA"
    outcome = send(files, peer(status, give=refusal)[0])
    assert outcome.sent == (code == 0xB000)
    assert "SECRETSON" not in outcome.detail


def _other_patient(came: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    came[0].PatientID = "SOMEBODY ELSE"
    return came


@pytest.mark.parametrize(
    ("give", "stored", "told"),
    [
        (list, True, "gave them back as they were sent"),
        (_other_patient, False, "differs from what was sent: MR Image Storage"),
        (lambda came: came[:2], False, "does not have 1 of them"),
        (lambda came: came[:1] * 3, False, "does not have 2 of them"),
        (lambda came: [], False, "does not have 3 of them"),
        (0xA701, None, "not proven: C-GET: Refused: OutOfResources"),
        (0xA900, None, "not proven: C-GET"),
        (0xC123, None, "not proven: C-GET"),
    ],
)
def test_a_peer_that_says_success_is_believed_when_it_gives_back_what_it_got(peer, files, send, give, stored, told):
    outcome = send(files, peer(0x0000, give=give)[0])
    assert (outcome.sent, outcome.stored) == (True, stored)
    assert told in outcome.detail and "SOMEBODY" not in outcome.detail


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
