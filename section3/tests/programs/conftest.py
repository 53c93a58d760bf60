"""A real archive: Orthanc with its DICOMweb plugin."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from archive.dicomweb import DicomWebArchive
from archive.dimse import DimseArchive
from archive.sending import send_to_archive
from reading.dicom_series import list_files
from servers import LOCALHOST, serving

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
        with opener.open(request, timeout=600) as answer:
            return json.loads(answer.read() or "null")

    def answers(self) -> bool:
        try:
            self.rest("/system")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def delete_everything(self) -> None:
        for uid in self.rest("/patients"):
            self.rest(f"/patients/{uid}", method="DELETE")


@pytest.fixture(scope="module")
def running_orthanc(tmp_path_factory, need_program, find_port) -> Iterator[Orthanc]:
    need_program("Orthanc")
    need_program("getscu")
    if not PLUGIN.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{PLUGIN} is not installed (orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    orthanc = Orthanc(find_port(), find_port())
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
    with serving(["Orthanc", folder / "orthanc.json"], orthanc.answers, folder / "log"):
        yield orthanc


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
        "dicomweb": DicomWebArchive(orthanc.dicomweb, timeout=600),
        "dimse": DimseArchive(LOCALHOST, orthanc.dicom_port, "ORTHANC", timeout=600),
    }


@pytest.fixture
def archived_study(archives, make_study) -> str:
    """The UID of a study in the archive."""
    files = list_files(make_study())
    assert send_to_archive(files, archives["dimse"]).stored
    return pydicom.dcmread(files[0]).StudyInstanceUID
