"""Nobody's name where it does not belong: in logs and results never, on pages not in the pseudonymous mode."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

import archive
import batch_inference_dcm
import inference_dcm
from dicom_series import list_files, read_study
from identity import Identity, pseudonym

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


def _nothing(*_):
    return []


def _break_spacing(study, crop_files, edit):
    edit(crop_files(study)[:1], lambda dataset: setattr(dataset, "PixelSpacing", [1, 2]))
    return []


def _remove_a_slice(study, crop_files, _):
    crop_files(study)[5].unlink()
    return []


def _cut_a_file(study, crop_files, _):
    path = crop_files(study)[5]
    path.write_bytes(path.read_bytes()[:-500])
    return []


def _damage_a_header(study, crop_files, _):
    path = crop_files(study)[5]
    path.write_bytes(path.read_bytes()[:400])
    return []


def _remove_the_crop(study, crop_files, _):
    for path in crop_files(study):
        path.unlink()
    return []


def _closed_port(*_):
    return ["--send-to-orthanc", "--orthanc-host", "127.0.0.1", "--orthanc-port", "1"]


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (_nothing, 0),
        (_closed_port, 0),
        (_break_spacing, 1),
        (_remove_a_slice, 1),
        (_cut_a_file, 1),
        (_damage_a_header, 1),
        (_remove_the_crop, 1),
    ],
)
@pytest.mark.parametrize(
    ("program", "mode"),
    [(inference_dcm, []), (inference_dcm, ["--pseudonymous"]), (batch_inference_dcm, ["--pseudonymous"])],
)
def test_no_name_in_logs_results_and_file_names(
    study, threshold_model, crop_files, edit, tmp_path, capfd, monkeypatch, program, prepare, code, mode
):
    monkeypatch.setattr(archive, "PAUSES", ())
    options = [*prepare(study, crop_files, edit), *mode]
    out = tmp_path / "out"
    if program is inference_dcm:
        options.append("--explain")
    else:
        options += ["--engine", "serial", "--save-summary"]
    assert program.main([str(study), "--output-dir", str(out), "--model-path", str(threshold_model), *options]) == code
    written = list_files(out)
    texts = [*capfd.readouterr(), *(str(path.relative_to(out)) for path in written)]
    texts += [path.read_text() for path in written if path.suffix in (".json", ".csv")]
    texts += [path.read_bytes().decode("latin-1") for path in written if path.suffix == ".png"]
    assert any(texts)
    found = [word for word in FORBIDDEN for text in texts if word in text.lower()]
    assert any(path.name == "report.dcm" for path in written)
    assert found == []
    for path in written:
        if path.suffix == ".dcm":
            assert pydicom.dcmread(path).PatientID == PATIENT_ID


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


def test_pseudonyms_are_stable_and_tell_studies_apart():
    assert pseudonym("1.2.3") == pseudonym("1.2.3") == "HV-" + pseudonym("1.2.3")[3:]
    assert len({pseudonym(f"1.2.{number}") for number in range(100)}) == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SECRETSON_ANNA_001.dcm", "***_***_001.dcm"),
        ("1x1 mm in AnnaSecretson2.dcm", "1x1 mm in ******2.dcm"),
        ("Li, or LI_2.dcm", "***, or ***_2.dcm"),
        ("Slices and lists", "Slices and lists"),  # not Li
        (f"{ACCESSION}.dcm and IM{ACCESSION}", "***.dcm and IM***"),
        (f"1.2.{ACCESSION}.5 and 1.2.{ACCESSION} and 1{ACCESSION}",) * 2,  # UIDs, and another number
        ("SECRET-77", "***"),
    ],
)
def test_what_is_removed(study, text, expected):
    assert Identity.of(read_study(list_files(study))).removed_from(text) == expected


def test_who_has_no_name_is_nowhere(make_study, edit):
    folder = make_study()
    edit(
        list_files(folder), lambda dataset: dataset.update({"PatientName": "", "PatientID": "", "AccessionNumber": ""})
    )
    assert Identity.of(read_study(list_files(folder))).removed_from("any text") == "any text"
