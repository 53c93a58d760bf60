"""DICOMweb servers that answer well, badly, late, not at all, or lie. A real one: programs/test_orthanc.py."""

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from archive.dicomweb import MAX_INSTANCES, MAX_JSON_BRACKETS, DicomWebArchive, parse_url
from archive.sending import ArchiveError, Patience, send_to_archive
from archive.tls import TlsFiles
from choosing.series_rules import consider_series, get_series_for_inference, load_rules
from phantom import make_phantom, write_series
from reading.dicom_series import list_files, read_study

pytestmark = pytest.mark.slow

LOCALHOST = "127.0.0.1"
DICOM_JSON = {"Content-Type": "application/dicom+json"}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch) -> None:
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"DICOMWEB_{name}", raising=False)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(tmp_path / "files", make_phantom(0, shape=(20, 20, 2)).image)


class Server(ThreadingHTTPServer):
    """answers: what to say to each request in turn, (status, headers, body) or a function of the request; the last one
    to all that follow. requests: what came, (method, path, headers, body)."""

    answers: list
    requests: list
    daemon_threads = True

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = (self.command, self.path, self.headers, body)
            answers = self.server.answers
            answer = answers[min(len(self.server.requests), len(answers) - 1)]
            self.server.requests.append(request)
            status, headers, content = answer(request) if callable(answer) else answer
            self.send_response(status)
            for name, value in {"Content-Length": len(content), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass


@pytest.fixture
def serve() -> Iterator[Callable]:
    """serve(*answers) starts a server."""
    started = []

    def start(*answers, context: ssl.SSLContext | None = None) -> Server:
        server = Server((LOCALHOST, 0), Server.Handler)
        server.answers, server.requests = answers, []
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def web(patience) -> Callable:
    """web(server): the archive that it is."""

    def connect(server, **options) -> DicomWebArchive:
        address = f"http://{LOCALHOST}:{server.server_address[1]}/dicom-web"
        return DicomWebArchive(address, **{"timeout": 600, "patience": patience, **options})

    return connect


@pytest.fixture
def send(web) -> Callable:
    """send(files, server): what it comes to."""
    return lambda files, server, **options: send_to_archive(files, web(server, **options))


def dicom_of(request) -> bytes:
    """The one DICOM file in a STOW-RS request."""
    _, _, headers, body = request
    assert headers.get_content_type() == "multipart/related"
    assert headers.get_param("type") == "application/dicom"
    boundary = headers.get_boundary().encode()
    assert body.startswith(b"--" + boundary) and body.endswith(b"--" + boundary + b"--\r\n")
    return body.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n--" + boundary + b"--\r\n")


def uid_of(request) -> str:
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(dicom_of(request))).SOPInstanceUID


def stow_answer(uid: str, failure: int | None = None, warning: int | None = None) -> bytes:
    item = {"00081150": {"vr": "UI", "Value": ["1.2"]}, "00081155": {"vr": "UI", "Value": [uid]}}
    if failure is not None:
        item["00081197"] = {"vr": "US", "Value": [failure]}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    stored, failed = ([], [item]) if failure is not None else ([item], [])
    sequences = {"00081198": {"vr": "SQ", "Value": failed}, "00081199": {"vr": "SQ", "Value": stored}}
    return json.dumps(sequences).encode()


def accept(request):
    return 200, DICOM_JSON, stow_answer(uid_of(request))


def accept_with_warning(request):
    return 202, DICOM_JSON, stow_answer(uid_of(request), warning=0xB000)


def fail(status: int, reason: int):
    return lambda request: (status, DICOM_JSON, stow_answer(uid_of(request), failure=reason))


