"""Which files make a study, which series is the input, and what is taken from the study."""

import shutil

import pydicom
import pytest

from dicom_series import consider_series, get_series_for_inference, list_files, read_study
from refusal import Refusal


def test_names_mean_nothing_and_other_files_are_counted(make_study, crop_files, tmp_path):
    study = make_study()
    flat = tmp_path / "flat" / "HippoCrop"
    (flat / "a" / "b").mkdir(parents=True)
    for number, path in enumerate(sorted(study.rglob("IM*"))):
        shutil.copy(path, flat / "a" / "b" / f"{number}.txt")
    shutil.copy(flat / "a" / "b" / "0.txt", flat / "again.dcm")
    (flat / "notes.dcm").write_text("no DICOM")
    (flat / "empty").touch()

    found = read_study(list_files(flat))
    count = len(list_files(study))
    assert (found.files, found.not_dicom, found.duplicates) == (count + 3, 2, 1)
    chosen = get_series_for_inference(consider_series(found))
    assert len(chosen.instances) == len(crop_files(study))


@pytest.mark.parametrize("description", ["HippoCrop", "hippocrop", " HIPPO CROP ", "Hippo\tCrop"])
def test_case_and_spaces_of_the_description_are_ignored(make_study, crop_files, edit, description):
    study = make_study()
    edit(crop_files(study), lambda dataset: setattr(dataset, "SeriesDescription", description))
    assert get_series_for_inference(consider_series(read_study(list_files(study)))).modality == "MR"


@pytest.mark.parametrize(
    ("keyword", "value", "condition"),
    [
        ("SeriesDescription", "HippoVolume.AI report", "not-our-result"),
        ("SeriesDescription", "HippoCrop2", "description"),
        ("Modality", "CT", "modality"),
        ("SOPClassUID", pydicom.uid.SecondaryCaptureImageStorage, "sop-class"),
    ],
)
def test_each_rejection_names_its_condition(make_study, crop_files, edit, keyword, value, condition):
    study = make_study()
    crop = crop_files(study)
    crop_uid = pydicom.dcmread(crop[0]).SeriesInstanceUID
    edit(crop, lambda dataset: setattr(dataset, keyword, value))
    considered = consider_series(read_study(list_files(study)))
    (verdict,) = [one for one in considered if one.series.uid == crop_uid]
    assert verdict.condition == condition
    assert str(value) in verdict.reason
    with pytest.raises(Refusal) as refused:
        get_series_for_inference(considered)
    assert refused.value.code == "no-hippocrop-series"


def test_two_candidates_are_refused_and_one_can_be_chosen(make_study, add_series):
    study = make_study()
    other = pydicom.dcmread(add_series(study)[0]).SeriesInstanceUID
    found = read_study(list_files(study))
    with pytest.raises(Refusal) as refused:
        get_series_for_inference(consider_series(found))
    assert refused.value.code == "several-hippocrop-series"
    assert other in refused.value.reason

    considered = consider_series(found, other)
    assert get_series_for_inference(considered).uid == other
    assert [one.condition for one in considered if one.series.description == "HippoCrop"].count("chosen") == 1


def test_a_choice_does_not_waive_the_conditions(make_study):
    found = read_study(list_files(make_study()))
    brain = next(series for series in found.series if series.description != "HippoCrop")
    with pytest.raises(Refusal) as refused:
        get_series_for_inference(consider_series(found, brain.uid))
    assert refused.value.code == "no-hippocrop-series"


def test_study_attributes_come_from_most_of_the_study_and_the_person_from_the_series_alone(
    make_study, crop_files, edit
):
    study = make_study(brain_series=2)
    crop = crop_files(study)
    brain = [path for path in list_files(study) if path not in crop]
    assert len(brain) > len(crop)
    edit(brain, lambda dataset: dataset.update({"PatientSex": "F", "StudyTime": "112200"}))
    edit(crop, lambda dataset: dataset.update({"PatientBirthDate": "19600102", "StudyTime": "010313"}))
    edit(crop, lambda dataset: dataset.pop("AccessionNumber", None))

    found = read_study(list_files(study))
    header = found.header_for(get_series_for_inference(consider_series(found)))
    assert header.StudyTime == "112200"
    assert header.AccessionNumber == pydicom.dcmread(brain[0]).AccessionNumber
    assert header.PatientBirthDate == "19600102"
    assert "PatientSex" not in header


def test_a_name_in_any_character_set_arrives_decoded(make_study, edit):
    study = make_study()
    edit(
        list_files(study),
        lambda dataset: dataset.update({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}),
    )
    found = read_study(list_files(study))
    assert found.header_for(found.series[0]).PatientName == "Müller^Jörg"


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("StudyInstanceUID", "1.2.3", "several-studies"),
        ("PatientID", "SOMEBODY-ELSE", "several-patients"),
        ("SeriesInstanceUID", "", "unreadable-dicom"),
        ("StudyInstanceUID", "../../etc", "unreadable-dicom"),
        ("SOPInstanceUID", "1.2\x1b[31m", "unreadable-dicom"),
    ],
)
def test_a_folder_with_more_or_less_than_one_study_is_refused(make_study, edit, keyword, value, code):
    study = make_study()
    edit(list_files(study)[:3], lambda dataset: setattr(dataset, keyword, value))
    with pytest.raises(Refusal) as refused:
        read_study(list_files(study))
    assert refused.value.code == code
    assert "PHANTOM" not in refused.value.reason
