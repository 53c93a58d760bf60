"""Which files make a study, which series is the input, and what is taken from the study."""

import ast
import json
import os
import re
import shutil
import subprocess

import pydicom
import pytest

from dicom_series import (
    consider_series,
    get_series_for_inference,
    list_files,
    load_rules,
    read_study,
    require_complete,
    require_readable,
    series_table,
)
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
        ("ImageType", ["ORIGINAL", "PRIMARY"], "derived"),
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
    assert ("\\".join(value) if isinstance(value, list) else value) in ast.literal_eval(
        re.search(r"'.*'", verdict.reason)[0]
    )
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
    [("StudyInstanceUID", "1.2.3", "several-studies"), ("PatientID", "SOMEBODY-ELSE", "several-patients")],
)
def test_a_folder_with_more_than_one_study_is_refused(make_study, edit, keyword, value, code):
    study = make_study()
    edit(list_files(study)[:3], lambda dataset: setattr(dataset, keyword, value))
    with pytest.raises(Refusal) as refused:
        read_study(list_files(study))
    assert refused.value.code == code
    assert "PHANTOM" not in refused.value.reason


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("SeriesInstanceUID", ""), ("StudyInstanceUID", "../../etc"), ("SOPInstanceUID", "1.2\x1b[31m")],
)
def test_a_file_that_cannot_be_placed_is_passed_over_and_counted(make_study, edit, keyword, value):
    study = make_study()
    edit(list_files(study)[:3], lambda dataset: setattr(dataset, keyword, value))
    found = read_study(list_files(study))
    assert found.files_passed_over[f"damaged (no valid {keyword})"] == 3
    assert not any(value and value in str(file) for file in found.damaged)


def _crop_of(study):
    found = read_study(list_files(study))
    return found, get_series_for_inference(consider_series(found))


def test_a_damaged_file_matters_unless_the_series_says_that_it_has_all_slices(make_study, crop_files, edit):
    study = make_study()
    crop = crop_files(study)
    brain = next(path for path in list_files(study) if path not in crop)
    brain.write_bytes(brain.read_bytes()[:150])
    require_readable(*_crop_of(study))
    edit(crop, lambda dataset: dataset.pop("ImagesInAcquisition"))
    with pytest.raises(Refusal) as refused:
        require_readable(*_crop_of(study))
    assert refused.value.code == "unreadable-dicom"
    assert brain.name in refused.value.reason


@pytest.mark.parametrize("size", [1, 60, 128, 130])
def test_what_is_left_of_a_cut_file_is_damaged_and_not_something_else(make_study, crop_files, size):
    study = make_study()
    path = crop_files(study)[0]
    path.write_bytes(path.read_bytes()[:size])
    found = read_study(list_files(study))
    assert (found.not_dicom, [file.path for file in found.damaged]) == (0, [path])


def test_a_slice_that_is_missing_at_an_end_is_noticed(make_study, crop_files):
    study = make_study()
    require_complete(_crop_of(study)[1])
    crop_files(study)[-1].unlink()
    with pytest.raises(Refusal) as refused:
        require_complete(_crop_of(study)[1])
    assert refused.value.code == "slices-missing"


def test_a_picture_of_the_crop_beside_it_is_no_second_candidate(make_study, add_series):
    study = make_study()
    for path in add_series(study)[1:]:
        path.unlink()
    considered = consider_series(read_study(list_files(study)))
    assert "3d-able" in [one.condition for one in considered]
    get_series_for_inference(considered)


def test_rules_are_data(make_study, tmp_path):
    found = read_study(list_files(make_study()))
    path = tmp_path / "rules.json"
    path.write_text('[{"name": "brain", "attribute": "SeriesDescription", "test": "is", "values": ["T1 POST"]}]')
    chosen = get_series_for_inference(consider_series(found, conditions=load_rules(path)))
    assert chosen.description == "T1post"


@pytest.mark.parametrize(
    "rules",
    ["", "{}", "[1]", '[{"name": "x"}]', '[{"name": "x", "attribute": "Modality", "test": "magic", "values": ["MR"]}]'],
)
def test_a_rule_file_that_makes_no_sense_is_refused(tmp_path, rules):
    path = tmp_path / "rules.json"
    path.write_text(rules)
    with pytest.raises(Refusal) as refused:
        load_rules(path)
    assert refused.value.code == "bad-rules"


def test_no_rules_make_a_result_the_input(make_study, crop_files, edit, tmp_path):
    study = make_study()
    edit(crop_files(study), lambda dataset: setattr(dataset, "SeriesDescription", "hippovolume.ai REPORT"))
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([]))
    considered = consider_series(read_study(list_files(study)), conditions=load_rules(path))
    assert "not-our-result" in [one.condition for one in considered]


def test_the_table_has_a_line_for_each_series_whatever_the_files_say(make_study, crop_files, edit):
    study = make_study(brain_series=2)
    nasty = "<script>alert(1)</script>\x1b[2J\n$(reboot)" + 5000 * "x"
    edit(crop_files(study), lambda dataset: setattr(dataset, "SeriesDescription", nasty))
    table = series_table([one.as_row() for one in consider_series(read_study(list_files(study)))])
    lines = table.split("\n")
    assert len(lines) == 4
    assert "\x1b" not in table
    assert max(map(len, lines)) < 500
    assert sum("rejected" in line and "description" in line for line in lines) == 3


def test_links_pipes_and_deep_folders_do_no_harm(make_study, tmp_path, monkeypatch):
    study = make_study()
    count = len(list_files(study))
    (study / "loop").symlink_to(study)
    (study / "itself").symlink_to(study / "itself")
    (study / "nowhere").symlink_to(study / "gone")
    (study / "zeros").symlink_to("/dev/zero")
    os.mkfifo(study / "pipe")
    monkeypatch.chdir(study)
    for _ in range(1200):  # deeper than Python recurses
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    monkeypatch.undo()
    files = list_files(study)
    subprocess.run(["rm", "-r", study / "d"], check=True)  # as pytest would recurse to do so
    assert len(files) == count