def multipart(*parts: bytes) -> tuple:
    body = b"".join(b"\r\n--b 1\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts)
    return 200, {"Content-Type": 'multipart/related; type="application/dicom"; boundary="b 1"'}, body + b"\r\n--b 1--"


EMPTY = (503, {}, b"")


# --- sending ----------------------------------------------------------------------------------------------------------


def test_each_file_arrives_as_it_is_and_is_fetched_back(serve, files, send):
    server = serve(accept, accept, multipart(*(path.read_bytes() for path in files)))
    outcome = send(files, server)
    assert (outcome.sent, outcome.stored) == (True, True)
    assert [(method, path) for method, path, *_ in server.requests[:2]] == [("POST", "/dicom-web/studies")] * 2
    assert [dicom_of(request) for request in server.requests[:2]] == [path.read_bytes() for path in files]
    header = pydicom.dcmread(files[0])
    expected = f"/dicom-web/studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}"
    assert [path for _, path, *_ in server.requests[2:]] == [expected]


def test_a_file_may_come_back_alone(serve, files, send):
    alone = (200, {"Content-Type": "application/dicom"}, files[0].read_bytes())
    assert send(files[:1], serve(accept, alone)).stored


def test_what_comes_back_changed_is_a_failure(serve, files, edit, send):
    before = [path.read_bytes() for path in files]
    edit(files[1:], lambda dataset: setattr(dataset, "PatientID", "OTHER"))
    changed = multipart(*(path.read_bytes() for path in files))
    for path, content in zip(files, before, strict=True):
        path.write_bytes(content)
    outcome = send(files, serve(accept, accept, changed))
    assert (outcome.sent, outcome.stored) == (True, False)
    assert "PatientID" in outcome.detail and "OTHER" not in outcome.detail


@pytest.mark.parametrize(
    ("answer", "stored", "reason"),
    [
        ((404, {}, b""), False, "does not have 2 of them"),
        ((403, {}, b""), None, "403 Forbidden"),
        ((200, {}, b"<html>"), None, "no complete multipart"),
        (multipart(b"no DICOM"), None, "cannot be read"),
    ],
)
def test_what_does_not_come_back_is_told(serve, files, answer, stored, reason, send):
    outcome = send(files, serve(accept, accept, answer))
    assert (outcome.sent, outcome.stored) == (True, stored)
    assert reason in outcome.detail


def test_a_warning_is_told(serve, files, send):
    outcome = send(files, serve(accept_with_warning, accept, (403, {}, b"")))
    assert outcome.sent
    assert "warning 0xB000 values were changed" in outcome.detail


@pytest.mark.parametrize(
    ("kind", "value"),
    [("LO", "0xB000"), ("PN", "x"), ("DS", 1.5), ("US", [1, 2]), ("SQ", None), ("US", -1), ("US", 10**30)],
)
@pytest.mark.parametrize("attribute", ["00081196", "00081197"])
def test_a_reason_of_another_kind_is_told_as_such(serve, files, kind, value, attribute, send):
    def answer(request):
        item = json.loads(stow_answer(uid_of(request)))["00081199"]["Value"][0]
        item[attribute] = {"vr": kind, "Value": value if isinstance(value, list) else [value]}
        stored = attribute == "00081196"  # a warning, not a failure
        return 200, DICOM_JSON, json.dumps({f"0008119{9 if stored else 8}": {"vr": "SQ", "Value": [item]}}).encode()

    outcome = send(files[:1], serve(answer, (403, {}, b"")))
    assert outcome.sent == (attribute == "00081196")
    assert "a reason that is none" in outcome.detail or "cannot be read" in outcome.detail


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, {}, b"Phantom^0000"), "401 Unauthorized (set DICOMWEB_TOKEN"),
        ((403, {}, b""), "403 Forbidden"),
        ((404, {}, b""), "404 Not Found"),
        ((413, {}, b""), "larger than the archive accepts"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "302 Found"),
        ((599, {}, b""), "answered 599"),
        (fail(409, 0x0122), "0x0122 SOP class not supported"),
        (fail(202, 0xA900), "0xA900 does not match its SOP class"),
        (fail(200, 0xC123), "0xC123 cannot be understood"),
        ((409, {}, b""), "its answer cannot be read"),
        ((200, {}, b"<html>"), "its answer cannot be read"),
        ((200, {}, b"[" * 100_000), "its answer cannot be read"),
        ((200, {}, b'{"00081199": {"vr": "SQ", "Value": [7]}}'), "its answer cannot be read"),
        ((200, DICOM_JSON, b"{}"), "does not name it"),
        ((200, DICOM_JSON, stow_answer("1.2.3")), "does not name it"),
    ],
)
def test_a_refusal_is_a_failure_at_once(serve, files, pauses, answer, reason, send):
    server = serve(answer)
    outcome = send(files, server)
    assert (outcome.sent, outcome.stored) == (False, None)
    assert files[0].name in outcome.detail and reason in outcome.detail
    assert "Phantom" not in outcome.detail
    assert len(server.requests) == 1
    assert pauses == []


