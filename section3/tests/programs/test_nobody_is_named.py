"""Nobody's name where it does not belong: in logs and results never, on pages not in the pseudonymous mode."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

import batch_inference_dcm
import inference_dcm
from archive.sending import PATIENCE
from reading.dicom_series import list_files
from reading.identity import pseudonym

pytestmark = pytest.mark.slow

NAME, PATIENT_ID, ACCESSION = "Secretson^Anna^Li", "SECRET-77", "9977123"
FORBIDDEN = ("secretson", "anna", "secret-77", ACCESSION)


@pytest.fixture
def study(make_study, edit) -> Path:
    """A study whose patient is named by its files and a series description too, as hospitals do."""
    folder = make_study()

    def name(dataset: Dataset) -> None:
        dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = NAME, PATIENT_ID, ACCESSION
        if dataset.SeriesDescription != "HippoCrop":
            dataset.SeriesDescription = "T1 SECRETSON ANNA"

    edit(list_files(folder), name)
    for number, path in enumerate(list_files(folder)):
        path.rename(path.with_name(f"SECRETSON_ANNA_{number:03d}.dcm"))
    return folder


@pytest.fixture
def refusing_archive() -> Iterator[str]:
    """The address of an archive that takes nothing, and says so by the patient's name."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"{NAME} is not to be sent here".encode()
            self.send_response(403, f"not {NAME}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _nothing(*_):
    pass


def _break_spacing(study, crop_files, edit):
    edit(crop_files(study)[:1], lambda dataset: setattr(dataset, "PixelSpacing", [1, 2]))


def _remove_a_slice(study, crop_files, _):
    crop_files(study)[5].unlink()


def _cut_a_file(study, crop_files, _):
    path = crop_files(study)[5]
    path.write_bytes(path.read_bytes()[:-500])


def _damage_a_header(study, crop_files, _):
    path = crop_files(study)[5]
    path.write_bytes(path.read_bytes()[:400])


def _remove_the_crop(study, crop_files, _):
    for path in crop_files(study):
        path.unlink()


def _damage_all_headers(study, *_):
    for path in list_files(study):
        path.write_bytes(path.read_bytes()[:150])


PROGRAMS = pytest.mark.parametrize(
    ("program", "mode"),
    [(inference_dcm, []), (inference_dcm, ["--pseudonymous"]), (batch_inference_dcm, ["--pseudonymous"])],
)


@pytest.fixture
def require_nobody_named(study, threshold_model, tmp_path, capfd) -> Callable:
    """require(program, *options): its exit code, and what it wrote, in which and on the screen nobody was named."""

    def require(program, *options: str) -> tuple[int, list[Path]]:
        out = tmp_path / "out"
        more = ["--explain"] if program is inference_dcm else ["--engine", "serial", "--save-summary"]
        arguments = [str(study), "--output-dir", str(out), "--model-path", str(threshold_model), *options, *more]
        code = program.main(arguments)
        written = list_files(out)
        texts = [*capfd.readouterr(), *(str(path.relative_to(out)) for path in written)]
        texts += [path.read_text() for path in written if path.suffix in (".json", ".csv")]
        texts += [path.read_bytes().decode("latin-1") for path in written if path.suffix == ".png"]
        assert any(texts)
        assert [word for word in FORBIDDEN for text in texts if word in text.lower()] == []
        for path in written:
            if path.suffix == ".dcm":
                assert pydicom.dcmread(path).PatientID == PATIENT_ID
        return code, written

    return require


@pytest.mark.parametrize(
    ("prepare", "code", "has_page"),
    [
        (_nothing, 0, True),
        (_break_spacing, 1, True),
        (_remove_a_slice, 1, True),
        (_cut_a_file, 1, True),
        (_damage_a_header, 1, True),
        (_remove_the_crop, 1, True),
        (_damage_all_headers, 1, False),  # nobody can tell any more what in the names of the files is a name
    ],
)
@PROGRAMS
def test_no_name_in_logs_results_and_file_names(
    study, crop_files, edit, require_nobody_named, program, mode, prepare, code, has_page
):
    prepare(study, crop_files, edit)
    found, written = require_nobody_named(program, *mode)
    assert found == code
    assert any(path.name == "report.dcm" for path in written) == has_page


@PROGRAMS
def test_no_name_where_nobody_listens(require_nobody_named, free_port, monkeypatch, program, mode):
    monkeypatch.setitem(vars(PATIENCE), "pauses", ())
    archive = ["--send-to-orthanc", "--orthanc-host", "127.0.0.1", "--orthanc-port", str(free_port)]
    found, written = require_nobody_named(program, *mode, *archive)
    assert found == 0
    assert _sent(written) is False


@PROGRAMS
def test_no_name_that_an_archive_quotes(require_nobody_named, refusing_archive, program, mode):
    found, written = require_nobody_named(program, *mode, "--dicomweb", refusing_archive)
    assert found == 0
    assert _sent(written) is False


def _sent(written: list[Path]) -> bool | None:
    (path,) = [path for path in written if path.name == "result.json"]
    return json.loads(path.read_text())["sent"]


WHO = {
    "two letters": ({"PatientName": "Li^Wu"}, "T1 LI WU", "LI_WU_{:03d}.dcm", ("li", "wu")),
    "ideographic": ({"PatientName": "Zhao^Min=趙^敏"}, "趙敏 頭部", "趙敏{:03d}.dcm", ("zhao", "趙", "敏")),
    "decomposed": (
        {"PatientName": "Zürn^Örs"},
        "Zu\u0308rn MR",
        "Zu\u0308rn.{:04d}.dcm",
        ("zürn", "zu\u0308rn", "örs"),
    ),
    "transliterated": ({"PatientName": "Zürn^Örs"}, "T1 ZUERN", "ZUERN_OERS.{:04d}", ("zürn", "zuern", "oers")),
    "numbers": ({"PatientID": "123456", "StudyID": "ST77"}, "T1 ST77", "123456.{:04d}.dcm", ("123456", "st77")),
    "allowed words": ({"PatientName": "Tse^Bravo"}, "T1 TSE BRAVO", "tse bravo {:03d}.dcm", ("tse", "bravo")),
    "birth": (
        {"PatientName": "A^B", "PatientBirthName": "Vogelsang", "PatientBirthDate": "19700131"},
        "T1 Vogelsang 31.01.1970",
        "Vogelsang 19700131 {:03d}.dcm",
        ("vogelsang", "1970", "19700131"),
    ),
    "other IDs": ({"OtherPatientIDsSequence": "998877"}, "T1 998877", "998877.{:04d}.dcm", ("998877",)),
    "places and people": (
        {"InstitutionName": "Mercy", "ReferringPhysicianName": "Whoson^Dr"},
        "T1 Mercy Dr Whoson",
        "Mercy_Whoson_{:03d}.dcm",
        ("mercy", "whoson"),
    ),
}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(
    "prepare", [_nothing, _remove_a_slice, _cut_a_file, _damage_a_header, _remove_the_crop, _damage_all_headers]
)
def test_in_the_pseudonymous_mode_nobody_is_named_anywhere(
    make_study, crop_files, edit, threshold_model, tmp_path, capfd, words, who, prepare
):
    attributes, description, file_name, forbidden = WHO[who]
    study = make_study()

    def name(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in attributes.items():
            if keyword.endswith("Sequence"):
                item = Dataset()
                item.PatientID = value
                value = [item]
            setattr(dataset, keyword, value)
        if dataset.SeriesDescription != "HippoCrop":
            dataset.SeriesDescription = description

    edit(list_files(study), name)
    for number, path in enumerate(list_files(study)):
        path.rename(path.with_name(file_name.format(number)))
    prepare(study, crop_files, edit)
    out = tmp_path / "out"
    arguments = [str(study), "--output-dir", str(out), "--model-path", str(threshold_model), "--pseudonymous"]
    inference_dcm.main([*arguments, "--explain"])
    batch_inference_dcm.main([*arguments, "--engine", "serial", "--save-summary"])

    texts = [*capfd.readouterr(), *(text for text, _ in words)]
    for path in list_files(out):
        texts.append(str(path.relative_to(out)))
        if path.suffix in (".json", ".csv"):
            text = path.read_text()
            texts += [text, text.encode().decode("unicode_escape")]
    assert len(texts) > 4
    # UIDs, digests and the pseudonym that is made of one may hold any number.
    chance = re.compile(r"\b[0-2](\.[0-9]+){3,}|\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b|\bhv-[0-9a-f]{10}\b")
    texts = [chance.sub("", text.lower().replace(str(tmp_path).lower(), "")) for text in texts]
    for word in forbidden:
        alone = re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])") if len(word) < 3 and word.isascii() else None
        assert [text for text in texts if (alone.search(text) if alone else word in text)] == []


