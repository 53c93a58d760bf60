"""A real archive that is away, refuses, or dies in mid-transfer: in the end it has each result, once."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pydicom
import pytest

from archive.dimse import DimseArchive
from archive.sending import Patience, send_to_archive
from node.incoming import DONE
from phantom import write_study
from reading.dicom_series import list_files
from servers import LOCALHOST, serving
from study.study_result import read_result

LONG = 600  # seconds: for what should take none, on the busiest machine


class Orthanc:
    """An archive that keeps what it has when it is stopped and started again."""

    def __init__(self, folder: Path, dicom_port: int, http_port: int):
        self.dicom_port, self.http_port, self.folder = dicom_port, http_port, folder
        folder.mkdir()
        configuration = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": http_port,
            "DicomPort": dicom_port,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"hippoai": ["HIPPOAI", LOCALHOST, 104]},
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))

    @contextmanager
    def running(self) -> Iterator[None]:
        command = ["Orthanc", self.folder / "orthanc.json"]
        with serving(command, lambda: self.instances() is not None, self.folder / "log"):
            yield

    def instances(self) -> set[str] | None:
        """The SOP Instance UIDs of all that it has; None where it does not answer."""
        address = f"http://{LOCALHOST}:{self.http_port}/instances?expand"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with suppress(urllib.error.URLError, ConnectionError), opener.open(address, timeout=LONG) as answer:
            return {one["MainDicomTags"]["SOPInstanceUID"] for one in json.loads(answer.read())}
        return None


@pytest.fixture
def orthanc(tmp_path, need_program, find_port) -> Orthanc:
    for program in ("Orthanc", "storescu", "getscu"):
        need_program(program)
    return Orthanc(tmp_path / "orthanc", find_port(), find_port())


@pytest.fixture
def cutting_proxy(find_port) -> Iterator[Callable[[int, int], int]]:
    """cutting_proxy(port, size) -> a port that leads there and breaks the first connection after so many bytes."""
    stopping, servers = threading.Event(), []

    def serve(server: socket.socket, port: int, size: int) -> None:
        left: int | None = size
        while not stopping.is_set():
            with suppress(OSError):
                client, _ = server.accept()
                with client, socket.create_connection((LOCALHOST, port)) as archive:
                    back = threading.Thread(target=pump, args=(archive, client, None), daemon=True)
                    back.start()
                    pump(client, archive, left)
                    left = None
                    back.join(LONG)

    def pump(source: socket.socket, target: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while (left is None or left > 0) and (data := source.recv(4096)):
                target.sendall(data)
                left = None if left is None else left - len(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def start(port: int, size: int) -> int:
        server = socket.create_server((LOCALHOST, 0))
        servers.append(server)
        threading.Thread(target=serve, args=(server, port, size), daemon=True).start()
        return server.getsockname()[1]

    yield start
    stopping.set()
    for server in servers:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.fixture
def begin(tmp_path, make_bench, blocks) -> Callable:
    """begin(port, called AE title): a node with that archive as its destination, and a study that has arrived."""

    def start(port: int, aec: str = "ORTHANC"):
        archive = DimseArchive(LOCALHOST, port, aec, timeout=LONG, patience=Patience(pauses=()))
        study = write_study(tmp_path / "incoming" / "st", blocks, seed=1, brain_series=0)
        bench = make_bench({"archive": partial(send_to_archive, archive=archive)})
        return bench, str(pydicom.dcmread(list_files(study)[0]).StudyInstanceUID)

    return start


def delivery(bench, uid: str) -> dict:
    (one,) = bench.row(uid)["deliveries"]
    return one


def results(bench, uid: str) -> set[str]:
    outputs = read_result(bench.settings.output_dir / uid).outputs
    return {one["sop_instance_uid"] for one in outputs} - {None}


def try_again(bench) -> None:
    bench.clock.wait(100)
    bench.step(2)


@pytest.mark.slow
def test_an_archive_that_is_away_gets_all_when_it_is_back_and_keeps_it_once(orthanc, begin):
    bench, uid = begin(orthanc.dicom_port)
    bench.settle()
    assert (bench.state(uid), delivery(bench, uid)["state"]) == ("sending", "pending")
    assert "refused" in delivery(bench, uid)["detail"]
    with orthanc.running():
        try_again(bench)
        assert delivery(bench, uid)["state"] == "stored", delivery(bench, uid)["detail"]
        assert orthanc.instances() == results(bench, uid)
    assert list_files(bench.incoming / DONE / uid)
    try_again(bench)  # it is away again, and nobody minds
    assert delivery(bench, uid)["state"] == "stored"


@pytest.mark.slow
def test_an_archive_that_refuses_the_association_is_set_aside_and_told(orthanc, begin):
    with orthanc.running():
        bench, uid = begin(orthanc.dicom_port, "WRONG")
        bench.settle()
        for _ in range(4):
            try_again(bench)
        assert (bench.state(uid), bench.row(uid)["code"]) == ("warning", "not-stored")
        assert delivery(bench, uid)["state"] == "aside" and "Reject" in delivery(bench, uid)["detail"]
        assert orthanc.instances() == set()


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 50_000, 3_000_000])
def test_a_transfer_that_breaks_is_begun_again(orthanc, begin, cutting_proxy, size):
    """While the association is made, in the first file, and in a later one."""
    with orthanc.running():
        bench, uid = begin(cutting_proxy(orthanc.dicom_port, size))
        bench.settle()
        assert (bench.state(uid), delivery(bench, uid)["state"]) == ("sending", "pending")
        assert not orthanc.instances() >= results(bench, uid)
        try_again(bench)
        assert delivery(bench, uid)["state"] == "stored", delivery(bench, uid)["detail"]
        assert orthanc.instances() == results(bench, uid)
    assert [state for _, state in bench.queue.transitions(uid)].count("inferring") == 1


@pytest.mark.slow
def test_what_the_archive_confirms_and_does_not_show_is_not_taken_for_stored(orthanc, begin):
    """Nobody can say that it has anything."""
    orthanc.folder.joinpath("orthanc.json").write_text(
        orthanc.folder.joinpath("orthanc.json").read_text().replace("HIPPOAI", "OTHER")
    )
    with orthanc.running():
        bench, uid = begin(orthanc.dicom_port)
        bench.settle()
        assert (bench.state(uid), delivery(bench, uid)["state"]) == ("sending", "pending")
        assert "not proven" in delivery(bench, uid)["detail"]
        assert not (bench.incoming / DONE).exists()