def test_one_refused_file_is_a_failure(serve, files, send):
    outcome = send(files, serve(accept, fail(409, 0xA900)))
    assert not outcome.sent
    assert files[1].name in outcome.detail


@pytest.mark.parametrize("answer", [EMPTY, (429, {}, b""), fail(409, 0xA700), fail(202, 0xA702)])
def test_what_may_pass_is_tried_again(serve, files, pauses, answer, send, patience):
    assert send(files[:1], serve(answer, answer, accept, (403, {}, b""))).sent
    assert pauses == list(patience.pauses)


def _in_seconds(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        (" 0 ", 1, 1),
        (lambda: _in_seconds(20), 15, 20),
        (lambda: _in_seconds(-20), 1, 1),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 1, 1),
        ("soon", 1, 1),
        ("-5", 1, 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_says_when_to_try_again(serve, files, pauses, said, least, most, status, send):
    busy = (status, {"Retry-After": said() if callable(said) else said}, b"")
    assert send(files[:1], serve(busy, accept, (403, {}, b""))).sent
    (pause,) = pauses
    assert least <= pause <= most


@pytest.mark.parametrize("said", ["3600", "9" * 5000])
def test_a_server_that_is_busy_for_long_is_left_alone(serve, files, pauses, said, send):
    server = serve((503, {"Retry-After": said}, b""))
    outcome = send(files, server)
    assert not outcome.sent
    assert "try again after" in outcome.detail
    assert (len(server.requests), pauses) == (1, [])


def test_what_does_not_pass_is_given_up(serve, files, pauses, send, patience):
    server = serve(EMPTY)
    outcome = send(files, server)
    assert not outcome.sent
    assert "503 Service Unavailable" in outcome.detail
    assert len(server.requests) == 3
    assert pauses == list(patience.pauses)


def test_a_closed_port_is_a_failure(files, free_port, patience, pauses):
    outcome = send_to_archive(files, DicomWebArchive(f"http://{LOCALHOST}:{free_port}", patience=patience))
    assert not outcome.sent
    assert "Connection refused" in outcome.detail
    assert pauses == list(patience.pauses)


def _say_nothing(connection: socket.socket) -> None:
    connection.recv(1)


def _drip(beginning: bytes) -> Callable:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + beginning)
        _drip_on(connection)

    return drip


