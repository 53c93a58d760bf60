"""An archive that speaks DICOMweb (PS3.18): STOW-RS to send, WADO-RS to fetch.

By the standard library alone. dicomweb-client sends nothing at its second attempt, drops the reasons that come with
status 409, and its requests would make every start slower, as pydicom imports it where it is installed.

Credentials come from the environment, never from the command line, where every user of the machine can read them:
DICOMWEB_TOKEN (a bearer token), or DICOMWEB_USER and DICOMWEB_PASSWORD. Certificates are verified.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection, IncompleteRead
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from archive.counting import COUNT, count_instances
from archive.received import read_received, read_received_header, temporary_folder, write_received
from archive.sending import PATIENCE, ArchiveError, Patience
from archive.tls import SYSTEM, TlsFiles
from reading.dicom_file import DICOM_ERRORS, MAX_FILE_BYTES, MEBIBYTE, Instance
from reading.dicom_series import UID_TEXT, Series

DICOM, JSON = "application/dicom", "application/dicom+json"
ANY_SYNTAX = f'multipart/related; type="{DICOM}"; transfer-syntax=*'  # as it is stored
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CHUNK = 1 << 20

# What an archive may answer. The largest studies of MR have some thousand images, with 2 KiB of JSON each. A dozen
# bytes of JSON can take a hundred of memory, so what takes it is counted before it is parsed: an attribute has two
# brackets and 40 characters, so that the brackets of an honest answer do not come near to this.
MAX_JSON_BYTES = 16 * MEBIBYTE
MAX_JSON_BRACKETS = 1 << 20
MAX_INSTANCES = 10_000

TRANSIENT = {408, 429, 500, 502, 503, 504}
CONFIRMATIONS = {200, 202, 409}  # stored, stored in part or with warnings, not stored: the answer says what
HINTS = {
    401: "set DICOMWEB_TOKEN, or DICOMWEB_USER and DICOMWEB_PASSWORD",
    403: "these credentials may not do it",
    404: "is the address right, and is it there?",
    413: "it is larger than the archive accepts",
}
REASONS = {  # PS3.18, I.2, by the first digits
    "A7": "out of resources",
    "A9": "does not match its SOP class",
    "C": "cannot be understood",
    "0110": "processing failure",
    "0122": "SOP class not supported",
    "0124": "not authorised",
    "B000": "values were changed",
    "B006": "attributes were discarded",
    "B007": "does not match its SOP class",
}


# What http.client, and the email package that reads headers for it, raise on hostile answers beside HTTPException.
NOT_HTTP = (ValueError, TypeError, LookupError, AttributeError, AssertionError)


class NotFoundError(ArchiveError):
    """The archive has no such thing."""


def parse_url(text: str) -> str:
    """The address of a DICOMweb service, without a slash at its end. Raises ValueError."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or not url.path.isascii():
        raise ValueError(f"{text} is no address of the form https://host[:port]/path")
    if url.username is not None:
        raise ValueError("the address holds a user name: set DICOMWEB_USER and DICOMWEB_PASSWORD instead")
    _ = url.port  # raises where it is none
    return text.rstrip("/")


