"""Studies, and the answers of an archive, harmed at random: each must end in a number or in a reason for none.

    python section3/tests/fuzz.py [studies|answers] [--cases N] [--first SEED] [--seconds S]

Case by case a seed harms a study (its bytes, lengths, values, files), or what a DICOMweb server answers (status,
headers, chunks, JSON, multipart bodies and the files in them), and the product's own code has to bear it. A traceback,
a fault of ours, more than S seconds of the processor, memory beyond the limit of the programs, a word on stderr, or a
file where none belongs is a fault, told with its seed: --first SEED --cases 1 repeats it. Exit code 0: no fault; 1:
some. What stands below as `faults` errs on purpose, to see that all this is noticed.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

SECTION = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SECTION / name) for name in ("src", "calibration")] + [str(SECTION.parent / "data")]

import pydicom  # noqa: E402
from pydicom.datadict import dictionary_VR, tag_for_keyword  # noqa: E402
from pydicom.uid import RLELossless  # noqa: E402

from archive.dicomweb import DicomWebArchive  # noqa: E402
from archive.fetching import fetched_study  # noqa: E402
from archive.sending import LONGEST_PAUSE, ArchiveError, Patience, send_to_archive  # noqa: E402
from choosing.series_rules import load_rules  # noqa: E402
from common.refusal import CODES, REFUSED, Refusal  # noqa: E402
from common.start import limit_memory  # noqa: E402
from common.stopwatch import Stopwatch  # noqa: E402
from makers import CARD, make_blocks, make_enhanced, save_threshold_model  # noqa: E402
from phantom import write_study  # noqa: E402
from reading.dicom_series import list_files, read_study  # noqa: E402
from study.process_study import measure_study, process_single_study  # noqa: E402
from study.setup import SetupFiles  # noqa: E402

CASES = {"studies": 7000, "answers": 15_000}  # ten minutes of one processor
SECONDS = 20  # of the processor, for a case: other programs on the machine do not count
HANG = 600  # seconds without an answer: it waits for what never comes
MOST_FAULTS = 10

NASTY_TEXTS = (
    "$(touch owned); `reboot` | rm -rf / #",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "../../../../etc/passwd",
    "line\r\nbreak\x1b[2J\x00\x07",
    "%s%n{0}{{}}",
    "\ud55c\uad6d\u8a9e\u202e\u0640\U0001f9e0" * 20,
    "^" * 300 + "=" * 300,
    "9" * 400,
    "-0",
    "1e999",
    "nan",
    "\\" * 500,
    "",
)
NASTY_LENGTHS = (0, 1, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
KEYWORDS = (
    *("PatientName", "PatientID", "StudyDate", "SeriesDescription", "ImageType", "Modality", "SOPClassUID"),
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "ImagesInAcquisition"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PhotometricInterpretation", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
)
CHARACTER_SETS = ("ISO_IR 192", "ISO 2022 IR 149", "GB18030", "\\ISO 2022 IR 87", "NO_SUCH_SET", "ISO_IR 13")
KINDS = (b"SQ", b"UN", b"OB", b"DS", b"IS", b"US", b"FD", b"AT", b"PN", b"??")


class Fault(Exception):
    """A case ended as none may."""


# --- harm to a file ---------------------------------------------------------------------------------------------------


def mutated(content: bytes, choice: random.Random) -> bytes:
    """The content with some bytes, lengths or stretches of it changed; more often in the header than in the pixels."""
    data = bytearray(content)
    for _ in range(choice.choice((1, 1, 2, 5, 20))):
        if len(data) < 2:
            break
        at = choice.randrange(min(len(data), choice.choice((400, 1200, len(data)))))
        kind = choice.randrange(7)
        if kind == 0:
            data[at] = choice.randrange(256)
        elif kind == 1:
            data[at : at + 2] = struct.pack("<H", choice.choice(NASTY_LENGTHS) & 0xFFFF)
        elif kind == 2:
            data[at : at + 4] = struct.pack("<I", choice.choice(NASTY_LENGTHS))
        elif kind == 3:
            del data[at : at + choice.choice((1, 2, 8, 100))]
        elif kind == 4:
            other = choice.randrange(len(data))
            data[at:at] = data[other : other + choice.choice((2, 8, 100, 1000))]
        elif kind == 5:
            data[at : at + 2] = choice.choice(KINDS)
        elif choice.random() < 0.3:
            del data[at:]
    return bytes(data)


def with_value(content: bytes, keyword: str, value: bytes) -> bytes:
    """The content of a file in explicit VR with another value of a short attribute, where it has that."""
    tag = tag_for_keyword(keyword)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + dictionary_VR(tag).encode()
    at = content.find(head, 132)
    if at < 0:
        return content
    size = struct.unpack("<H", content[at + 6 : at + 8])[0]
    return content[: at + 6] + struct.pack("<H", len(value)) + value + content[at + 8 + size :]


def in_character_set(content: bytes, name: str) -> bytes:
    at = content.index(b"\x08\x00\x08\x00CS")
    return content[:at] + b"\x08\x00\x05\x00CS" + struct.pack("<H", len(name)) + name.encode() + content[at:]


def with_nasty_value(content: bytes, choice: random.Random) -> bytes:
    """The content with one of its values replaced by a nasty one, and a character set at random."""
    if b"\x08\x00\x08\x00CS" not in content:
        return content
    value = choice.choice(NASTY_TEXTS).encode()[: choice.choice((8, 64, 600))]
    if choice.random() < 0.3:
        value = struct.pack("<H", choice.choice((0, 1, 7, 255, 65535)))
    content = with_value(content, choice.choice(KEYWORDS), value)
    return in_character_set(content, choice.choice(CHARACTER_SETS))


def harmed(content: bytes, choice: random.Random) -> bytes:
    return choice.choice((mutated, mutated, with_nasty_value))(content, choice)


# --- studies ----------------------------------------------------------------------------------------------------------


class Studies:
    """harm(choice) works on one harmed study: plain, enhanced or compressed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.setup = _setup(folder)
        names = ("plain", "enhanced", "packed")
        studies = [write_study(folder / name, make_blocks(), seed=1, brain_series=0) for name in names]
        make_enhanced(list_files(studies[1]))
        for path in list_files(studies[2]):
            dataset = pydicom.dcmread(path)
            dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.save_as(path)
        self.originals = [{path: path.read_bytes() for path in list_files(study)} for study in studies]
        for study in studies:
            shutil.rmtree(study)

    def __call__(self, choice: random.Random) -> str:
        originals = self.originals[choice.choice((0, 0, 1, 2))]
        files = dict(originals)
        paths = sorted(files)
        touched = paths if choice.random() < 0.2 else [choice.choice(paths)]
        seed = choice.random()
        for path in touched:  # each in the same way
            files[path] = harmed(files[path], random.Random(seed))
        if choice.random() < 0.1:
            del files[choice.choice(sorted(files))]
        if choice.random() < 0.1:  # one more, which may differ from the one that it repeats
            path = choice.choice(paths)
            files[path.with_name("again.dcm")] = harmed(originals[path], choice)
        if not files:
            files = {paths[0]: b""}
        study = self.folder / "study"
        for number, path in enumerate(sorted(files)):
            (study / f"{number}").mkdir(parents=True)
            (study / f"{number}" / path.name).write_bytes(files[path])
        try:
            return self._outcome(list_files(study), choice)
        finally:
            shutil.rmtree(study)

    def _outcome(self, files: list[Path], choice: random.Random) -> str:
        setup = replace(self.setup, pseudonymous=choice.random() < 0.5)
        if choice.random() < 0.05:
            out = self.folder / "out"
            result = process_single_study(files, setup, out)
            shutil.rmtree(out)
            return _allowed(result.code, result.reason or "")
        return _measured(files, setup)