def _drip_on(connection: socket.socket) -> None:
    give_up = time.monotonic() + 600
    while time.monotonic() < give_up:  # it ends when the other side hangs up
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("behave", [_say_nothing, _drip(b"X: "), _drip(b"Content-Length: 9999\r\n\r\n")])
def test_a_server_that_hangs_costs_no_more_than_the_time_limit(files, behave):
    held = []

    def serve(listener):
        connection, _ = listener.accept()
        held.append(connection)
        with contextlib.suppress(OSError):
            behave(connection)

    with socket.create_server((LOCALHOST, 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        address = f"http://{LOCALHOST}:{listener.getsockname()[1]}"
        outcome = send_to_archive(files, DicomWebArchive(address, timeout=0.5, patience=Patience(())))
    assert not outcome.sent
    assert "no answer within 0.5 s" in outcome.detail
    held[0].close()


def _drip_handshake(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x03\x40\x00")  # so much of a handshake is to come: 16 KiB
    _drip_on(connection)


@pytest.mark.parametrize(
    ("behave", "after_handshake"),
    [
        (_say_nothing, False),
        (_drip_handshake, False),
        (_say_nothing, True),
        (_drip(b"X: "), True),
        (_drip(b"Content-Length: 9999\r\n\r\n"), True),
    ],
)
def test_a_server_that_hangs_inside_tls_costs_no_more_than_the_time_limit(files, certificate, behave, after_handshake):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            if after_handshake:
                connection = context.wrap_socket(connection, server_side=True)
            connection.recv(1)  # the request, or the client's first words of the handshake
            behave(connection)
            while connection.recv(1 << 16):  # until the other side hangs up
                pass
        hung_up.set()

    hung_up = threading.Event()
    with socket.create_server((LOCALHOST, 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        address = f"https://{LOCALHOST}:{listener.getsockname()[1]}"
        archive = DicomWebArchive(address, TlsFiles(certificate), timeout=0.5, patience=Patience(()))
        outcome = send_to_archive(files, archive)
        assert hung_up.wait(600)
    assert not outcome.sent
    assert "no answer within 0.5 s" in outcome.detail


def test_an_answer_before_all_was_sent_is_heard(files):
    """A large file, and a server that says 413 after its first bytes and hangs up."""
    ds = pydicom.dcmread(files[0])
    ds.add_new(0x00091010, "OB", bytes(20_000_000))
    ds.save_as(files[0])

    def serve(listener):
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):  # else the answer would be lost with the connection
            pass
        connection.close()

    with socket.create_server((LOCALHOST, 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        address = f"http://{LOCALHOST}:{listener.getsockname()[1]}"
        outcome = send_to_archive(files[:1], DicomWebArchive(address, timeout=600, patience=Patience(())))
    assert "413" in outcome.detail


def test_an_endless_answer_is_cut(serve, files, send):
    outcome = send(files, serve(accept, accept, (200, {}, bytes(3 << 20))), max_bytes=1 << 20)
    assert (outcome.sent, outcome.stored) == (True, None)
    assert "more than 1 MiB" in outcome.detail


def test_an_endless_confirmation_is_cut(serve, files, send):
    outcome = send(files, serve((200, DICOM_JSON, bytes(17 << 20))))
    assert not outcome.sent
    assert "more than 16 MiB" in outcome.detail


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (b"Content-Type: multipart/related; boundary*=x; boundary*1=y\r\n\r\n", "does not speak HTTP (TypeError)"),
        (b"Content-Type: multipart/x; boundary*%s=x\r\n\r\n" % (b"9" * 5000), "does not speak HTTP (ValueError)"),
        (CHUNKED + b"-1\r\n" + b"x" * 1000, "no connection (IncompleteRead)"),
        (CHUNKED + b"-5\r\n" + b"x" * 1000, "no connection (IncompleteRead)"),
    ],
)
def test_an_answer_that_http_client_chokes_on_is_a_failure(files, headers, told):
    def serve(listener):
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as request:
            length = 0
            while (line := request.readline()) != b"\r\n":
                length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length:") else length
            request.read(length)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + headers)

    with socket.create_server((LOCALHOST, 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        address = f"http://{LOCALHOST}:{listener.getsockname()[1]}"
        outcome = send_to_archive(files[:1], DicomWebArchive(address, timeout=600, patience=Patience(())))
    assert not outcome.sent
    assert told in outcome.detail


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"DICOMWEB_TOKEN": "t0k3n\n"}, "Bearer t0k3n"),
        (
            {"DICOMWEB_USER": "jo", "DICOMWEB_PASSWORD": "päss:word"},
            f"Basic {base64.b64encode('jo:päss:word'.encode()).decode()}",
        ),
    ],
)
def test_credentials_come_from_the_environment(serve, files, monkeypatch, environment, expected, send):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server = serve((401, {}, b""))
    outcome = send(files, server)
    assert server.requests[0][2]["Authorization"] == expected
    assert not any(value.strip() in outcome.detail for value in environment.values())


@pytest.mark.parametrize("token", ["t0k€n", "t0k3n\nX-More: y"])
def test_what_no_header_can_hold_is_no_token(serve, files, send, monkeypatch, token):
    monkeypatch.setenv("DICOMWEB_TOKEN", token)
    server = serve(accept)
    outcome = send(files, server)
    assert not outcome.sent
    assert "DICOMWEB_TOKEN" in outcome.detail and token[:3] not in outcome.detail
    assert server.requests == []


def test_credentials_are_not_sent_in_clear(files, monkeypatch):
    monkeypatch.setenv("DICOMWEB_TOKEN", "t0k3n")
    outcome = send_to_archive(files, DicomWebArchive("http://pacs.invalid/dicom-web"))
    assert not outcome.sent
    assert "use https" in outcome.detail


@pytest.fixture
def certificate(tmp_path, need_program) -> Path:
    """Of 127.0.0.1, signed by itself; its key is in the same file."""
    need_program("openssl")
    path = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]
    command += ["-addext", f"subjectAltName=IP:{LOCALHOST}", "-keyout", tmp_path / "key.pem", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "key.pem").read_text())
    return path


