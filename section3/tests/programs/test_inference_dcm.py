"""One study in, a page and a result out; or one line that says why not."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

import inference_dcm
from checks.quality_limits import LIMITS_FILE
from common.output_files import OUTPUTS
from common.refusal import CODES
from inference_dcm import main
from phantom import make_phantom, write_study
from reading.dicom_series import list_files
from servers import LOCALHOST

pytestmark = pytest.mark.slow

ANTERIOR_MM3, POSTERIOR_MM3 = 4 * 5 * 6, 4 * 7 * 6  # of the blocks
REFUSAL_FILES = {"report.dcm", "report.png"}


@pytest.fixture
def run(tmp_path, threshold_model, capfd):
    """run(study, *options) -> exit code, stdout, stderr, result.json or None; the results go to tmp_path/out."""

    def run_main(study: Path, *options: str):
        arguments = [str(study), "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model), *options]
        code = main(arguments)
        out, err = capfd.readouterr()
        path = tmp_path / "out" / "result.json"
        return code, out, err, json.loads(path.read_text()) if path.exists() else None

    return run_main


def _digests(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in list_files(folder)}


def test_a_study_becomes_a_page_and_a_result(make_study, crop_files, run, tmp_path, threshold_model):
    study = make_study(brain_series=2)
    before = _digests(study)
    code, out, err, result = run(study)
    assert (code, err) == (0, "")
    for number in (ANTERIOR_MM3, POSTERIOR_MM3, ANTERIOR_MM3 + POSTERIOR_MM3):
        assert f" {number} mm3" in out
    assert str(tmp_path / "out" / "report.png") in out and "report.dcm" in out  # for eyes, and for the archive

    header = pydicom.dcmread(crop_files(study)[0])
    assert (result["status"], result["code"], result["again"]) == ("success", None, None)
    assert result["volumes_mm3"] == {
        "anterior": ANTERIOR_MM3,
        "posterior": POSTERIOR_MM3,
        "total": ANTERIOR_MM3 + POSTERIOR_MM3,
    }
    assert result["study_instance_uid"] == header.StudyInstanceUID
    assert result["series_instance_uid"] == header.SeriesInstanceUID
    assert result["model"]["sha256"] == hashlib.sha256(threshold_model.read_bytes()).hexdigest()
    assert [one["accepted"] for one in result["series_considered"]].count(True) == 1
    assert len(result["series_considered"]) == 3
    assert all(result["seconds"][step] >= 0 for step in ("read", "volume", "model", "page", "objects"))
    assert result["sent"] is None

    assert {path.name for path in (tmp_path / "out").iterdir()} == {*OUTPUTS, "result.json"}
    report = pydicom.dcmread(tmp_path / "out" / "report.dcm")
    outputs = {output["file"]: output for output in result["outputs"]}
    assert outputs["report.dcm"]["sop_instance_uid"] == report.SOPInstanceUID
    digests = {str(path.relative_to(tmp_path / "out")): digest for path, digest in _digests(tmp_path / "out").items()}
    del digests["result.json"]
    assert {name: output["sha256"] for name, output in outputs.items()} == digests
    assert len(list((tmp_path / "out" / "overlay").iterdir())) == len(crop_files(study))
    assert report.StudyInstanceUID == header.StudyInstanceUID
    assert report.StudyTime == "112200"  # of the study; its HippoCrop says otherwise
    assert report.PatientID == header.PatientID
    with Image.open(tmp_path / "out" / "report.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), report.pixel_array)
    assert _digests(study) == before


# --- bad input --------------------------------------------------------------------------------------------------------


def _no_folder(study, **_):
    return [study / "nowhere"]


def _a_file(study, **_):
    return [list_files(study)[0]]


def _empty_folder(study, **_):
    (study.parent / "empty").mkdir()
    return [study.parent / "empty"]


def _text_files(study, **_):
    folder = study.parent / "texts"
    folder.mkdir()
    (folder / "slice1.dcm").write_text("nothing\n")
    (folder / "report.txt").write_text("nothing either\n" * 100)
    return [folder]


def _cut_before(tag):
    """Truncate the lowest slice where the element of that tag begins."""

    def cut(study, crop_files, **_):
        path = crop_files(study)[0]
        content = path.read_bytes()
        path.write_bytes(content[: content.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)])
        return [study]

    return cut


def _cut_half_a_picture(study, crop_files, **_):
    path = crop_files(study)[0]
    path.write_bytes(path.read_bytes()[:-500])
    return [study]


def _two_crops(study, add_series, **_):
    add_series(study)
    return [study]


def _two_studies(study, make_study, **_):
    make_study(2, "study/other")
    return [study]


def _no_crop(study, crop_files, **_):
    for path in crop_files(study):
        path.unlink()
    return [study]


def _nothing_to_see(study, crop_files, edit, **_):
    edit(crop_files(study), lambda dataset: setattr(dataset, "PixelData", b"\x2c\x01" * (len(dataset.PixelData) // 2)))
    return [study]


def _a_gap(study, crop_files, **_):
    crop_files(study)[5].unlink()
    return [study]


def _wrong_series(study, **_):
    return [study, "--series", "1.2.3"]


def _text_as_model(study, **_):
    path = study.parent / "model.onnx"
    path.write_text("no model\n")
    return [study, "--model-path", str(path)]


def _no_model(study, **_):
    return [study, "--model-path", str(study / "model.onnx")]


def _half_of_the_limits(study, threshold_model, **_):
    folder = study.parent / "model"
    folder.mkdir()
    shutil.copy(threshold_model, folder / "model.onnx")
    (folder / LIMITS_FILE).touch()
    return [study, "--model-path", str(folder / "model.onnx")]


def _no_rules(study, **_):
    return [study, "--rules", str(study / "rules.json")]


@pytest.mark.parametrize(
    ("break_it", "exit_code", "code", "page"),
    [
        (_no_folder, 2, None, False),
        (_a_file, 2, None, False),
        (_empty_folder, 1, "no-dicom", False),
        (_text_files, 1, "no-dicom", False),
        (_cut_before(0x00020010), 1, "unreadable-dicom", True),
        (_cut_before(0x0020000D), 1, "unreadable-dicom", True),
        (_cut_before(0x00200032), 1, "geometry-missing", True),
        (_cut_before(0x7FE00010), 1, "unreadable-pixels", True),
        (_cut_half_a_picture, 1, "unreadable-pixels", True),
        (_two_crops, 1, "several-hippocrop-series", True),
        (_two_studies, 1, "several-studies", False),
        (_no_crop, 1, "no-hippocrop-series", True),
        (_nothing_to_see, 1, "nothing-found", True),
        (_a_gap, 1, "geometry-gap", True),
        (_wrong_series, 2, None, False),
        (_text_as_model, 1, "bad-model", False),
        (_no_model, 1, "bad-model", False),
        (_half_of_the_limits, 1, "bad-model", False),
        (_no_rules, 1, "bad-rules", False),
    ],
)
def test_bad_input_gets_one_line_and_at_most_a_page_that_says_why(
    make_study, add_series, crop_files, edit, run, tmp_path, threshold_model, break_it, exit_code, code, page
):
    study = make_study()
    run(study)  # the results of an earlier run must not stay beside a refusal
    makers = {"make_study": make_study, "add_series": add_series, "crop_files": crop_files, "edit": edit}
    arguments = break_it(study, threshold_model=threshold_model, **makers)
    before = _digests(study)
    found_code, out, err, result = run(*arguments)

    assert found_code == exit_code
    assert out == ""
    assert err.count("\n") == 1
    assert _digests(study) == before
    files = {path.name for path in (tmp_path / "out").iterdir()}
    if code is None:
        assert files == {*OUTPUTS, "result.json"}  # the usage was wrong, nothing was done
    else:
        assert err.endswith(f"[{code}]\n")
        assert files == {"result.json", *(REFUSAL_FILES if page else [])}
        assert (result["status"], result["code"], result["again"]) == (CODES[code].status, code, CODES[code].again)
        assert result["status"] == ("failed" if code.startswith("bad-") else "refused")
        assert err == f"{result['reason']} [{code}]\n"
        assert result["volumes_mm3"] is None
        assert {output["file"] for output in result["outputs"]} == files - {"result.json"}


def test_a_series_that_is_not_there_is_told_with_those_that_are(make_study, crop_files, edit, run, tmp_path):
    study = make_study()
    edit(crop_files(study), lambda dataset: setattr(dataset, "PatientName", "HippoCrop"))  # a description may tell it
    code, out, err, result = run(study, "--series", "1.2.3")
    assert (code, out, result) == (2, "", None)
    assert not (tmp_path / "out").exists()
    series = {pydicom.dcmread(path).SeriesInstanceUID for path in list_files(study)}
    assert len(series) == 2 and all(uid in err for uid in series)
    assert err.startswith("no series 1.2.3 in the study") and err.count("\n") == 1
    assert "HippoCrop" not in err


WEB = ["--dicomweb", "http://127.0.0.1:1"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["one", "two"],
        ["study", "--series"],
        ["study", "--orthanc-port", "x"],
        ["study", "--dicomweb", "pacs"],
        ["study", "--dicomweb", "http://user:password@pacs"],
        ["study", "--send-to-orthanc", *WEB],
        ["study", "--study", "1.2.3", *WEB],
        ["study", "--send-back", *WEB],
        ["--study", "1.2.3"],
        ["--study", "../1.2.3", *WEB],
        WEB,
    ],
)
def test_wrong_usage_exits_2(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("broken", [False, True])
def test_no_identity_on_the_terminal_or_in_the_result(make_study, crop_files, edit, run, broken):
    study = make_study()
    edit(list_files(study), lambda dataset: dataset.update({"PatientName": "Secret^Name", "PatientID": "SECRET-1"}))
    if broken:
        edit(crop_files(study)[:1], lambda dataset: setattr(dataset, "PixelSpacing", [1, 2]))
    code, out, err, result = run(study)
    assert code == int(broken)
    assert "secret" not in (out + err + json.dumps(result)).lower()


# --- where it writes --------------------------------------------------------------------------------------------------


def test_an_output_folder_that_cannot_be_written_is_a_failure(make_study, run, tmp_path):
    (tmp_path / "out").write_text("a file stands where the folder should be")
    code, out, err, result = run(make_study())
    assert (code, out) == (1, "")
    assert err.endswith("[cannot-write]\n")
    assert err.count("\n") == 1
    assert result is None


@pytest.fixture
def run_on_disk(mount_small_disk, run, tmp_path):
    """run_on_disk(free, study, *options) -> as `run`, with its results on a disk that has so many bytes free."""
    disk = mount_small_disk(64 << 20)
    (tmp_path / "out").symlink_to(disk / "out")

    def run_main(free: int, study: Path, *options: str):
        (disk / "out").mkdir(exist_ok=True)
        state = os.statvfs(disk)
        with (disk / "filler").open("wb") as filler:
            filler.write(b"\0" * (state.f_bavail * state.f_frsize - free))
        ended = run(study, *options)
        (disk / "filler").unlink()
        return ended

    return run_main


WRITTEN = (
    "segmentation.dcm",
    "measurements.dcm",
    "overlay/009.dcm",
    "report.png",
    "report.dcm",
    "report_series.png",
    "report_series.dcm",
    "result.json",
)


def _blocks(path: Path) -> int:
    """The bytes that a file takes on the disk."""
    return -(-path.stat().st_size // 4096) * 4096


def _room_until(file: str, out: Path) -> int:
    """The bytes that are needed until half of that file is written."""
    blocks = {name: _blocks(out / name) for name in WRITTEN}
    blocks["overlay/009.dcm"] = sum(map(_blocks, (out / "overlay").iterdir()))
    return sum(blocks[name] for name in WRITTEN[: WRITTEN.index(file)]) + blocks[file] // 2


@pytest.mark.slow
@pytest.mark.parametrize("file", WRITTEN)
def test_on_a_disk_that_is_full_at_any_moment_nothing_is_left_half_written(
    make_study, run, run_on_disk, tmp_path, file
):
    study, out = make_study(), tmp_path / "out"
    assert run_on_disk(32 << 20, study)[0] == 0
    room = _room_until(file, out)
    shutil.rmtree(out.resolve())

    code, printed, err, result = run_on_disk(room, study)
    assert (code, printed) == (1, "")
    assert err == f"cannot write to {out}: No space left on device [cannot-write]\n"
    if file == "result.json":  # the outputs are in their place, and it says that the run was not finished
        assert (result["status"], result["code"], result["volumes_mm3"]) == ("failed", "interrupted", None)
        assert {path.name for path in out.iterdir()} == {*OUTPUTS, "result.json"}
    else:
        assert result is None
        assert list_files(out) == []

    code, *_, result = run(study)  # with room again
    assert (code, result["status"]) == (0, "success")
    assert {path.name for path in out.iterdir()} == {*OUTPUTS, "result.json"}


@pytest.mark.parametrize("free", [0, 1 << 20])
def test_on_a_full_disk_the_results_of_the_earlier_run_stay_whole(make_study, run_on_disk, tmp_path, free):
    study, out = make_study(), tmp_path / "out"
    assert run_on_disk(32 << 20, study)[0] == 0
    before = _digests(out)
    code, printed, err, _ = run_on_disk(free, study)
    assert (code, printed) == (1, "")
    assert err == f"cannot write to {out}: No space left on device [cannot-write]\n"
    assert _digests(out) == before


def test_on_a_full_disk_a_refusal_is_no_page(make_study, crop_files, run_on_disk, tmp_path):
    study = make_study()
    crop_files(study)[5].unlink()
    code, printed, err, result = run_on_disk(0, study)
    assert (code, printed, result) == (1, "", None)
    assert err == f"cannot write to {tmp_path / 'out'}: No space left on device [cannot-write]\n"
    assert list_files(tmp_path / "out") == []


def test_without_an_output_folder_results_go_by_study_and_never_into_the_study(make_study, threshold_model, tmp_path):
    source = Path(inference_dcm.__file__).parent
    shutil.copytree(source, tmp_path / "section3" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "section3" / "model").symlink_to(source.parent / "model")
    study = make_study()
    before = _digests(study)
    command = [sys.executable, tmp_path / "section3" / "src" / "inference_dcm.py", study]
    ended = subprocess.run(
        [*command, "--model-path", threshold_model], capture_output=True, text=True, timeout=600, cwd=study
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    uid = pydicom.dcmread(list_files(study)[0]).StudyInstanceUID
    assert [path.name for path in (tmp_path / "section3" / "out").iterdir()] == [uid]
    assert (tmp_path / "section3" / "out" / uid / "report.dcm").exists()
    assert _digests(study) == before


# --- what it sends ----------------------------------------------------------------------------------------------------


@pytest.fixture
def listener(listen, need_program) -> Callable[..., list[str]]:
    """listener(*options) starts storescp, and returns the options to send there."""
    need_program("storescu")
    need_program("getscu")
    return lambda *options: [
        *("--send-to-orthanc", "--orthanc-host", LOCALHOST, "--orthanc-port"),
        str(listen(*options)),
    ]


class WebArchive(ThreadingHTTPServer):
    """An archive that speaks as much DICOMweb as is needed, and keeps what `keep` makes of what it gets."""

    daemon_threads = True
    keep: Callable[[pydicom.Dataset], None]
    instances: dict[str, pydicom.Dataset]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            end = b"\r\n--" + self.headers.get_boundary().encode() + b"--\r\n"
            ds = pydicom.dcmread(BytesIO(body.partition(b"\r\n\r\n")[2].removesuffix(end)))
            uid = ds.SOPInstanceUID
            self.server.keep(ds)
            self.server.instances[uid] = ds
            item = {"00081150": {"vr": "UI", "Value": [ds.SOPClassUID]}, "00081155": {"vr": "UI", "Value": [uid]}}
            stored = {"00081199": {"vr": "SQ", "Value": [item]}}
            self.answer("application/dicom+json", json.dumps(stored).encode())

        def do_GET(self):
            series = self.path.rpartition("/")[2]
            body = b""
            for ds in self.server.instances.values():
                if ds.SeriesInstanceUID == series:
                    file = BytesIO()
                    ds.save_as(file)
                    body += b"\r\n--end\r\nContent-Type: application/dicom\r\n\r\n" + file.getvalue()
            self.answer('multipart/related; type="application/dicom"; boundary=end', body + b"\r\n--end--")

        def answer(self, content_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass


@pytest.fixture
def web_archive(monkeypatch) -> Iterator[WebArchive]:
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"DICOMWEB_{name}", raising=False)
    with WebArchive((LOCALHOST, 0), WebArchive.Handler) as server:
        server.keep, server.instances = lambda ds: None, {}
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.options = ["--dicomweb", f"http://{LOCALHOST}:{server.server_address[1]}/dicom-web"]
        yield server
        server.shutdown()


def _other_accession_number(ds: pydicom.Dataset) -> None:
    ds.AccessionNumber = "other"


def _uids(folder: Path) -> set[str]:
    return {pydicom.dcmread(path).SOPInstanceUID for path in folder.rglob("*") if path.suffix != ".png"}


@pytest.mark.slow
def test_what_was_asked_for_is_sent_where_it_was_asked(make_study, listener, run, tmp_path):
    code, out, err, result = run(make_study(), *listener(), "--orthanc-aec", "ARCHIVE")
    assert (code, err, result["sent"]) == (0, "", True)
    assert result["stored"] is None  # this listener gives nothing back
    (sent,) = [line for line in out.splitlines() if line.startswith("Sent: ")]
    assert "ARCHIVE" in sent and sent.endswith(result["send_detail"])
    objects = [one["sop_instance_uid"] for one in result["outputs"] if one["sop_instance_uid"]]
    assert len(objects) == len(list((tmp_path / "out").rglob("*.dcm")))
    assert _uids(tmp_path / "archive") == set(objects)


def test_a_failed_send_is_a_warning_and_nothing_is_lost(make_study, listener, run, tmp_path):
    study = make_study()
    before = _digests(study)
    code, _, err, result = run(study, *listener("--refuse"))
    assert code == 0
    assert err.startswith("warning: the results were not sent")
    assert err.count("\n") == 1
    assert (result["status"], result["sent"]) == ("success", False)
    assert result["send_detail"]
    assert (tmp_path / "out" / "report.dcm").exists()
    assert _digests(study) == before


def test_what_the_archive_gives_back_otherwise_is_a_failure(make_study, web_archive, run):
    web_archive.keep = _other_accession_number
    code, out, err, result = run(make_study(), *web_archive.options)
    assert (code, out) == (1, "")
    assert err.endswith("[not-stored]\n") and err.count("\n") == 1
    assert "AccessionNumber" in err and "other" not in err
    assert (result["status"], result["again"], result["sent"], result["stored"]) == ("failed", True, True, False)


def test_of_a_refusal_the_page_is_sent(make_study, crop_files, web_archive, run, tmp_path):
    study = make_study()
    crop_files(study)[5].unlink()
    code, out, err, result = run(study, *web_archive.options)
    assert (code, result["status"], result["sent"], result["stored"]) == (1, "refused", True, True)
    assert out == f"Sent: {result['send_detail']}\n"
    assert err.endswith("[geometry-gap]\n") and err.count("\n") == 1
    assert set(web_archive.instances) == {pydicom.dcmread(tmp_path / "out" / "report.dcm").SOPInstanceUID}


@pytest.mark.parametrize("kept_otherwise", [False, True])
def test_a_refusal_that_the_archive_does_not_have_stays_a_refusal(
    make_study, crop_files, listener, web_archive, run, tmp_path, kept_otherwise
):
    web_archive.keep = _other_accession_number
    study = make_study()
    crop_files(study)[5].unlink()
    options = web_archive.options if kept_otherwise else listener("--refuse")
    code, out, err, result = run(study, *options)
    assert (code, out, result["status"], result["code"]) == (1, "", "refused", "geometry-gap")
    assert (result["sent"], result["stored"]) == ((True, False) if kept_otherwise else (False, None))
    warning, refusal = err.splitlines()
    undone = "stored" if kept_otherwise else "sent"
    assert warning == f"warning: the results were not {undone}: {result['send_detail']}"
    assert refusal.endswith("[geometry-gap]")
    assert (tmp_path / "out" / "report.dcm").exists()


@pytest.mark.parametrize("break_it", [_text_as_model, _no_rules, _empty_folder])
def test_where_there_is_no_page_nothing_is_sent(make_study, web_archive, run, break_it):
    code, out, err, result = run(*break_it(make_study()), *web_archive.options)
    assert (code, out, result["sent"]) == (1, "", None)
    assert err.count("\n") == 1
    assert web_archive.instances == {}


# --- the shipped model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Study1", "Study2"])
def test_real_studies(real_studies, name, tmp_path, capfd):
    assert main([str(real_studies / name), "--output-dir", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert 2382 <= result["volumes_mm3"]["total"] <= 4401  # what the training labels span
    assert "warning" not in capfd.readouterr().err.lower()


def test_slices_missing_at_the_end_of_the_structure_have_a_code_of_their_own(tmp_path, capsys):
    crop = make_phantom(seed=3).image[:, :, 7:]  # the structure begins at the fifth slice
    study = write_study(tmp_path / "study", crop, brain_series=0)
    assert main([str(study), "--output-dir", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.endswith("[structure-cut]\n")


@pytest.mark.slow
def test_a_probability_map_is_written_where_it_is_asked_for(make_study, threshold_model, tmp_path):
    options = [str(make_study()), "--model-path", str(threshold_model), "--output-dir"]
    assert main([*options, str(tmp_path / "with"), "--probability-map"]) == 0
    assert main([*options, str(tmp_path / "without")]) == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("with", "without")]
    files = [{row["file"] for row in result["outputs"]} for result in results]
    assert files[0] - files[1] == {"probability_map.dcm"} and not files[1] - files[0]
    assert results[0]["setup_sha256"] != results[1]["setup_sha256"]
    assert pydicom.dcmread(tmp_path / "with" / "probability_map.dcm").Modality == "MR"
    assert main([*options, str(tmp_path / "with")]) == 0  # what is not asked for any more does not stay
    assert not (tmp_path / "with" / "probability_map.dcm").exists()
