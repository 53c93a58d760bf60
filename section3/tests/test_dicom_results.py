"""The page as a Secondary Capture: valid, in its study, the same at each run, whole or not there."""

import subprocess
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset, config
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_file import Instance
from dicom_results import OPTIONAL_STUDY_ATTRIBUTES, STUDY_ATTRIBUTES, Provenance, save_report_as_dcm

MODEL = {"name": "hippocampus-2d", "version": "1.2", "sha256": "0123456789abcdef" * 4}
FULL = {
    "PatientBirthDate": "19480229",
    "PatientSex": "F",
    "ReferringPhysicianName": "Who^Doctor",
    "AccessionNumber": "ACC-9",
    "IssuerOfPatientID": "HOSPITAL",
}


@pytest.fixture
def sources(make_study, crop_files) -> list[Dataset]:
    """The headers of a HippoCrop series with the gaps that the real ones have."""
    return [pydicom.dcmread(path) for path in crop_files(make_study())]


def instances(sources: list[Dataset]) -> list[Instance]:
    return [Instance(Path(source.filename), source) for source in sources]


@pytest.fixture
def page() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8))


@pytest.fixture
def save(tmp_path, page, sources):
    """save(...) writes the page and returns what is read back."""

    def save_and_read(header=None, page=page, sources=sources, model=MODEL, name="report.dcm") -> Dataset:
        path = tmp_path / name
        written = save_report_as_dcm(page, path, Provenance(header or sources[0], instances(sources), model))
        ds = pydicom.dcmread(path)
        assert ds.SOPInstanceUID == written.SOPInstanceUID
        return ds

    return save_and_read


@pytest.fixture
def validate(need_program, tmp_path):
    """validate() asserts that dciodvfy finds no error in the report."""

    def run_dciodvfy() -> None:
        need_program("dciodvfy")
        result = subprocess.run(["dciodvfy", tmp_path / "report.dcm"], capture_output=True, text=True, timeout=60)
        assert "SCImage" in result.stderr
        assert [line for line in result.stderr.splitlines() if line.startswith("Error")] == []

    return run_dciodvfy


def changed(header: Dataset, **values: object) -> Dataset:
    """A copy of `header` as it is read from a file; None deletes."""
    copy = pydicom.dcmread(header.filename)
    with config.disable_value_validation():
        for keyword, value in values.items():
            if value is None:
                del copy[keyword]
            else:
                setattr(copy, keyword, value)
    return copy


@pytest.mark.parametrize("values", [{}, FULL], ids=["gaps", "full"])
def test_patient_and_study_stay_as_they_are(save, sources, values):
    header = changed(sources[0], **values)
    ds = save(header)
    assert ds.StudyInstanceUID == header.StudyInstanceUID
    for keyword in STUDY_ATTRIBUTES:
        assert keyword in ds
        assert (ds.get(keyword) or "") == (header.get(keyword) or "")
    for keyword in OPTIONAL_STUDY_ATTRIBUTES:
        assert ds.get(keyword) == header.get(keyword)


def test_the_page_has_its_own_date(save):
    ds = save()
    made = datetime.strptime(ds.SeriesDate + ds.SeriesTime, "%Y%m%d%H%M%S")
    assert timedelta(seconds=-5) < datetime.now() - made < timedelta(minutes=1)
    assert (ds.ContentDate, ds.ContentTime) == (ds.SeriesDate, ds.SeriesTime)
    assert ds.StudyDate == "20200119"


@pytest.mark.parametrize("size", [(83, 61), (84, 60), (1, 1)])
def test_the_pixels_are_the_page(save, validate, size):
    page = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    ds = save(page=page)
    assert np.array_equal(ds.pixel_array.reshape(size[1], size[0], 3), np.asarray(page))
    validate()