def test_certificates_are_verified(serve, files, certificate, monkeypatch, pauses):
    monkeypatch.setenv("DICOMWEB_TOKEN", "t0k3n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = serve(accept, (403, {}, b""), context=context)
    url = f"https://{LOCALHOST}:{server.server_address[1]}/dicom-web"
    outcome = send_to_archive(files[:1], DicomWebArchive(url))
    assert not outcome.sent
    assert "certificate is not trusted" in outcome.detail
    assert server.requests == []
    assert pauses == []
    assert send_to_archive(files[:1], DicomWebArchive(url, TlsFiles(certificate), timeout=600)).sent
    wrong_name = send_to_archive(files[:1], DicomWebArchive(url.replace(LOCALHOST, "localhost"), TlsFiles(certificate)))
    assert "certificate is not trusted" in wrong_name.detail


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_wrong_certificate_file_is_told(files, tmp_path, content):
    if content:
        (tmp_path / "ca.pem").write_text(content)
    outcome = send_to_archive(files, DicomWebArchive("https://127.0.0.1:1", TlsFiles(tmp_path / "ca.pem")))
    assert "no certificates can be read from" in outcome.detail


@pytest.mark.parametrize(("text", "url"), [("http://h:1/a/", "http://h:1/a"), ("https://h", "https://h")])
def test_an_address(text, url):
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "pacs", "ftp://h/", "http://", "http://h:x/", "http://u:p@h/", "http://h/?q=1", "http://h/#f", "http://h/ä"],
)
def test_no_address(text):
    with pytest.raises(ValueError):
        parse_url(text)


# --- reading a study --------------------------------------------------------------------------------------------------


class StudyServer:
    """What an archive would answer about the files of one study."""

    def __init__(self, folder: Path):
        self.files = [pydicom.dcmread(path) for path in list_files(folder)]
        self.contents = {
            ds.SOPInstanceUID: path.read_bytes() for ds, path in zip(self.files, list_files(folder), strict=True)
        }
        self.uid = self.files[0].StudyInstanceUID

    def metadata(self) -> tuple:
        headers = [ds.to_json_dict(1, lambda _: "http://elsewhere/bulk") for ds in self.files]
        return _metadata(*headers)

    def crop(self) -> list[bytes]:
        """The files of the HippoCrop series."""
        return [self.contents[one.SOPInstanceUID] for one in self.files if one.SeriesDescription == "HippoCrop"]


def _metadata(*instances: dict) -> tuple:
    return 200, DICOM_JSON, json.dumps(instances).encode()


def _uids(study) -> set[str]:
    return {instance.text("SOPInstanceUID") for series in study.series for instance in series.instances}


def crop_series(files):
    study = read_study(files)
    return [get_series_for_inference(study, consider_series(study, load_rules()))]


def test_a_study_comes_with_the_pixels_that_are_needed(serve, make_study, edit, tmp_path, web):
    folder = make_study()
    edit(
        list_files(folder),
        lambda dataset: dataset.update({"PatientName": "Jürgen^Öst", "SpecificCharacterSet": "ISO_IR 100"}),
    )
    study = StudyServer(folder)
    server = serve(study.metadata(), multipart(*study.crop()))
    (tmp_path / "fetched").mkdir()
    fetched = web(server).fetch_study(study.uid, tmp_path / "fetched", crop_series)
    assert sorted(fetched) == list_files(tmp_path / "fetched")

    found, expected = read_study(fetched), read_study(list_files(folder))
    assert _uids(found) == _uids(expected)
    assert [one.description for one in found.series] == [one.description for one in expected.series]
    (crop,), (original,) = crop_series(fetched), crop_series(list_files(folder))
    assert found.header_for(crop) == expected.header_for(original)
    for instance in crop.instances:
        assert instance.path.read_bytes() == study.contents[instance.header.SOPInstanceUID]
    size = sum(path.stat().st_size for path in list_files(folder))
    assert len(server.requests) == 2
    assert sum(path.stat().st_size for path in fetched) < size


