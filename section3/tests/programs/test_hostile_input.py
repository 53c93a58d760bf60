"""Whatever stands in the files, a study ends in a result or a refusal: no crash, no hang, no flood, nothing elsewhere.

What harm at random does is found out by fuzz.py, of which `make fuzz` makes a long run and this a short one.
"""

import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

import fuzz
from common.refusal import CODES, REFUSED
from reading.dicom_series import list_files
from study.process_study import process_single_study
from study.setup import Setup
from study.study_result import StudyResult

pytestmark = pytest.mark.slow

SECONDS_A_STUDY = 20  # of the processor: other programs on the machine do not count
MEMORY = 1 << 30


def memory_meter() -> Callable[[], int]:
    """A function that tells by how many bytes this process has grown at most since now, whatever it took before."""

    def read(key: str) -> int:
        return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest use so far
    before = read("VmRSS")
    return lambda: read("VmHWM") - before


@pytest.fixture
def setup(threshold_model, setup_of) -> Setup:
    return setup_of(threshold_model)


@pytest.fixture
def check(setup, tmp_path):
    """check(study) runs the study and returns its result, which must be a number or a refusal by a known code."""

    def run(study: Path) -> StudyResult:
        started = time.thread_time()
        result = process_single_study(list_files(study), setup, tmp_path / "out")
        assert result.status in ("success", REFUSED), (result.code, result.reason)
        assert result.code is None or CODES[result.code].status == REFUSED
        assert time.thread_time() - started < SECONDS_A_STUDY
        return result

    return run


# --- what the fuzzer would hardly come upon ---------------------------------------------------------------------------


def _insert(path: Path, elements: bytes) -> None:
    """Put encoded elements of group 0009 where they belong: after group 0008."""
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(content[:at] + elements + content[at:])