def _setup(folder: Path):
    return SetupFiles(save_threshold_model(folder / "model.onnx", CARD), load_rules()).load()


def _measured(files: list[Path], setup) -> str:
    """Raises Fault."""
    try:
        refusal = measure_study(read_study(files), setup, Stopwatch()).refusal
    except Refusal as error:
        refusal = error
    return _allowed(refusal and refusal.code, refusal.reason if refusal else "")


def _allowed(code: str | None, reason: str) -> str:
    """Raises Fault where the code says that we are to blame."""
    if code is not None and CODES[code].status != REFUSED:
        raise Fault(f"{code}: {reason}")
    if not reason.isprintable():
        raise Fault(f"{code}: {reason!r} is no printable line")
    return code or "success"


# --- answers of an archive --------------------------------------------------------------------------------------------

Answer = tuple[bytes, list[bytes], bytes]  # the status line, the headers, the body

NASTY_JSON = (
    *(None, True, -1, 0, 1e308, 0xA700, 10**30, "", "x", "9" * 400, [], [[]], {}, [None], ["1.2"], [7], {"vr": "SQ"}),
    *({"vr": "PN", "Value": [{"Alphabetic": 7}]}, {"vr": "PN", "Value": ["x"]}, {"vr": "SQ", "Value": [7]}),
    *({"vr": "UI", "Value": [["1.2.3"]]}, {"vr": "DS", "Value": ["nan"]}, {"vr": "OB", "InlineBinary": "%%%"}),
    *({"vr": "OW", "BulkDataURI": "http://127.0.0.1:1/"}, {"vr": "AT", "Value": ["zzzz"]}, {"vr": 7, "Value": 7}),
    *({"vr": "US", "Value": [0xA700, 0xB000]}, {"vr": "US", "Value": ["0xB000"]}, {"vr": "LO", "Value": ["\ud800"]}),
    {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}] * 3},
)
NASTY_TAGS = ("", "x", "00100010", "0020000D", "7FE00010", "FFFEE000", "00020010", "00081198", "00081199", "9" * 50)
NASTY_HEADERS = (
    *(b"Content-Length: -1", b"Content-Length: 0", b"Content-Length: 99999999999999999999", b"Content-Length: x"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: x", b"Connection: x"),
    *(b"Content-Type: text/html", b"Content-Type:", b"Content-Type: multipart/related", b"Content-Type: /;;=;\x00"),
    *(b"Content-Type: multipart/related; boundary=", b'Content-Type: multipart/related; boundary="\xff"'),
    *(b"Content-Type: multipart/related; boundary*=x; boundary*1=y", b"Content-Type: x; boundary*=idna''%FF"),
    *(b"Content-Type: multipart/related; boundary*" + b"9" * 5000 + b"=x", b"Content-Type: application/dicom"),
    *(b"Retry-After: 99999", b"Retry-After: -1", b"Retry-After: \xb2", b"Retry-After: Wed, 99 Xxx 99999 99:99:99 GMT"),
    *(b"Retry-After: Mon, 01 Jan 0001 00:00:00 +2359", b"Retry-After: nan", b"Retry-After: 1e9", b"Retry-After: 3"),
    *(b"Location: file:///etc/passwd", b"X: " + b"y" * 70_000, b" folded", b":", b"\x00", b"no colon", b"\xff: \xff"),
    *(b"Content-Encoding: gzip", b"Content-Transfer-Encoding: base64", b"Set-Cookie: a=b", b"Upgrade: h2c"),
)
NASTY_STATUS = (
    *(b"HTTP/1.1 200", b"HTTP/1.1 100 Continue", b"HTTP/1.1 -1 x", b"HTTP/1.1 99999 x", b"HTTP/0.9 200 OK", b"x", b""),
    *(b"HTTP/2 200", b"HTTP/1.1 204 x", b"HTTP/1.1 206 x", b"HTTP/1.1 301 x", b"HTTP/1.1 404 x", b"HTTP/1.1 409 x"),
    *(
        b"HTTP/1.1 429 x",
        b"HTTP/1.1 503 \xff\x1b[2J",
        b"HTTP/1.1 202 x",
        b"ICY 200 OK",
        b"HTTP/1.1 200 " + b"x" * 70_000,
    ),
)
NASTY_SIZES = (
    b"-1",
    b"-5",
    b"",
    b"x",
    b"FFFFFFFFFFFFFFFFFFFF",
    b"7fffffff",
    b"0",
    b"1_0",
    b"+1",
    b"1;" + b"x" * 70_000,
)
PATH = re.compile(r"/dicom-web/studies(/[0-9.]+(/metadata|/series/[0-9.]+))?")
BOUNDARY = b"b 1"
MULTIPART = [b'Content-Type: multipart/related; type="application/dicom"; boundary="' + BOUNDARY + b'"']
OK = b"HTTP/1.1 200 OK"


class Answers:
    """harm(choice) fetches a study from, or sends files to, a server on this machine of which an answer is harmed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.setup = _setup(folder)
        study = write_study(folder / "study", make_blocks()[:10, :12, :6], seed=1, brain_series=0)
        self.files = list_files(study)
        self.contents = [path.read_bytes() for path in self.files]
        headers = [pydicom.dcmread(path) for path in self.files]
        self.metadata = [one.to_json_dict(1, lambda _: "http://127.0.0.1:1/bulk") for one in headers]
        self.study_uid = headers[0].StudyInstanceUID
        self.to_send = self.files[:1]
        self.confirmation = _confirmation(headers[0].SOPInstanceUID)
        self.queue: list[bytes] = []
        self.paths: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection, suppress(OSError, IndexError, ValueError), connection.makefile("rb") as request:
                self.paths.append(request.readline().split()[1].decode())
                length = 0
                while (line := request.readline()).strip():
                    length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length:") else length
                request.read(length)
                connection.sendall(self.queue.pop(0) if len(self.queue) > 1 else self.queue[0])

    def __call__(self, choice: random.Random) -> str:
        self.paths, pauses = [], []
        host = f"http://127.0.0.1:{self.listener.getsockname()[1]}/dicom-web"
        archive = DicomWebArchive(host, timeout=2 * HANG, patience=Patience(sleep=pauses.append))
        sends = choice.random() < 0.4
        first, parts = (self.confirmation, self.contents[:1]) if sends else (self.metadata, self.contents)
        at = choice.randrange(2)
        answers = [_json_answer(first, choice if at == 0 else None), _file_answer(parts, choice if at == 1 else None)]
        self.queue = [_framed(answer, choice if at == number else None) for number, answer in enumerate(answers)]
        outcome = self._sent(archive) if sends else self._fetched(archive, choice)
        if strange := [path for path in self.paths if not PATH.fullmatch(path)]:
            raise Fault(f"it asks for {strange[0]}")
        if any(not 0 < pause <= LONGEST_PAUSE for pause in pauses):
            raise Fault(f"it waits {pauses}")
        return outcome

    def _sent(self, archive: DicomWebArchive) -> str:
        outcome = send_to_archive(self.to_send, archive)
        if not outcome.detail.isprintable():
            raise Fault(f"{outcome.detail!r} is no printable line")
        return f"sent {outcome.sent}, stored {outcome.stored}"

    def _fetched(self, archive: DicomWebArchive, choice: random.Random) -> str:
        try:
            with fetched_study(archive, self.study_uid, load_rules()) as files:
                return _measured(files, self.setup) if choice.random() < 0.5 else "fetched"
        except ArchiveError as error:
            if not str(error).isprintable():
                raise Fault(f"{str(error)!r} is no printable line") from error
            return "not fetched"


def _confirmation(uid: str) -> dict:
    item = {"00081150": {"vr": "UI", "Value": ["1.2"]}, "00081155": {"vr": "UI", "Value": [uid]}}
    warning = {"00081196": {"vr": "US", "Value": [0xB000]}}
    return {"00081198": {"vr": "SQ", "Value": []}, "00081199": {"vr": "SQ", "Value": [{**item, **warning}]}}


def _json_answer(content: list | dict, choice: random.Random | None) -> Answer:
    if choice and choice.random() < 0.7:
        content = copy.deepcopy(content)
        for _ in range(choice.choice((1, 1, 2, 5))):
            content = _harmed_json(content, choice)
    body = json.dumps(content).encode()
    if choice and choice.random() < 0.1:
        body = mutated(body, choice)
    if choice and choice.random() < 0.01:
        body = choice.choice((b"[", b"[[", b'{"x":', b"[{},", b'["' + b"x" * 99, b"1")) * choice.choice((99, 99_999))
    return OK, [b"Content-Type: application/dicom+json"], body


def _harmed_json(content: object, choice: random.Random) -> object:
    """The content with something in it replaced, dropped, doubled or renamed."""
    places = list(_places(content))
    if not places or choice.random() < 0.02:
        return copy.deepcopy(choice.choice(NASTY_JSON))
    parent, key = choice.choice(places)
    kind = choice.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[choice.choice(NASTY_TAGS)] = parent.pop(key)
    elif kind == 2 and isinstance(parent, list):
        parent += [copy.deepcopy(parent[key]) for _ in range(choice.choice((1, 2, 50)))]
    elif kind == 3:
        other, name = choice.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            parent[key] = copy.deepcopy(other[name])
    else:
        parent[key] = copy.deepcopy(choice.choice((*NASTY_JSON, *NASTY_TEXTS)))
    return content


def _places(content: object) -> Iterator[tuple[object, object]]:
    """All values in it, as what holds them and the key there."""
    if isinstance(content, dict | list):
        for key, value in list(content.items() if isinstance(content, dict) else enumerate(content)):
            yield content, key
            yield from _places(value)


def _file_answer(parts: list[bytes], choice: random.Random | None) -> Answer:
    parts, headers = list(parts), list(MULTIPART)
    part_headers = b"Content-Type: application/dicom\r\n\r\n"
    end = b"\r\n--" + BOUNDARY + b"--"
    if choice:
        if choice.random() < 0.6:
            at = choice.randrange(len(parts))
            parts[at] = harmed(parts[at], choice)
        if choice.random() < 0.2:
            parts += [choice.choice((*parts, b"", b"\r\n--" + BOUNDARY))] * choice.choice((1, 3, 200))
        if choice.random() < 0.1:
            del parts[choice.randrange(len(parts))]
        part_headers = part_headers if choice.random() < 0.9 else choice.choice((b"", b"\r\n\r\n", b"X" * 9999))
        end = end if choice.random() < 0.9 else choice.choice((b"", b"\r\n--" + BOUNDARY, b"--", end * 3))
    body = b"".join(b"\r\n--" + BOUNDARY + b"\r\n" + part_headers + part for part in parts) + end
    if choice and choice.random() < 0.1:
        body = mutated(body, choice)
    return OK, headers, body


def _framed(answer: Answer, choice: random.Random | None) -> bytes:
    """The answer as it goes over the wire: by its length, in chunks, or to the end of the connection."""
    status, headers, body = answer
    kind = choice.randrange(3) if choice else 0
    if kind == 0:
        headers.append(b"Content-Length: %d" % len(body))
    elif kind == 1:
        headers.append(b"Transfer-Encoding: chunked")
        body = _chunked(body, choice)
    if choice and choice.random() < 0.3:
        for _ in range(choice.choice((1, 1, 2, 99))):
            headers.insert(choice.randrange(len(headers) + 1), choice.choice(NASTY_HEADERS))
    if choice and choice.random() < 0.15:
        status = choice.choice(NASTY_STATUS)
    raw = b"\r\n".join([status, *headers, b"", b""]) + body
    if choice and choice.random() < 0.05:
        raw = raw[: choice.randrange(len(raw))]
    if choice and choice.random() < 0.05:
        raw = mutated(raw, choice)
    if choice and choice.random() < 0.02:
        raw = choice.choice((b"HTTP/1.1 100 x\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"\r\n")) * 99 + raw
    return raw


def _chunked(body: bytes, choice: random.Random) -> bytes:
    size = choice.choice((1000, 4096, len(body) or 1))
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    lines = [(b"%x" % len(chunk), chunk) for chunk in [*chunks, b""]]
    if choice.random() < 0.5:
        at = choice.randrange(len(lines))
        lines[at] = choice.choice(NASTY_SIZES), lines[at][1]
    if choice.random() < 0.2:
        del lines[choice.randrange(len(lines))]
    return b"".join(size + b"\r\n" + chunk + b"\r\n" for size, chunk in lines)


# --- what the fuzzer itself must notice -------------------------------------------------------------------------------


class Faults:
    """Errs in a way of its own with each seed: the fuzzer must tell all of these but the first."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, choice: random.Random) -> str:
        seed = choice.randrange(1 << 30)
        number = next(one for one in range(len(FAULTS) + 1) if random.Random(one).randrange(1 << 30) == seed)
        return FAULTS[number](self.folder) if number < len(FAULTS) else "success"


def _raise(_: Path) -> str:
    raise KeyError("a traceback")


def _spin(_: Path) -> str:
    while True:
        pass


def _fill_memory(_: Path) -> str:
    return str(len(bytearray(2 << 30)))


def _die(_: Path) -> str:
    return str(os.kill(os.getpid(), signal.SIGKILL))


def _speak(_: Path) -> str:
    print("a word", file=sys.stderr)
    return "success"


def _litter(folder: Path) -> str:
    (folder / "owned").touch()
    return "success"


FAULTS = (lambda _: "success", _raise, _spin, _fill_memory, _die, _speak, _litter)

TARGETS: dict[str, Callable] = {"studies": Studies, "answers": Answers, "faults": Faults}


# --- running them -----------------------------------------------------------------------------------------------------


def _work(connection: Connection, target: str, seeds: range, seconds: int, folder: Path) -> None:
    """In a process of its own: tell of each seed its outcome, or its fault."""
    limit_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = folder.with_suffix(".log")
    os.dup2(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND), 2)
    tempfile.tempdir = str(folder / "temporary")
    (folder / "temporary").mkdir(parents=True)
    harm = TARGETS[target](folder)
    before = _names(folder)
    connection.send(None)
    for seed in seeds:
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, most))
        outcome, fault = None, None
        try:
            outcome = harm(random.Random(seed))
        except Fault as error:
            fault = str(error)
        except BaseException as error:  # noqa: BLE001  that is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} {error}, in {Path(place.filename).name}, line {place.lineno}"
        if not fault and (said := log.read_text()):
            fault = f"it wrote to stderr: {said.strip().splitlines()[-1]}"
        if not fault and (after := _names(folder)) != before:
            fault = f"it left {sorted(after ^ before)[0]}"
        connection.send((seed, outcome, fault))
        if fault:  # a new process goes on: this one may be in disorder
            return


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in [*folder.glob("*"), *folder.glob("temporary/*")]}