def test_a_slice_that_does_not_come_is_a_failure(serve, make_study, tmp_path, web):
    study = StudyServer(make_study())
    server = serve(study.metadata(), multipart(*study.crop()[1:]))
    with pytest.raises(ArchiveError, match="did not give"):
        web(server).fetch_study(study.uid, tmp_path, crop_series)


# --- a server that lies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 7, -1])
def test_metadata_of_another_study_are_an_error(serve, make_study, edit, tmp_path, web, position):
    folder = make_study()
    uid = StudyServer(folder).uid
    edit([list_files(folder)[position]], lambda dataset: setattr(dataset, "StudyInstanceUID", f"{uid}.1"))
    server = serve(StudyServer(folder).metadata())
    with pytest.raises(ArchiveError, match=f"another study than {uid}$"):
        web(server).fetch_study(uid, tmp_path, lambda _: pytest.fail("it was taken"))


def _changed(content: bytes, **values: object) -> bytes:
    dataset, file = pydicom.dcmread(BytesIO(content)), BytesIO()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)
    return file.getvalue()


def _inflated_without_end(content: bytes) -> bytes:
    """A file of a hundred megabytes of zeros, in a hundred kilobytes."""
    head = content[: content.index(b"1.2.840.10008.1.2.1\0")]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(bytes(100 << 20)) + deflater.flush()
    syntax = b"1.2.840.10008.1.2.1.99"
    head = head[:-2] + len(syntax).to_bytes(2, "little") + syntax
    length = len(head) - 144  # of group 0002 after its own length
    return head[:140] + length.to_bytes(4, "little") + head[144:] + deflated


@pytest.mark.parametrize("position", [0, 3, -1])
@pytest.mark.parametrize(
    ("lie", "told"),
    [
        (lambda content: _changed(content, StudyInstanceUID="1.2.3"), "instance of another study than {study}$"),
        (lambda content: _changed(content, StudyInstanceUID=""), "instance of another study than {study}$"),
        (lambda content: _changed(content, SeriesInstanceUID="1.2.3"), "instance of another series than {series}$"),
        (lambda content: _changed(content, SOPInstanceUID="../../escaped"), "without a valid SOPInstanceUID"),
        (lambda content: b"no DICOM", "cannot be read"),
        (_inflated_without_end, r"cannot be read .*BeyondLimitsError"),
    ],
)
def test_pixels_of_anything_else_are_an_error(serve, make_study, tmp_path, web, lie, told, position):
    study = StudyServer(make_study())
    contents = study.crop()
    series = pydicom.dcmread(BytesIO(contents[position])).SeriesInstanceUID
    contents[position] = lie(contents[position])
    (tmp_path / "in" / "fetched").mkdir(parents=True)
    server = serve(study.metadata(), multipart(*contents))
    with pytest.raises(ArchiveError, match=told.format(study=study.uid, series=series)):
        web(server).fetch_study(study.uid, tmp_path / "in" / "fetched", crop_series)
    assert list((tmp_path / "in").iterdir()) == [tmp_path / "in" / "fetched"]


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related",
        "multipart/related; boundary=",
        "multipart/related; boundary*=x; boundary*1=y",
        f"multipart/related; boundary*{'9' * 5000}=x",
        "multipart/related; boundary*=unicode_escape''%5Cud800",
        "multipart/related; boundary*=idna''%FF",
        "text/html; boundary*=x; boundary*1=y",
        "text/html; boundary*=idna''%FF",
        "text/html; boundary*=unicode_escape''%5Cud800",
        'text/html; boundary="\xff"',
    ],
)
def test_a_boundary_that_is_none_is_an_error(serve, make_study, tmp_path, web, content_type):
    study = StudyServer(make_study())
    _, _, body = multipart(*study.crop())
    server = serve(study.metadata(), (200, {"Content-Type": content_type}, body))
    with pytest.raises(ArchiveError, match=r"no complete multipart message|does not speak HTTP"):
        web(server).fetch_study(study.uid, tmp_path, crop_series)