def test_what_it_is_and_where_it_comes_from(save, sources):
    ds = save()
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == SecondaryCaptureImageStorage
    assert (ds.Modality, ds.BurnedInAnnotation, ds.SeriesDescription) == (
        "OT",
        "YES",
        "HippoVolume.AI report (research use only)",
    )
    assert ds.SeriesInstanceUID not in {source.SeriesInstanceUID for source in sources}
    assert [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence] == [s.SOPInstanceUID for s in sources]
    assert {item.ReferencedSOPClassUID for item in ds.SourceImageSequence} == {sources[0].SOPClassUID}
    assert "Research use only" in ds.DerivationDescription
    equipment = ds.ContributingEquipmentSequence[0]
    assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == (MODEL["name"], MODEL["version"])
    assert MODEL["sha256"] in equipment.ContributionDescription


def uids(ds: Dataset) -> tuple[str, str]:
    return ds.SeriesInstanceUID, ds.SOPInstanceUID


def test_the_same_result_has_the_same_uids(save, sources):
    assert uids(save()) == uids(save(name="again.dcm", sources=sources[::-1]))


def test_another_model_or_source_has_other_uids(save, sources):
    results = [save(), save(model={**MODEL, "sha256": "f" * 64}), save(sources=sources[:-1])]
    assert len({uid for ds in results for uid in uids(ds)}) == 2 * len(results)


@pytest.mark.parametrize(
    "values",
    [
        {},
        FULL,
        {"PatientName": None, "PatientID": None, "AccessionNumber": None, "StudyID": None, "StudyTime": None},
        {"StudyDescription": None},
    ],
    ids=["gaps", "full", "bare", "no description"],
)
def test_dciodvfy_finds_no_error(save, validate, sources, values):
    save(changed(sources[0], **values))
    validate()


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 144", "Иванов^Иван"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Gröger^Łucja"),
    ],
)
def test_names_of_any_character_set_survive(save, validate, sources, tmp_path, character_set, name):
    header = changed(sources[0], SpecificCharacterSet=character_set, PatientName=name)
    header.save_as(tmp_path / "source.dcm")
    ds = save(pydicom.dcmread(tmp_path / "source.dcm"))
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == name
    validate()


@pytest.mark.parametrize(
    ("keyword", "value", "written"),
    [
        ("PatientID", "x" * 64, "x" * 64),
        ("PatientID", "x" * 70, ""),
        ("PatientID", ["one", "two"], ""),
        ("StudyDate", "2020.01.19", "20200119"),
        ("StudyDate", "19 Jan 2020", ""),
        ("StudyTime", "11:22:00", "112200"),
        ("StudyTime", "112200.123456", "112200.123456"),
        ("StudyTime", "noon", ""),
        ("PatientSex", "O", "O"),
        ("PatientSex", "male", ""),
        ("PatientSex", "MALE", ""),
        ("StudyID", "9" * 20, ""),
        ("StudyDescription", "x" * 65, None),
    ],
)
def test_values_that_dicom_forbids_are_left_out_and_not_printed(
    page, sources, tmp_path, capfd, keyword, value, written
):
    header = changed(sources[0], **{keyword: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_report_as_dcm(page, tmp_path / "report.dcm", Provenance(header, instances(sources), MODEL))
    assert pydicom.dcmread(tmp_path / "report.dcm").get(keyword) == written
    assert "".join(capfd.readouterr()) == ""


def test_a_write_that_fails_leaves_the_earlier_report_alone(save, tmp_path, monkeypatch):
    earlier = save()
    save_as = Dataset.save_as

    def fail_halfway(self, path, **options):
        save_as(self, path, **options)
        path.write_bytes(path.read_bytes()[:200])
        raise OSError("no space left on device")

    monkeypatch.setattr(Dataset, "save_as", fail_halfway)
    with pytest.raises(OSError, match="no space left"):
        save()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.dcm"]
    assert pydicom.dcmread(tmp_path / "report.dcm") == earlier


@pytest.mark.parametrize("study", ["Study1", "Study2"])
def test_reports_of_the_real_studies_are_valid(save, validate, real_studies, crop_files, study):
    sources = [pydicom.dcmread(path) for path in crop_files(real_studies / study)]
    ds = save(sources[0], sources=sources)
    assert (ds.StudyDate, str(ds.PatientName)) == (sources[0].StudyDate, str(sources[0].PatientName))
    validate()
