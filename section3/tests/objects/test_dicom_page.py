"""The page as a Secondary Capture: valid, in its study, and the same at each run."""

import warnings
from collections.abc import Callable
from datetime import datetime

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from objects.dicom_page import save_report_as_dcm
from objects.provenance import Provenance
from reading.dicom_series import OPTIONAL_ATTRIBUTES, PERSON_ATTRIBUTES, STUDY_ATTRIBUTES, Series, Study, read_study

pytestmark = pytest.mark.slow

FULL = {
    "PatientBirthDate": "19480229",
    "PatientSex": "F",
    "ReferringPhysicianName": "Who^Doctor",
    "AccessionNumber": "ACC-9",
    "IssuerOfPatientID": "HOSPITAL",
}


def crop_of(study: Study) -> Series:
    return next(series for series in study.series if series.description == "HippoCrop")


@pytest.fixture
def study(make_study) -> Study:
    """A study whose HippoCrop series has the gaps that the real ones have."""
    return read_study(path for path in make_study().rglob("*") if path.is_file())


@pytest.fixture
def page() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8))


@pytest.fixture
def save(tmp_path, page, study, model) -> Callable[..., Dataset]:
    """save(...) writes the page and returns what is read back. header: what is different in the study's header."""
    default = study

    def save_and_read(header=None, page=page, study=default, model=model, name="report.dcm", last=None) -> Dataset:
        path, crop = tmp_path / name, crop_of(study)
        header = {**study.header_for(crop), **(header or {})}
        provenance = Provenance(header, crop.instances[:last], model, f"a setup with {model['sha256']}")
        written = save_report_as_dcm(page, path, provenance)
        ds = pydicom.dcmread(path)
        assert ds.SOPInstanceUID == written.SOPInstanceUID
        return ds

    return save_and_read


@pytest.fixture
def validate(dciodvfy, tmp_path) -> Callable[[], None]:
    """validate() asserts that dciodvfy finds no error in the report."""

    def run_dciodvfy() -> None:
        assert dciodvfy(tmp_path / "report.dcm") == []

    return run_dciodvfy


@pytest.mark.parametrize("values", [{}, FULL], ids=["gaps", "full"])
def test_patient_and_study_stay_as_they_are(make_study, crop_files, edit, save, values):
    folder = make_study(name="changed", brain_series=0)
    edit(crop_files(folder), lambda ds: ds.update(values))
    source = pydicom.dcmread(crop_files(folder)[0])
    ds = save(study=read_study(crop_files(folder)))
    assert ds.StudyInstanceUID == source.StudyInstanceUID
    for keyword in STUDY_ATTRIBUTES + PERSON_ATTRIBUTES:
        assert keyword in ds
        assert (ds.get(keyword) or "") == (source.get(keyword) or "")
    for keyword in OPTIONAL_ATTRIBUTES:
        assert ds.get(keyword) == source.get(keyword)


def test_the_page_has_its_own_date(save):
    before = datetime.now().replace(microsecond=0)
    ds = save()
    made = datetime.strptime(ds.SeriesDate + ds.SeriesTime, "%Y%m%d%H%M%S")
    assert before <= made <= datetime.now()
    assert (ds.ContentDate, ds.ContentTime) == (ds.SeriesDate, ds.SeriesTime)
    assert ds.StudyDate == "20200119"


@pytest.mark.parametrize("size", [(83, 61), (84, 60), (1, 1)])
def test_the_pixels_are_the_page(save, validate, size):
    page = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    ds = save(page=page)
    assert np.array_equal(ds.pixel_array.reshape(size[1], size[0], 3), np.asarray(page))
    validate()


def test_what_it_is_and_where_it_comes_from(save, study, model):
    ds = save()
    sources = crop_of(study).instances
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == SecondaryCaptureImageStorage
    assert (ds.Modality, ds.BurnedInAnnotation, ds.SeriesDescription) == (
        "OT",
        "YES",
        "HippoVolume.AI report (research use only)",
    )
    assert ds.SeriesInstanceUID not in {series.uid for series in study.series}
    named = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert named == [source.text("SOPInstanceUID") for source in sources]
    assert {item.ReferencedSOPClassUID for item in ds.SourceImageSequence} == {sources[0].text("SOPClassUID")}
    assert "Research use only" in ds.DerivationDescription
    equipment = ds.ContributingEquipmentSequence[0]
    assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == (model["name"], model["version"])
    assert model["sha256"] in equipment.ContributionDescription


def uids(ds: Dataset) -> tuple[str, str]:
    return ds.SeriesInstanceUID, ds.SOPInstanceUID


def test_the_same_result_has_the_same_uids(save, study):
    before = uids(save())
    crop_of(study).instances.reverse()
    assert uids(save(name="again.dcm")) == before


def test_another_model_or_source_has_other_uids(save, model):
    results = [save(), save(model={**model, "sha256": "f" * 64}), save(last=-1)]
    assert len({uid for ds in results for uid in uids(ds)}) == 2 * len(results)


@pytest.mark.parametrize(
    "values",
    [
        {},
        FULL,
        {"PatientName": "", "PatientID": "", "AccessionNumber": "", "StudyID": "", "StudyTime": ""},
        {"StudyDescription": ""},
    ],
    ids=["gaps", "full", "bare", "no description"],
)
def test_dciodvfy_finds_no_error(save, validate, values):
    save(values)
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
def test_names_of_any_character_set_survive(make_study, crop_files, edit, save, validate, character_set, name):
    folder = make_study(name="changed")
    files = [path for path in folder.rglob("*") if path.is_file()]
    edit(files, lambda ds: ds.update({"SpecificCharacterSet": character_set, "PatientName": name}))
    assert name.encode() not in files[0].read_bytes() or character_set == "ISO_IR 192"
    ds = save(study=read_study(files))
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
    make_study, crop_files, save, capfd, keyword, value, written
):
    folder = make_study(name="changed", brain_series=0)
    with pydicom.config.disable_value_validation():
        for path in crop_files(folder):
            ds = pydicom.dcmread(path)
            setattr(ds, keyword, value)
            ds.save_as(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = save(study=read_study(crop_files(folder)))
    assert ds.get(keyword) == written
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("name", ["Study1", "Study2"])
def test_reports_of_the_real_studies_are_valid(save, validate, real_studies, crop_files, name):
    files = crop_files(real_studies / name)
    source = pydicom.dcmread(files[0])
    ds = save(study=read_study(files))
    assert (ds.StudyDate, str(ds.PatientName)) == (source.StudyDate, str(source.PatientName))
    validate()