@pytest.mark.parametrize(
    ("parts", "told"),
    [(MAX_INSTANCES, "what came cannot be read"), (MAX_INSTANCES + 1, f"more than {MAX_INSTANCES} instances")],
)
def test_no_more_files_are_taken_than_a_study_has(serve, make_study, tmp_path, web, parts, told):
    study = StudyServer(make_study())
    server = serve(study.metadata(), multipart(*[b""] * parts))
    with pytest.raises(ArchiveError, match=told):
        web(server).fetch_study(study.uid, tmp_path, crop_series)


def test_a_folder_that_cannot_be_written_is_an_error(serve, make_study, tmp_path, web):
    study = StudyServer(make_study())
    with pytest.raises(ArchiveError, match=r"cannot be written to .*gone: No such file"):
        web(serve(study.metadata())).fetch_study(study.uid, tmp_path / "gone", crop_series)


def _json_header(**uids: str) -> dict:
    """What the metadata say of one instance of the study 1.2.3, unless told otherwise."""
    tags = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}
    uids = {"study": "1.2.3", "series": "1.2.3.4", "instance": "1.2.3.4.5", **uids}
    return {tags[name]: {"vr": "UI", "Value": [uid]} for name, uid in uids.items()}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, {}, b""), "404 Not Found"),
        ((200, {}, b"<html>"), "metadata cannot be read"),
        ((200, {}, b"[7]"), "metadata cannot be read"),
        ((200, {}, b"[" * 100_000), "metadata cannot be read"),
        (_metadata(_json_header(instance="../../escaped")), "without a valid SOPInstanceUID"),
        (_metadata(_json_header(instance="")), "without a valid SOPInstanceUID"),
        (_metadata({}), "another study than 1.2.3"),
        (_metadata({"0020000D": {"vr": "SQ", "Value": ["1.2.3"]}}), "another study than 1.2.3"),
        (_metadata({"0020000D": {"vr": "DS", "Value": ["x"]}}), "another study than 1.2.3|cannot be read"),
        # None of these is JSON to its end: what is too much must be seen before it is parsed.
        (lambda _: (200, {}, b"[" + bytes(16 << 20)), "more than 16 MiB"),
        ((200, {}, b"[" + b"{}," * MAX_JSON_BRACKETS), "more JSON than any study needs"),
        ((200, {}, b"[" + b"[]," * MAX_JSON_BRACKETS), "more JSON than any study needs"),
        (_metadata(*[{}] * (MAX_INSTANCES + 1)), f"more than {MAX_INSTANCES} instances"),
    ],
)
def test_a_study_that_cannot_be_fetched_is_an_error(serve, tmp_path, answer, reason, web):
    with pytest.raises(ArchiveError, match=reason):
        web(serve(answer)).fetch_study("1.2.3", tmp_path, crop_series)
    assert list_files(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"no list",
        b"[[]]",
        b'[{"00201209": {"vr": "IS", "Value": [0]}}]',
        b'[{"00201209": {"vr": "IS", "Value": ["-3"]}}]',
        b'[{"00201209": {"vr": "IS", "Value": ["99999999"]}}]',
        b'[{"00201209": {"vr": "IS", "Value": ["many"]}}]',
        b'[{"00201209": {"vr": "PN", "Value": [3]}}]',
        b'[{"0020000E": {"vr": "UI", "Value": ["1.2"]}}]',
        b"[" + b",".join([b'{"00201209": {"vr": "IS", "Value": [1]}}'] * 1001) + b"]",
    ],
)
def test_a_count_that_makes_no_sense_is_none(serve, web, content):
    server = serve((200, {"Content-Type": "application/dicom+json"}, content))
    with pytest.raises(ArchiveError):
        web(server).count_instances("1.2.3")


def test_of_a_study_that_it_does_not_know_it_holds_nothing_or_does_not_say(serve, web):
    assert web(serve((200, {"Content-Type": "application/dicom+json"}, b"[]"))).count_instances("1.2.3") == 0
    with pytest.raises(ArchiveError, match="204"):
        web(serve((204, {}, b""))).count_instances("1.2.3")