def _nested_sequences(path: Path) -> None:
    _insert(path, (b"\x09\x00\x10\x10SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 20_000)


def _million_elements(path: Path) -> None:
    _insert(path, b"".join(struct.pack("<HH2sH", 9, tag, b"LO", 0) for tag in range(65536)) * 10)


def _endless_value(path: Path) -> None:
    _insert(path, b"\x09\x00\x10\x10OB\x00\x00" + struct.pack("<I", 40 << 20) + bytes(40 << 20))


def _endless_numbers(path: Path) -> None:
    numbers = b"1\\" * (6 << 20)
    content = path.read_bytes()
    at = content.index(b"\x20\x00\x32\x00DS")
    size = struct.unpack("<H", content[at + 6 : at + 8])[0]
    element = b"\x20\x00\x32\x00UT\x00\x00" + struct.pack("<I", len(numbers)) + numbers
    path.write_bytes(content[:at] + element + content[at + 8 + size :])


def _deflate_bomb(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    content = path.read_bytes()
    at = 144 + struct.unpack("<I", content[140:144])[0]
    plain = zlib.decompress(content[at:], -zlib.MAX_WBITS)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = [deflate.compress(bytes(1 << 20)) for _ in range(300)]
    path.write_bytes(content[:at] + deflate.compress(plain) + b"".join(zeros) + deflate.flush())


def _run_length_bomb(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    bomb = struct.pack("<16I", 2, 64, 64 + (16 << 20), *[0] * 13) + b"\x81\x00" * (16 << 20)
    dataset.PixelData = pydicom.encaps.encapsulate([bomb])
    dataset.save_as(path)


def _jpeg_bomb(path: Path) -> None:
    """A frame of JPEG-LS that states 60000 x 60000 pixels."""
    dataset = pydicom.dcmread(path)
    start = b"\xff\xd8\xff\xf7\x00\x0b\x10\xea\x60\xea\x60\x01\x01\x11\x00"
    dataset.PixelData = pydicom.encaps.encapsulate([start + bytes(200) + b"\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.save_as(path)


def _absurd_size(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(path)


def _absurd_frames(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = "2147483647"
    dataset.save_as(path)


@pytest.mark.parametrize(
    "harm",
    [
        _nested_sequences,
        _million_elements,
        _endless_value,
        _endless_numbers,
        _deflate_bomb,
        _run_length_bomb,
        _jpeg_bomb,
        _absurd_size,
        _absurd_frames,
    ],
)
def test_a_bomb_is_a_refusal_within_the_limits(make_study, crop_files, check, harm):
    study = make_study(brain_series=0)
    harm(crop_files(study)[3])
    grown = memory_meter()
    assert check(study).status == "refused"
    assert grown() < MEMORY / 2


@pytest.mark.parametrize("harm", [_nested_sequences, _million_elements, _endless_value, _deflate_bomb])
def test_a_bomb_in_another_series_costs_nothing_but_itself(make_study, crop_files, check, harm):
    study = make_study(brain_series=1)
    harm(next(path for path in list_files(study) if path not in crop_files(study)))
    assert check(study).status == "success"


def test_thousands_of_files(make_study, check):
    study = make_study(brain_series=0)
    for number in range(1500):
        (study / f"{number}.dcm").write_bytes(bytes(128) + b"DICM" + b"x" * (number % 50))
    assert check(study).files["found"] > 1500


def test_names_of_files_are_only_names(make_study, crop_files, check):
    study = make_study(brain_series=0)
    names = [b"$(reboot).dcm", b"-rf", b"a\nb\x1b[2J", b"<b>&amp;", b"\xff\xfe\x80", b"'; DROP TABLE", b"%s"]
    for path, name in zip(crop_files(study), names, strict=False):
        path.rename(Path(os.fsdecode(os.path.join(os.fsencode(path.parent), name))))  # noqa: PTH118
    assert check(study).status == "success"
    crop_files(study)[3].write_bytes(b"DICM".rjust(132, b"\0") + b"rubbish")
    reason = check(study).reason
    assert reason.isprintable()


@pytest.mark.parametrize("text", fuzz.NASTY_TEXTS)
def test_text_in_headers_is_only_text(make_study, check, tmp_path, text):
    study = make_study(brain_series=0)
    for path in list_files(study):
        content = fuzz.in_character_set(path.read_bytes(), "ISO_IR 192")
        for keyword in ("PatientName", "PatientID", "StudyDescription", "AccessionNumber", "StudyID", "StudyDate"):
            content = fuzz.with_value(content, keyword, text.encode())
        path.write_bytes(content)
    assert check(study).status == "success"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"study", "out"}


# --- the fuzzer -------------------------------------------------------------------------------------------------------


def _fuzz(*arguments: str) -> tuple[int, list[str]]:
    """The exit code and the lines of fuzz.py."""
    command = [sys.executable, fuzz.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stderr == ""  # nor a progress line, as this is no terminal
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(("target", "cases", "outcomes"), [("studies", 150, 8), ("answers", 300, 6)])
def test_whatever_is_harmed_ends_in_a_number_or_a_reason(target, cases, outcomes):
    code, lines = _fuzz(target, "--cases", str(cases))
    assert (code, len(lines)) == (0, 1), "\n".join(lines)
    told, _, became = lines[0].partition(": ")
    assert told == f"{cases} {target} tried"
    assert len(became.split(", ")) >= outcomes


def test_the_fuzzer_notices_what_it_looks_for_and_goes_on():
    code, lines = _fuzz("faults", "--seconds", "1", "--cases", "8")
    assert code == 1
    assert lines[0] == "8 faults tried: 6 fault, 2 success"
    told = ("KeyError", "1 s of the processor", "MemoryError", "SIGKILL", "stderr: a word", "left owned")
    for number, (line, words) in enumerate(zip(lines[1:], told, strict=True), start=1):
        assert line.startswith(f"faults, seed {number}: ") and words in line
    assert _fuzz("faults", "--first", "1", "--cases", "1")[1][1] == lines[1]
