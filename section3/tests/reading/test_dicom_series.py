"""Which files make a study, and what is taken from it."""

import os
import shutil
import subprocess

import pydicom
import pytest

from common.refusal import Failure, Refusal
from reading.dicom_series import (
    list_files,
    read_study,
    require_one_content,
    require_readable,
    study_uid_of,
)


def test_names_mean_nothing_and_other_files_are_counted(make_study, crop_files, crop_of, tmp_path):
    study = make_study()
    flat = tmp_path / "flat" / "HippoCrop"
    (flat / "a" / "b").mkdir(parents=True)
    for number, path in enumerate(sorted(study.rglob("IM*"))):
        shutil.copy(path, flat / "a" / "b" / f"{number}.txt")
    shutil.copy(flat / "a" / "b" / "0.txt", flat / "again.dcm")
    (flat / "notes.dcm").write_text("no DICOM")
    (flat / "empty").touch()

    found, chosen = crop_of(flat)
    count = len(list_files(study))
    assert (found.files, found.not_dicom, found.duplicates) == (count + 3, 2, 1)
    assert len(chosen.instances) == len(crop_files(study))


def test_study_attributes_come_from_most_of_the_study_and_the_person_from_the_series_alone(
    make_study, crop_files, crop_of, edit
):
    study = make_study(brain_series=2)
    crop = crop_files(study)
    brain = [path for path in list_files(study) if path not in crop]
    assert len(brain) > len(crop)
    edit(brain, lambda dataset: dataset.update({"PatientSex": "F", "StudyTime": "112200"}))
    edit(crop, lambda dataset: dataset.update({"PatientBirthDate": "19600102", "StudyTime": "010313"}))
    edit(crop, lambda dataset: dataset.pop("AccessionNumber", None))

    found, chosen = crop_of(study)
    header = found.header_for(chosen)
    assert header["StudyTime"] == "112200"
    assert header["AccessionNumber"] == pydicom.dcmread(brain[0]).AccessionNumber
    assert header["PatientBirthDate"] == "19600102"
    assert "PatientSex" not in header
    assert "PatientBirthDate" not in found.header_for(None)


def test_a_name_in_any_character_set_arrives_decoded(make_study, edit):
    study = make_study()
    edit(
        list_files(study),
        lambda dataset: dataset.update({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}),
    )
    found = read_study(list_files(study))
    assert found.header_for(found.series[0])["PatientName"] == "Müller^Jörg"


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


def test_a_damaged_file_matters_unless_the_series_says_that_it_has_all_slices(make_study, crop_files, crop_of, edit):
    study = make_study()
    crop = crop_files(study)
    brain = next(path for path in list_files(study) if path not in crop)
    brain.write_bytes(brain.read_bytes()[:150])
    require_readable(*crop_of(study))
    edit(crop, lambda dataset: dataset.pop("ImagesInAcquisition"))
    with pytest.raises(Refusal) as refused:
        require_readable(*crop_of(study))
    assert refused.value.code == "unreadable-dicom"
    assert brain.name in refused.value.reason


def test_a_damaged_file_may_be_the_slice_that_is_missing_at_an_end(make_study, crop_files, crop_of):
    study = make_study()
    crop = crop_files(study)
    crop[-1].write_bytes(crop[-1].read_bytes()[:150])
    with pytest.raises(Refusal) as refused:
        require_readable(*crop_of(study))
    assert refused.value.code == "unreadable-dicom"
    assert crop[-1].name in refused.value.reason


@pytest.mark.parametrize("size", [1, 60, 128, 130])
def test_what_is_left_of_a_cut_file_is_damaged_and_not_something_else(make_study, crop_files, size):
    study = make_study()
    path = crop_files(study)[0]
    path.write_bytes(path.read_bytes()[:size])
    found = read_study(list_files(study))
    assert (found.not_dicom, [file.path for file in found.damaged]) == (0, [path])


def _copied(path, edit, change):
    """A copy beside a file, changed."""
    copy = path.with_name(f"{path.name}_copy")
    shutil.copy(path, copy)
    edit([copy], change)
    return copy


def _other_pixels(dataset):
    dataset.PixelData = bytes(len(dataset.PixelData))


def _other_place(dataset):
    dataset.ImagePositionPatient = [0, 0, -100]


@pytest.mark.parametrize("change", [_other_pixels, _other_place])
def test_one_slice_with_two_contents_is_refused_with_both_files(make_study, crop_files, crop_of, edit, change):
    study = make_study()
    require_one_content(*crop_of(study))
    path = crop_files(study)[4]
    copy = _copied(path, edit, change)
    with pytest.raises(Refusal) as refused:
        require_one_content(*crop_of(study))
    assert refused.value.code == "instance-conflict"
    assert path.name in refused.value.reason
    assert copy.name in refused.value.reason


def test_one_slice_in_two_transfer_syntaxes_is_one_slice(make_study, crop_files, crop_of, edit):
    study = make_study()
    count = len(list_files(study))
    _copied(
        crop_files(study)[4],
        edit,
        lambda dataset: dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False),
    )
    found, chosen = crop_of(study)
    assert (found.files, found.duplicates) == (count + 1, 1)
    require_one_content(found, chosen)


def test_two_contents_in_another_series_do_not_matter(make_study, crop_files, crop_of, edit):
    study = make_study()
    brain = next(path for path in list_files(study) if path not in crop_files(study))
    _copied(brain, edit, _other_pixels)
    found, chosen = crop_of(study)
    assert found.doubles
    require_one_content(found, chosen)


def test_links_to_one_file_are_read_once_and_counted(make_study):
    study = make_study()
    files = list_files(study)
    files[0].with_name("hard").hardlink_to(files[0])
    files[0].with_name("soft").symlink_to(files[0])
    found = read_study(list_files(study))
    assert (found.files, found.duplicates, found.doubles) == (len(files) + 2, 2, {})


@pytest.mark.parametrize("change", [_other_pixels, _other_place])
def test_a_study_is_known_by_all_that_its_files_hold(make_study, edit, change):
    study = make_study()
    before = read_study(list_files(study)).instances_sha256
    for number, path in enumerate(list_files(study)):
        path.rename(path.with_name(f"{number}.dcm"))  # names mean nothing
    assert read_study(list_files(study)).instances_sha256 == before
    edit(list_files(study)[:1], change)
    assert read_study(list_files(study)).instances_sha256 != before


@pytest.mark.parametrize("number", [0, 5])
def test_a_file_that_vanishes_between_listing_and_reading_is_not_the_study_s_fault(make_study, number):
    files = list_files(make_study())
    files[number].unlink()
    with pytest.raises(Failure) as failed:
        read_study(files)
    assert failed.value.code == "cannot-read"
    assert files[number].name in failed.value.reason


def test_neither_is_a_file_whose_study_is_asked_for_alone(make_study):
    study = make_study()
    path = list_files(study)[0]
    assert study_uid_of(path) == read_study(list_files(study)).uid
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(Refusal) as refused:
        study_uid_of(path)
    assert refused.value.code == "unreadable-dicom"
    path.unlink()
    with pytest.raises(Failure) as failed:
        study_uid_of(path)
    assert failed.value.code == "cannot-read"


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


def test_a_folder_that_is_gone_or_may_not_be_listed_stands_for_itself(tmp_path):
    assert list_files(tmp_path / "gone") == [tmp_path / "gone"]
