"""One study in, a page and a result out; or one line that says why not."""

import hashlib
import json
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

import archive
import inference_dcm
import result_objects
import study_outputs
import study_result
from archive import SendOutcome
from dicom_series import list_files
from dimse import DimseArchive
from inference_dcm import main
from phantom import make_phantom, write_study
from quality import LIMITS_FILE

ANTERIOR_MM3, POSTERIOR_MM3 = 4 * 5 * 6, 4 * 7 * 6  # of the blocks


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
    assert str(tmp_path / "out" / "report.dcm") in out

    header = pydicom.dcmread(crop_files(study)[0])
    assert result["status"] == "success"
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

    assert {path.name for path in (tmp_path / "out").iterdir()} == {*study_result.OUTPUTS, "result.json"}
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


def test_volumes_are_in_mm3_of_the_series_spacing(run, add_series, tmp_path):
    spacing = (0.995, 1.005, 0.998)  # near enough to the model's grid to go in as it is
    add_series(tmp_path / "study", spacing=spacing)
    result = run(tmp_path / "study")[-1]
    assert result["volumes_mm3"]["anterior"] == pytest.approx(ANTERIOR_MM3 * np.prod(spacing))


def test_a_second_run_takes_the_place_of_the_first_and_ignores_its_results(make_study, run, tmp_path):
    study = make_study()
    first = run(study)[-1]
    before = _digests(tmp_path / "out")
    shutil.copytree(tmp_path / "out", study / "fed_back")
    code, _, _, second = run(study)
    assert code == 0
    after = _digests(tmp_path / "out")
    assert {path.name for path in before if before[path] != after[path]} == {"result.json"}
    assert second["volumes_mm3"] == first["volumes_mm3"]
    assert "not-our-result" in [one["condition"] for one in second["series_considered"]]


def test_a_second_run_writes_the_same_bytes(make_study, run, tmp_path, monkeypatch):
    study = make_study()
    run(study)
    first = _digests(tmp_path / "out")
    time.sleep(1)  # the objects tell seconds
    run(study)
    second = _digests(tmp_path / "out")
    assert {path for path in first if first[path] != second[path]} <= {tmp_path / "out" / "result.json"}


def _mirrored_labels(save):
    return lambda labels, *arguments: save(labels[:, :, ::-1], *arguments)


def _last_first(save):
    return lambda pictures, *arguments: save(pictures[::-1], *arguments)


def _a_pixel_changed(save):
    def save_page(page, *arguments):
        page = page.copy()
        page.putpixel((700, 500), (1, 2, 3))
        return save(page, *arguments)

    return save_page


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        (result_objects, "save_segmentation", _mirrored_labels),
        (result_objects, "draw_overlay", lambda draw: lambda grey, labels: draw(grey, labels[:, :, ::-1])),
        (result_objects, "save_overlay", _last_first),
        (study_outputs, "save_report_as_dcm", _a_pixel_changed),
        (study_outputs, "save_series_page_as_dcm", _a_pixel_changed),
    ],
)
def test_what_was_written_wrong_is_no_result(make_study, run, tmp_path, monkeypatch, module, name, fault):
    study = make_study()
    run(study)
    monkeypatch.setattr(module, name, fault(getattr(module, name)))
    code, out, err, result = run(study)
    assert (code, out) == (1, "")
    assert err.endswith("[verification-failed]\n")
    assert (result["status"], result["volumes_mm3"], result["outputs"]) == ("failed", None, [])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json"}


def test_what_a_killed_run_left_is_taken_away(make_study, run, tmp_path):
    leftover = tmp_path / "out" / f"{study_result.UNFINISHED}x"
    leftover.mkdir(parents=True)
    (leftover / "report.png").write_bytes(b"half a pict")
    assert run(make_study())[0] == 0
    assert not leftover.exists()


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
        assert files == {*study_result.OUTPUTS, "result.json"}  # the usage was wrong, nothing was done
    else:
        assert err.endswith(f"[{code}]\n")
        assert files == {"result.json", *(REFUSAL_FILES if page else [])}
        assert (result["status"], result["code"]) == ("refused", code)
        assert err == f"{result['reason']} [{code}]\n"
        assert result["volumes_mm3"] is None
        assert {output["file"] for output in result["outputs"]} == files - {"result.json"}


def test_what_could_be_read_is_shown(make_study, crop_files, edit, run, words):
    study = make_study()
    _nothing_to_see(study, crop_files, edit)
    run(study)
    assert "Axial, middle" in [text for text, _ in words]
    words.clear()
    _a_gap(study, crop_files)
    run(study)
    assert "Axial, middle" not in [text for text, _ in words]


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