def fuzz(target: str, seeds: range, seconds: int) -> tuple[Counter, list[str]]:
    """What became of the cases, and the faults."""
    outcomes: Counter = Counter()
    faults: list[str] = []
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    while seeds and len(faults) < MOST_FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            connection, other = context.Pipe()
            worker = context.Process(target=_work, args=(other, target, seeds, seconds, Path(folder) / target))
            worker.start()
            other.close()
            begun = False
            while seeds:
                try:
                    if not connection.poll(HANG):
                        worker.kill()
                        seeds = _blame(seeds, faults, f"it waits for more than {HANG} s")
                        break
                    told = connection.recv()
                except EOFError:
                    worker.join()
                    if not begun:
                        raise RuntimeError(f"a worker has died at its start: {_log_of(folder, target)}") from None
                    seeds = _blame(seeds, faults, _death(worker.exitcode, seconds))
                    break
                if told is None:
                    begun = True
                    continue
                seed, outcome, fault = told
                seeds = seeds[1:]
                if fault:
                    faults.append(f"seed {seed}: {fault}")
                    break
                outcomes[outcome] += 1
                _tell_progress(target, outcomes.total(), len(seeds), started)
            worker.join()
            connection.close()
    outcomes["fault"] = len(faults)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return +outcomes, faults