@dataclass(frozen=True)
class DicomWebArchive:
    """The archive at `url` (see `parse_url`), which has `timeout` seconds for each answer.

    tls: whom to trust, and who we are. max_bytes: of an answer with images.
    """

    url: str
    tls: TlsFiles = SYSTEM
    timeout: float = 60
    patience: Patience = PATIENCE
    max_bytes: int = MAX_FILE_BYTES

    def __str__(self) -> str:
        return self.url

    def store(self, paths: Sequence[Path]) -> list[str]:
        """See sending.Archive. One by one: what is refused is known, and no message is larger than it must be."""
        warnings = {warning for path in paths for warning in self.patience.attempt(lambda path=path: self._store(path))}
        return sorted(warnings)

    def _store(self, path: Path) -> list[str]:
        boundary = uuid.uuid4().hex
        body = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode() + path.read_bytes()
        headers = {
            "Accept": JSON,
            "Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}',
        }
        try:
            _, content = self._request("POST", "/studies", headers, body + f"\r\n--{boundary}--\r\n".encode())
            return _confirmation(content, path)
        except ArchiveError as error:
            raise type(error)(f"did not store {path.name}: {error}", error.transient, error.wait) from error

    def retrieve(self, sent: Sequence[Dataset]) -> list[Dataset]:
        """See sending.Archive."""
        found = []
        for study, series in sorted({(one.StudyInstanceUID, one.SeriesInstanceUID) for one in sent}):
            try:
                contents = self._instances(f"/studies/{study}/series/{series}")
            except NotFoundError:
                continue
            with temporary_folder() as folder:
                found += [read_received(write_received(content, folder / "instance.dcm")) for content in contents]
        return found

    def count_instances(self, study_uid: str) -> int:
        """See sending.Archive. By QIDO-RS of its series."""
        fields = f"includefield=SeriesDescription&includefield={COUNT}"
        _, content = self._request("GET", f"/studies/{study_uid}/series?{fields}", {"Accept": JSON})
        try:
            return count_instances([Dataset.from_json(_plain(one)) for one in _json(content)])
        except DICOM_ERRORS as error:
            raise ArchiveError(f"its list of series cannot be read ({type(error).__name__})") from error

    def study_of(self, series_uid: str) -> str:
        """The StudyInstanceUID of a series, by QIDO-RS. Raises NotFoundError, ArchiveError."""
        _, content = self._request("GET", f"/series?SeriesInstanceUID={series_uid}", {"Accept": JSON})
        try:
            found = [Dataset.from_json(_plain(one)) for one in _json(content or b"[]")]
            studies = {str(one.StudyInstanceUID) for one in found if one.SeriesInstanceUID == series_uid}
        except DICOM_ERRORS as error:
            raise ArchiveError(f"its list of series cannot be read ({type(error).__name__})") from error
        if len(studies) != 1 or not UID_TEXT.fullmatch(*studies):
            raise NotFoundError("it has no such series, or more than one")
        return studies.pop()

    def fetch_study(self, study_uid: str, folder: Path, choose: Callable[[list[Path]], list[Series]]) -> list[Path]:
        """Write a study to `folder`: the headers of all instances, and the pixels of those that `choose` wants.

        `choose` is given the files with the headers. Raises ArchiveError, also where anything else comes.
        """
        files = self._fetch_headers(study_uid, folder)
        for series in choose(files):
            fetched = self._fetch_series(study_uid, series.uid, folder)
            if missing := {instance.path for instance in series.instances} - set(fetched):
                raise ArchiveError(f"it did not give {len(missing)} of {len(series.instances)} slices of {series.uid}")
        return files

    def _fetch_headers(self, study_uid: str, folder: Path) -> list[Path]:
        _, content = self.patience.attempt(
            lambda: self._request("GET", f"/studies/{study_uid}/metadata", {"Accept": JSON})
        )
        try:
            instances = _json(content)
            if len(instances) > MAX_INSTANCES:
                raise ArchiveError(f"the study has more than {MAX_INSTANCES} instances")
            files = []
            for one in instances:
                header = Dataset.from_json(_plain(one))
                path = folder / _file_name(Instance(Path(), header), study_uid)
                files.append(write_received(_as_file(header), path))
        except DICOM_ERRORS as error:
            raise ArchiveError(f"the study's metadata cannot be read ({type(error).__name__})") from error
        return files

    def _fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        written = []
        for content in self.patience.attempt(lambda: self._instances(f"/studies/{study_uid}/series/{series_uid}")):
            path = write_received(content, folder / "unread.dcm")
            name = _file_name(read_received_header(path), study_uid, series_uid)
            written.append(path.replace(folder / name))
        return written

    def _instances(self, path: str) -> list[bytes]:
        """The DICOM files that the archive keeps there."""
        headers, content = self._request("GET", path, {"Accept": ANY_SYNTAX}, max_bytes=self.max_bytes)
        if headers.get_content_type() == DICOM:
            return [content]
        return _parts(content, _boundary(headers))

    def _request(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b"", max_bytes: int = MAX_JSON_BYTES
    ) -> tuple[HTTPMessage, bytes]:
        """Headers and content of the answer. Raises ArchiveError unless it is one that carries what was asked for.

        Redirections are not followed: credentials and patients go where the user said.
        """
        path = urlsplit(self.url).path + path
        headers = {**headers, **self._authorization(), "Connection": "close"}
        connection = self._connection()
        connection.response_class = _Response
        try:
            connection.connect()
            with _deadline(connection.sock, self.timeout):
                with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had everything
                    connection.request(method, path, body, headers)
                response = connection.getresponse()
                content = _content(response.read, max_bytes)
        except TimeoutError as error:
            raise ArchiveError(f"no answer within {self.timeout:g} s", transient=True) from error
        except ssl.SSLCertVerificationError as error:
            raise ArchiveError(f"its certificate is not trusted ({error.verify_message}); see --ca-file") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            transient = isinstance(error, ConnectionError | HTTPException)
            raise ArchiveError(f"no connection ({reason})", transient) from error
        except NOT_HTTP as error:
            raise ArchiveError(f"it does not speak HTTP ({type(error).__name__})") from error
        finally:
            connection.close()
        status = response.status
        if status == 200 or (method == "POST" and status in CONFIRMATIONS):
            return response.headers, content
        kind = NotFoundError if status == 404 else ArchiveError
        wait = _retry_after(response.headers)
        asked = f", try again after {wait:.0f} s" if wait else ""
        raise kind(f"answered {_status(status)}{asked}", status in TRANSIENT, wait)

    def _connection(self) -> HTTPConnection:
        url = urlsplit(self.url)
        if url.scheme == "http":
            return HTTPConnection(url.hostname, url.port, timeout=self.timeout)
        return HTTPSConnection(url.hostname, url.port, timeout=self.timeout, context=self.tls.context())

    def _authorization(self) -> dict[str, str]:
        """Read at the last moment: credentials never travel to another process with the archive's address."""
        token, user, password = (
            os.environ.get(f"DICOMWEB_{name}", "").strip() for name in ("TOKEN", "USER", "PASSWORD")
        )
        if not token and not user:
            return {}
        url = urlsplit(self.url)
        if url.scheme == "http" and url.hostname not in LOOPBACK:
            raise ArchiveError("credentials are set, and http would send them in clear: use https")
        if not (token.isascii() and token.isprintable()):
            raise ArchiveError("DICOMWEB_TOKEN has letters that no token has")
        if token:
            return {"Authorization": f"Bearer {token}"}
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def _status(status: int) -> str:
    """In our words: what the archive adds may quote a patient's data."""
    try:
        words = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        words = str(status)
    return f"{words} ({HINTS[status]})" if status in HINTS else words