REFUSAL_FILES = {"report.dcm", "report.png"}


def _dciodvfy(path: Path) -> list[str]:
    found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=60)
    assert "SCImage" in found.stderr
    return [line for line in found.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("break_it", [_a_gap, _no_crop])
def test_the_page_of_a_refusal_files_under_its_study(
    make_study, crop_files, edit, run, tmp_path, need_program, break_it
):
    study = make_study()
    crop = pydicom.dcmread(crop_files(study)[0])
    edit(list_files(study), lambda dataset: setattr(dataset, "PatientSex", "F" if _is_crop(dataset) else "M"))
    break_it(study, crop_files=crop_files)
    result = run(study)[-1]
    page = pydicom.dcmread(tmp_path / "out" / "report.dcm")
    assert (page.StudyInstanceUID, page.PatientID, page.StudyTime) == (crop.StudyInstanceUID, crop.PatientID, "112200")
    assert page.PatientSex == ("F" if break_it is _a_gap else "")  # other series may show another head
    assert page.SeriesDescription == "HippoVolume.AI refusal (research use only)"
    assert page.BurnedInAnnotation == "YES"
    assert page.SOPInstanceUID == result["outputs"][0]["sop_instance_uid"]
    with Image.open(tmp_path / "out" / "report.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), page.pixel_array)
    need_program("dciodvfy")
    assert _dciodvfy(tmp_path / "out" / "report.dcm") == []


def _is_crop(dataset: pydicom.Dataset) -> bool:
    return dataset.SeriesDescription == "HippoCrop"


@pytest.mark.parametrize("break_it", [_nothing_to_see, _no_crop])
def test_the_same_refusal_is_the_same_page_also_when_the_study_has_it_already(
    make_study, crop_files, edit, run, tmp_path, break_it
):
    study = make_study()
    break_it(study, crop_files=crop_files, edit=edit)
    first_result = run(study)[-1]
    first = _digests(tmp_path / "out")
    time.sleep(1)  # the objects tell seconds
    (study / "fed_back").write_bytes((tmp_path / "out" / "report.dcm").read_bytes())
    second_result = run(study)[-1]
    second = _digests(tmp_path / "out")
    assert {path.name for path in first if first[path] != second[path]} == {"result.json"}
    assert (second_result["code"], second_result["reason"]) == (first_result["code"], first_result["reason"])
    assert [one["condition"] for one in second_result["series_considered"]].count("not-our-result") == 1


def test_another_reason_is_another_page(make_study, crop_files, run, tmp_path):
    study = make_study()
    pages = []
    for path in crop_files(study)[5], crop_files(study)[9]:
        path.unlink()
        run(study)
        pages.append(pydicom.dcmread(tmp_path / "out" / "report.dcm"))
    assert len({uid for page in pages for uid in (page.SeriesInstanceUID, page.SOPInstanceUID)}) == 4


def test_a_study_of_our_own_results_gets_no_page(make_study, run, tmp_path):
    run(make_study())
    (tmp_path / "out").rename(tmp_path / "ours")
    code, _, _, result = run(tmp_path / "ours")
    assert (code, result["code"], result["outputs"]) == (1, "no-hippocrop-series", [])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json"}


def test_the_table_of_series_is_a_page_of_its_own(make_study, add_series, run, tmp_path, need_program):
    study = make_study(brain_series=2)
    pages = []
    for _ in range(2):
        run(study)
        pages.append([pydicom.dcmread(tmp_path / "out" / name) for name in ("report.dcm", "report_series.dcm")])
        add_series(study, description="T1 late")
    (report, second), (same_report, later) = pages
    assert second.SeriesInstanceUID != report.SeriesInstanceUID
    assert second.SeriesNumber > report.SeriesNumber
    assert second.SOPInstanceUID != report.SOPInstanceUID
    for keyword in ("PatientID", "StudyInstanceUID", "StudyDate", "SeriesDate", "SeriesTime"):
        assert second[keyword] == report[keyword]
    # A series more changes the second page alone, and what differs must not share a UID.
    assert same_report == report
    assert later.SeriesInstanceUID == second.SeriesInstanceUID
    assert later.SOPInstanceUID != second.SOPInstanceUID
    with Image.open(tmp_path / "out" / "report_series.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), later.pixel_array)
    need_program("dciodvfy")
    assert _dciodvfy(tmp_path / "out" / "report_series.dcm") == []


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


def test_an_output_folder_that_cannot_be_written_is_a_failure(make_study, run, tmp_path):
    (tmp_path / "out").write_text("a file stands where the folder should be")
    code, _, err, result = run(make_study())
    assert code == 1
    assert err.endswith("[cannot-write]\n")
    assert err.count("\n") == 1
    assert result is None


def test_a_page_that_is_left_half_written_is_no_page(make_study, run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    study = make_study()
    run(study)
    monkeypatch.setattr(study_outputs, "save_report_as_dcm", fail)
    code, _, err, result = run(study)
    assert code == 1
    assert "No space left on device [cannot-write]" in err
    assert result["status"] == "failed"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json"}


def test_a_fault_of_ours_is_told_without_what_it_quotes(make_study, run, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("Phantom^0001")

    monkeypatch.setattr(study_outputs, "create_report", fail)
    code, _, err, result = run(make_study())
    assert code == 1
    assert result["code"] == "internal-error"
    assert "ZeroDivisionError" in err
    assert "Phantom" not in err


def test_a_failed_send_is_a_warning_and_nothing_is_lost(make_study, run, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "PAUSES", ())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    study = make_study()
    before = _digests(study)
    code, _, err, result = run(study, "--send-to-orthanc", "--orthanc-host", "127.0.0.1", "--orthanc-port", str(port))
    assert code == 0
    assert err.startswith("warning: the results were not sent")
    assert err.count("\n") == 1
    assert (result["status"], result["sent"]) == ("success", False)
    assert result["send_detail"]
    assert (tmp_path / "out" / "report.dcm").exists()
    assert _digests(study) == before


def test_of_a_refusal_the_page_is_sent(make_study, crop_files, run, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(
        inference_dcm, "send_to_archive", lambda paths, archive: sent.append(paths) or SendOutcome(True, "it has it")
    )
    study = make_study()
    crop_files(study)[5].unlink()
    code, out, err, result = run(study, "--send-to-orthanc")
    assert sent == [[tmp_path / "out" / "report.dcm"]]
    assert (code, out, result["status"], result["sent"]) == (1, "Sent: it has it\n", "refused", True)
    assert err.endswith("[geometry-gap]\n") and err.count("\n") == 1


@pytest.mark.parametrize("outcome", [SendOutcome(False, "no answer"), SendOutcome(True, "it has another", False)])
def test_a_refusal_that_the_archive_does_not_have_stays_a_refusal(
    make_study, crop_files, run, tmp_path, monkeypatch, outcome
):
    monkeypatch.setattr(inference_dcm, "send_to_archive", lambda paths, archive: outcome)
    study = make_study()
    crop_files(study)[5].unlink()
    code, out, err, result = run(study, "--send-to-orthanc")
    assert (code, out, result["code"], result["send_detail"]) == (1, "", "geometry-gap", outcome.detail)
    warning, refusal = err.splitlines()
    assert warning.startswith("warning: the results were not ") and warning.endswith(outcome.detail)
    assert refusal.endswith("[geometry-gap]")
    assert (tmp_path / "out" / "report.dcm").exists()


def test_what_was_asked_for_is_sent_where_it_was_asked(make_study, run, tmp_path, monkeypatch):
    calls = []

    def send(paths, archive):
        calls.append((paths, archive))
        return SendOutcome(True, "stored")

    monkeypatch.setattr(inference_dcm, "send_to_archive", send)
    options = ["--send-to-orthanc", "--orthanc-host", "pacs", "--orthanc-port", "104", "--orthanc-aec", "ARCHIVE"]
    code, _, err, result = run(make_study(), *options)
    assert (code, err, result["sent"]) == (0, "", True)
    ((paths, archive),) = calls
    assert set(paths) == set((tmp_path / "out").rglob("*.dcm"))
    assert archive == DimseArchive("pacs", 104, "ARCHIVE")


@pytest.mark.parametrize("broken", [False, True])
def test_no_identity_on_the_terminal_or_in_the_result(make_study, crop_files, edit, run, broken):
    study = make_study()
    edit(list_files(study), lambda dataset: dataset.update({"PatientName": "Secret^Name", "PatientID": "SECRET-1"}))
    if broken:
        edit(crop_files(study)[:1], lambda dataset: setattr(dataset, "PixelSpacing", [1, 2]))
    code, out, err, result = run(study)
    assert code == int(broken)
    assert "secret" not in (out + err + json.dumps(result)).lower()


def test_without_an_output_folder_results_go_by_study_and_never_into_the_study(
    make_study, threshold_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(inference_dcm, "DEFAULT_OUTPUT", tmp_path / "default")
    study = make_study()
    assert main([str(study), "--model-path", str(threshold_model)]) == 0
    uid = pydicom.dcmread(list_files(study)[0]).StudyInstanceUID
    assert (tmp_path / "default" / uid / "report.dcm").exists()


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