def _page(study: Path, page: str, out: Path, model: Path, *options: str) -> tuple[np.ndarray, Dataset, dict]:
    """One of the pages as a picture and as DICOM, and result.json."""
    arguments = [str(study), "--output-dir", str(out), "--model-path", str(model), *options]
    inference_dcm.main(arguments)
    with Image.open(out / f"{page}.png") as picture:
        assert picture.info == {}
        pixels = np.asarray(picture)
    return pixels, pydicom.dcmread(out / f"{page}.dcm"), json.loads((out / "result.json").read_text())


def _other_patient(dataset: Dataset) -> None:
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber, dataset.StudyDate = "Other^B", "2", "3", "20210203"
    if dataset.SeriesDescription != "HippoCrop":
        dataset.SeriesDescription = "T1 OTHER OTHER"  # as long without the patient


@pytest.mark.parametrize(
    ("prepare", "page"), [(_nothing, "report"), (_nothing, "report_series"), (_break_spacing, "report")]
)
def test_a_pseudonymous_page_is_the_same_whoever_the_patient(
    study, crop_files, edit, threshold_model, tmp_path, prepare, page
):
    prepare(study, crop_files, edit)
    named, named_dicom, _ = _page(study, page, tmp_path / "named", threshold_model)
    first, first_dicom, result = _page(study, page, tmp_path / "first", threshold_model, "--pseudonymous")
    edit(list_files(study), _other_patient)
    for path in list_files(study):
        path.rename(path.with_name(path.name.replace("SECRETSON_ANNA", "OTHER_OTHER")))
    second, second_dicom, _ = _page(study, page, tmp_path / "second", threshold_model, "--pseudonymous")
    assert np.array_equal(first, second)
    assert not np.array_equal(first, named)
    assert np.array_equal(first, first_dicom.pixel_array)

    assert (first_dicom.PatientName, first_dicom.PatientID) == (NAME, PATIENT_ID)  # it files under its patient
    assert (second_dicom.PatientName, second_dicom.PatientID) == ("Other^B", "2")
    assert first_dicom.StudyInstanceUID == named_dicom.StudyInstanceUID
    assert (named_dicom.BurnedInAnnotation, first_dicom.BurnedInAnnotation) == ("YES", "NO")
    # Another page must not pass for the one that an archive may have already.
    assert first_dicom.SOPInstanceUID != named_dicom.SOPInstanceUID
    assert first_dicom.SOPInstanceUID == second_dicom.SOPInstanceUID
    assert result["pseudonym"] == pseudonym(first_dicom.StudyInstanceUID)
