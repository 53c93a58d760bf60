"""Which series is the input, and why the others are not."""

import json
import re

import pydicom
import pytest

from choosing.series_rules import (
    consider_series,
    get_series_for_inference,
    is_ours,
    load_rules,
    rules_sha256,
    without_ours,
)
from common.refusal import Failure, Refusal
from reading.dicom_series import list_files, read_study


def _considered(folder, series_uid=None, rules=None):
    """The study in a folder, and the verdicts on its series; by the usual rules unless others are given."""
    study = read_study(list_files(folder))
    return study, consider_series(study, load_rules() if rules is None else rules, series_uid)


@pytest.mark.parametrize("description", ["HippoCrop", "hippocrop", " HIPPO CROP ", "Hippo\tCrop"])
def test_case_and_spaces_of_the_description_are_ignored(make_study, crop_files, edit, description):
    study = make_study()
    edit(crop_files(study), lambda dataset: setattr(dataset, "SeriesDescription", description))
    assert get_series_for_inference(*_considered(study)).modality == "MR"


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
    found, verdicts = _considered(study)
    (verdict,) = [one for one in verdicts if one.series_instance_uid == crop_uid]
    assert not verdict.accepted
    assert verdict.condition == condition
    assert verdict.ours == (condition == "not-our-result")
    assert ("\\".join(value) if isinstance(value, list) else value) in re.search(r"'(.*)'", verdict.reason)[1]
    with pytest.raises(Refusal) as refused:
        get_series_for_inference(found, verdicts)
    assert refused.value.code == "no-hippocrop-series"


def test_two_candidates_are_refused_and_one_can_be_chosen(make_study, add_series):
    study = make_study()
    other = pydicom.dcmread(add_series(study)[0]).SeriesInstanceUID
    with pytest.raises(Refusal) as refused:
        get_series_for_inference(*_considered(study))
    assert refused.value.code == "several-hippocrop-series"
    assert other in refused.value.reason

    found, verdicts = _considered(study, other)
    assert get_series_for_inference(found, verdicts).uid == other
    assert [one.condition for one in verdicts if one.description == "HippoCrop"].count("chosen") == 1


def test_a_choice_does_not_waive_the_conditions(make_study):
    study = make_study()
    brain = next(series for series in read_study(list_files(study)).series if series.description != "HippoCrop")
    with pytest.raises(Refusal) as refused:
        get_series_for_inference(*_considered(study, brain.uid))
    assert refused.value.code == "no-hippocrop-series"


def test_a_picture_of_the_crop_beside_it_is_no_second_candidate(make_study, add_series):
    study = make_study()
    for path in add_series(study)[1:]:
        path.unlink()
    found, verdicts = _considered(study)
    assert "3d-able" in [one.condition for one in verdicts]
    get_series_for_inference(found, verdicts)


def test_rules_are_data(make_study, tmp_path):
    path = tmp_path / "rules.json"
    path.write_text('[{"name": "brain", "attribute": "SeriesDescription", "test": "is", "values": ["T1 POST"]}]')
    rules = load_rules(path)
    assert get_series_for_inference(*_considered(make_study(), rules=rules)).description == "T1post"
    assert rules_sha256(rules) == rules_sha256(load_rules(path)) != rules_sha256(load_rules())


@pytest.mark.parametrize(
    "rules",
    [
        *("", "{}", "[1]", '[{"name": "x"}]'),
        '[{"name": "x", "attribute": "Modality", "test": "is", "values": "MR"}]',
        '[{"name": "x", "attribute": "Modality", "test": "magic", "values": ["MR"]}]',
    ],
)
def test_a_rule_file_that_makes_no_sense_is_not_the_study_s_fault(tmp_path, rules):
    path = tmp_path / "rules.json"
    path.write_text(rules)
    with pytest.raises(Failure) as failed:
        load_rules(path)
    assert failed.value.code == "bad-rules"


def test_neither_is_a_rule_file_that_is_not_there(tmp_path):
    with pytest.raises(Failure) as failed:
        load_rules(tmp_path / "none.json")
    assert failed.value.code == "bad-rules"
    assert "No such file" in failed.value.reason


def test_no_rules_make_a_result_the_input(make_study, crop_files, edit, tmp_path):
    study = make_study()
    edit(crop_files(study), lambda dataset: setattr(dataset, "SeriesDescription", "hippovolume.ai REPORT"))
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([]))
    found, verdicts = _considered(study, rules=load_rules(path))
    assert [one.description for one in verdicts if one.condition == "not-our-result"] == ["hippovolume.ai REPORT"]
    assert get_series_for_inference(found, verdicts).description == "T1post"


def test_a_study_is_what_it_was_before_our_results_joined_it(make_study, add_series):
    study = make_study()
    before = read_study(list_files(study))
    add_series(study, description="HippoVolume.AI measurements", PatientName="Corrected^Later")
    after = read_study(list_files(study))
    assert [is_ours(series) for series in after.series].count(True) == 1
    assert without_ours(after).series == [after.series_of(series.uid) for series in before.series]
    assert without_ours(after).header_for(None) == before.header_for(None)
