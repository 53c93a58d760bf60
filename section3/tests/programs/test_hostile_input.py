"""Whatever stands in the files, a study ends in a result or a refusal: no crash, no hang, no flood, nothing elsewhere.

The fuzzer runs for $FUZZ_SECONDS, 10 if that is unset, and over 40 studies at least, from $FUZZ_SEED on; a failure
names the seed that repeats it.
"""

import itertools
import os
import random
import re
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from common.refusal import CODES, REFUSED, Refusal
from common.stopwatch import Stopwatch
from reading.dicom_series import list_files, read_study
from study.process_study import measure_study, process_single_study
from study.setup import Setup
from study.study_result import StudyResult

SECONDS, SEED = float(os.environ.get("FUZZ_SECONDS", 10)), int(os.environ.get("FUZZ_SEED", 0))
LEAST_STUDIES = 40
SECONDS_A_STUDY = 20  # of the processor: other programs on the machine do not count
MEMORY = 1 << 30

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


def _with_value(content: bytes, keyword: str, value: bytes) -> bytes:
    """The content of a file in explicit VR with another value of a short attribute, where it has that."""
    tag = tag_for_keyword(keyword)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + dictionary_VR(tag).encode()
    at = content.find(head, 132)
    if at < 0:
        return content
    size = struct.unpack("<H", content[at + 6 : at + 8])[0]
    return content[: at + 6] + struct.pack("<H", len(value)) + value + content[at + 8 + size :]


def _in_character_set(content: bytes, name: str) -> bytes:
    at = content.index(b"\x08\x00\x08\x00CS")
    return content[:at] + b"\x08\x00\x05\x00CS" + struct.pack("<H", len(name)) + name.encode() + content[at:]


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


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_text_in_headers_is_only_text(make_study, check, tmp_path, text):
    study = make_study(brain_series=0)
    for path in list_files(study):
        content = _in_character_set(path.read_bytes(), "ISO_IR 192")
        for keyword in ("PatientName", "PatientID", "StudyDescription", "AccessionNumber", "StudyID", "StudyDate"):
            content = _with_value(content, keyword, text.encode())
        path.write_bytes(content)
    assert check(study).status == "success"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"study", "out"}


# --- the fuzzer -------------------------------------------------------------------------------------------------------


def _mutated(content: bytes, choice: random.Random) -> bytes:
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
            data[at : at + 2] = choice.choice((b"SQ", b"UN", b"OB", b"DS", b"IS", b"US", b"FD", b"AT", b"PN", b"??"))
        elif choice.random() < 0.3:
            del data[at:]
    return bytes(data)


def _with_nasty_value(content: bytes, choice: random.Random) -> bytes:
    """The content with one of its values replaced by a nasty one, and a character set at random."""
    value = choice.choice(NASTY_TEXTS).encode()[: choice.choice((8, 64, 600))]
    if choice.random() < 0.3:
        value = struct.pack("<H", choice.choice((0, 1, 7, 255, 65535)))
    content = _with_value(content, choice.choice(KEYWORDS), value)
    return _in_character_set(content, choice.choice(CHARACTER_SETS))


@pytest.fixture
def base_studies(make_study, crop_files, to_enhanced) -> list[Path]:
    plain, enhanced, packed = (make_study(1, name, brain_series=0) for name in ("plain", "enhanced", "packed"))
    to_enhanced(crop_files(enhanced))
    for path in crop_files(packed):
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    return [plain, plain, enhanced, packed]


def test_fuzzed_files(base_studies, setup, tmp_path):
    originals = {study: {path: path.read_bytes() for path in list_files(study)} for study in base_studies}
    deadline = time.monotonic() + SECONDS
    outcomes: dict[str, int] = {}
    grown = memory_meter()
    for seed in itertools.count(SEED):
        if seed - SEED >= LEAST_STUDIES and time.monotonic() > deadline:
            break
        choice = random.Random(seed)
        study = choice.choice(base_studies)
        path = choice.choice(sorted(originals[study]))
        mutate = choice.choice((_mutated, _mutated, _with_nasty_value))
        everywhere = choice.random() < 0.2
        for each in sorted(originals[study]) if everywhere else [path]:
            each.write_bytes(mutate(originals[study][each], random.Random(seed)))
        started = time.thread_time()
        try:
            if choice.random() < 0.05:
                result = process_single_study(list_files(study), setup, tmp_path / "out")
                assert result.status != "failed", f"seed {seed}: {result.code} {result.reason}"
                code = result.code
            else:
                refusal = measure_study(read_study(list_files(study)), setup, Stopwatch()).refusal
                code = refusal and refusal.code
        except Refusal as refusal:
            code = refusal.code
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__} {error}") from error
        assert time.thread_time() - started < SECONDS_A_STUDY, f"seed {seed} takes too long"
        outcomes[code or "success"] = outcomes.get(code or "success", 0) + 1
        for each in sorted(originals[study]) if everywhere else [path]:
            each.write_bytes(originals[study][each])
    peak = grown()
    print(f"{seed - SEED} studies, {peak >> 20} MiB at most:", dict(sorted(outcomes.items())))
    assert peak < MEMORY
    assert len(outcomes) > 3
    assert {path.name for path in tmp_path.iterdir()} <= {"plain", "enhanced", "packed", "out"}
