"""Sending to, reading from and proving against a real archive: Orthanc with its DICOMweb plugin."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from archive import send_to_archive
from dicomweb import DicomWebArchive
from dimse import DimseArchive
from inference_dcm import main

LOCALHOST = "127.0.0.1"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "hippo", "campus"


@dataclass(frozen=True)
class Orthanc:
    http_port: int
    dicom_port: int

    @property
    def dicomweb(self) -> str:
        return f"http://{LOCALHOST}:{self.http_port}/dicom-web"

    def rest(self, path: str, body: object = None, method: str | None = None) -> object:
        """What Orthanc's own interface answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{LOCALHOST}:{self.http_port}{path}", data, method=method)
        credentials = urllib.request.HTTPPasswordMgrWithPriorAuth()
        credentials.add_password(None, request.full_url, USER, PASSWORD, is_authenticated=True)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(credentials)
        )
        with opener.open(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")

    def descriptions(self) -> list[str]:
        """Of all series that it holds."""
        return sorted(self.rest(f"/series/{uid}")["MainDicomTags"]["SeriesDescription"] for uid in self.rest("/series"))

    def delete_everything(self) -> None:
        for uid in self.rest("/patients"):
            self.rest(f"/patients/{uid}", method="DELETE")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def running_orthanc(tmp_path_factory, need_program) -> Iterator[Orthanc]:
    need_program("Orthanc")
    need_program("getscu")
    if not PLUGIN.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{PLUGIN} is not installed (orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    orthanc = Orthanc(_free_port(), _free_port())
    configuration = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": orthanc.http_port,
        "DicomPort": orthanc.dicom_port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "OverwriteInstances": False,
        "DicomModalities": {"hippoai": ["HIPPOAI", LOCALHOST, 104]},  # who may fetch (C-GET)
        "Plugins": [str(PLUGIN)],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("w") as log:
        environment = {**os.environ, "TCP_NODELAY": "1"}
        process = subprocess.Popen(["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log, env=environment)
    try:
        for _ in range(200):
            try:
                orthanc.rest("/system")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        yield orthanc
    finally:
        process.kill()  # it takes three seconds to leave by itself
        process.wait()


@pytest.fixture
def orthanc(running_orthanc, monkeypatch) -> Orthanc:
    """An empty archive whose credentials are in the environment."""
    monkeypatch.setenv("DICOMWEB_USER", USER)
    monkeypatch.setenv("DICOMWEB_PASSWORD", PASSWORD)
    monkeypatch.delenv("DICOMWEB_TOKEN", raising=False)
    running_orthanc.delete_everything()
    return running_orthanc


@pytest.fixture
def archives(orthanc) -> dict:
    return {
        "dicomweb": DicomWebArchive(orthanc.dicomweb),
        "dimse": DimseArchive(LOCALHOST, orthanc.dicom_port, "ORTHANC"),
    }


@pytest.fixture
def results(make_study, threshold_model, tmp_path) -> list[Path]:
    """The DICOM objects that a study becomes."""
    assert main([str(make_study()), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)]) == 0
    return sorted((tmp_path / "out").glob("*.dcm"))


@pytest.mark.parametrize("kind", ["dicomweb", "dimse"])
def test_results_are_stored_and_proven_however_often(orthanc, archives, kind, results):
    for _ in range(2):
        outcome = send_to_archive(results, archives[kind])
        assert (outcome.sent, outcome.stored) == (True, True), outcome.detail
    assert len(orthanc.rest("/instances")) == len(results)


@pytest.mark.parametrize("kind", ["dicomweb", "dimse"])
def test_an_archive_that_keeps_something_else_is_found_out(archives, kind, results, edit):
    """This one does not overwrite: it confirms, and keeps what it had."""
    assert send_to_archive(results, archives[kind]).stored
    edit(results[:1], lambda dataset: setattr(dataset, "AccessionNumber", "other"))
    outcome = send_to_archive(results, archives[kind])
    assert (outcome.sent, outcome.stored) == (True, False)
    assert "AccessionNumber" in outcome.detail and "other" not in outcome.detail


def test_a_wrong_password_is_a_failure(orthanc, archives, results, monkeypatch):
    monkeypatch.setenv("DICOMWEB_PASSWORD", "wrong")
    outcome = send_to_archive(results, archives["dicomweb"])
    assert not outcome.sent
    assert "401" in outcome.detail and "wrong" not in outcome.detail
    assert orthanc.rest("/instances") == []


def test_a_wrong_ae_title_is_a_failure(orthanc, results):
    outcome = send_to_archive(results, DimseArchive(LOCALHOST, orthanc.dicom_port, "WRONG"))
    assert not outcome.sent
    assert "Rejected" in outcome.detail
    assert orthanc.rest("/instances") == []


def test_what_is_no_dicom_is_refused(archives, tmp_path, results):
    pydicom.dcmread(results[0]).save_as(tmp_path / "damaged.dcm")
    content = (tmp_path / "damaged.dcm").read_bytes()
    (tmp_path / "damaged.dcm").write_bytes(content[:1000])
    assert not send_to_archive([tmp_path / "damaged.dcm"], archives["dicomweb"]).sent