def _retry_after(headers: HTTPMessage) -> float:
    """The seconds to wait, which stand there as such or as a date (RFC 9110, 10.2.3); 0 where there are none."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):  # it is no date
        return 0


@contextmanager
def _deadline(connection: socket.socket, seconds: float) -> Iterator[None]:
    """End the connection after so many seconds; its own time limit begins anew with each byte that drips in.

    Raises TimeoutError.
    """
    expired = threading.Event()

    def end() -> None:
        expired.set()
        with suppress(OSError):  # it has ended by itself
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS, where the other thread waits

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    except (OSError, HTTPException, *NOT_HTTP):
        if not expired.is_set():
            raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise TimeoutError


class _Response(HTTPResponse):
    """http.client takes a chunk of -1 bytes for all that comes, however much that is."""

    def _safe_read(self, amt: int) -> bytes:
        if amt < 0:
            raise IncompleteRead(b"")
        return super()._safe_read(amt)


def _content(read: Callable[[int], bytes], max_bytes: int) -> bytes:
    """All of the answer, as long as it is no larger than that."""
    content = bytearray()
    while chunk := read(CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise ArchiveError(f"answered with more than {max_bytes // MEBIBYTE} MiB")
    return bytes(content)


def _boundary(headers: HTTPMessage) -> bytes:
    """What separates the parts of a multipart body; empty where that cannot be told."""
    try:
        return (headers.get_boundary() or "").encode()
    except NOT_HTTP:
        return b""


def _parts(body: bytes, boundary: bytes) -> list[bytes]:
    """The contents of a multipart body (RFC 2046, 5.1)."""
    separator = b"\r\n--" + boundary
    parts = (b"\r\n" + body).split(separator, MAX_INSTANCES + 1)
    if separator in parts[-1]:
        raise ArchiveError(f"answered with more than {MAX_INSTANCES} instances")
    if not boundary or not parts[-1].startswith(b"--"):
        raise ArchiveError("the answer is no complete multipart message", transient=True)
    return [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]]


def _json(content: bytes) -> object:
    """Raises ArchiveError where that would take too much memory; ValueError, RecursionError."""
    if content.count(b"{") + content.count(b"[") > MAX_JSON_BRACKETS:
        raise ArchiveError("answered with more JSON than any study needs")
    return json.loads(content)


def _confirmation(content: bytes, path: Path) -> list[str]:
    """The warnings that come with one stored instance (PS3.18, 10.5.3). Raises ArchiveError unless it is stored."""
    uid = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID
    try:
        answer = Dataset.from_json(_json(content))
        failed = [item.get("FailureReason") for item in answer.get("FailedSOPSequence") or ()]
        stored = {item.ReferencedSOPInstanceUID: item for item in answer.get("ReferencedSOPSequence") or ()}
    except DICOM_ERRORS as error:
        raise ArchiveError(f"its answer cannot be read ({type(error).__name__})") from error
    if failed or uid not in stored:
        reasons = ", ".join(_reason(one) for one in failed) or "its answer does not name it"
        raise ArchiveError(reasons, transient=any(_reason(one).startswith("0xA7") for one in failed))
    warning = stored[uid].get("WarningReason")
    return [] if warning is None else [f"warning {_reason(warning)}"]


def _reason(code: object) -> str:
    if code is None:
        return "no reason given"
    if not (isinstance(code, int) and 0 <= code <= 0xFFFF):  # text, several, or anything else that JSON can say
        return "a reason that is none"
    digits = f"{code:04X}"
    words = next((words for prefix, words in REASONS.items() if digits.startswith(prefix)), "unknown")
    return f"0x{digits} {words}"


def _file_name(instance: Instance, study_uid: str, series_uid: str | None = None) -> str:
    """A name from the instance's own UID.

    Raises ArchiveError where that is none, as it will be part of a path, and where the instance is none of the study,
    and the series, that was asked for: it may be another patient's.
    """
    if instance.text("StudyInstanceUID") != study_uid:
        raise ArchiveError(f"it gave an instance of another study than {study_uid}")
    if series_uid is not None and instance.text("SeriesInstanceUID") != series_uid:
        raise ArchiveError(f"it gave an instance of another series than {series_uid}")
    uid = instance.text("SOPInstanceUID")
    if not UID_TEXT.fullmatch(uid):
        raise ArchiveError("it has an instance without a valid SOPInstanceUID")
    return f"{uid}.dcm"


def _plain(instance: dict[str, dict]) -> dict[str, dict]:
    """The attributes with plain values. Sequences and private ones choose no series, and double the time to read."""
    return {
        tag: element
        for tag, element in instance.items()
        if "Value" in element and element["vr"] != "SQ" and int(tag[:4], 16) % 2 == 0
    }


def _as_file(header: Dataset) -> bytes:
    """DICOM JSON is always in UTF-8, whatever the instance itself was written in (PS3.18, F.2)."""
    header.SpecificCharacterSet = "ISO_IR 192"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()