def _blame(seeds: range, faults: list[str], fault: str) -> range:
    faults.append(f"seed {seeds[0]}: {fault}")
    return seeds[1:]


def _log_of(folder: str, target: str) -> str:
    log = (Path(folder) / target).with_suffix(".log")
    return log.read_text()[-1000:] if log.exists() else "it says nothing"


def _death(code: int | None, seconds: int) -> str:
    if code == -signal.SIGXCPU:
        return f"it takes more than {seconds} s of the processor"
    name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
    return f"the process has ended by {name}"


def _tell_progress(target: str, done: int, left: int, started: float) -> None:
    if sys.stderr.isatty():
        rate = done / (time.monotonic() - started)
        print(f"\r{target}: {done} tried, {left / rate:.0f} s left ", end="", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Harm studies, and what archives answer, at random.")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="default: studies and answers")
    parser.add_argument("--cases", type=int, metavar="N", help=f"of each; default: {CASES}")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first case; default: %(default)s")
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="S", help="default: %(default)s")
    args = parser.parse_args(argv)
    found = False
    for target in args.targets or CASES:
        cases = args.cases or CASES.get(target, len(FAULTS))
        outcomes, faults = fuzz(target, range(args.first, args.first + cases), args.seconds)
        print(f"{outcomes.total()} {target} tried: " + ", ".join(f"{n} {name}" for name, n in outcomes.most_common()))
        for fault in faults:
            print(f"{target}, {fault}")
        found = found or bool(faults)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
