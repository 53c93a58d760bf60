"""What a series is doubted for though it makes a volume."""

import pytest

from choosing.series_checks import check_series, completeness
from common.verdicts import WARN
from reading.dicom_volume import load_dicom_volume_as_numpy_from_list


@pytest.fixture
def checks_of(crop_of):
    """checks_of(study): the warnings about its crop, by name."""

    def find(folder):
        _, series = crop_of(folder)
        checks = check_series(series, load_dicom_volume_as_numpy_from_list(series))
        assert {check.verdict for check in checks} <= {WARN}
        return {check.name: check for check in checks}

    return find


def test_a_usual_series_is_not_doubted(make_study, checks_of):
    assert checks_of(make_study()) == {}


def test_a_slice_that_is_missing_at_an_end_is_noticed(make_study, crop_files, crop_of):
    study = make_study()
    crop = crop_files(study)
    assert completeness(crop_of(study)[1]) is None
    crop[-1].unlink()
    check = completeness(crop_of(study)[1])
    assert (check.name, check.verdict, check.value) == ("slices", WARN, len(crop) - 1)
    for number in (str(len(crop)), str(len(crop) - 1)):
        assert number in check.sentence
    assert str(len(crop)) in check.limit


@pytest.mark.parametrize("stated", [None, "", "0", 16])
def test_a_series_that_states_no_more_slices_than_it_has_is_complete(make_study, crop_files, crop_of, edit, stated):
    study = make_study()
    assert len(crop_files(study)) > 16
    edit(crop_files(study), lambda dataset: setattr(dataset, "ImagesInAcquisition", stated))
    assert completeness(crop_of(study)[1]) is None


def test_of_what_the_files_state_the_most_counts(make_study, crop_files, crop_of, edit):
    study = make_study()
    edit(crop_files(study)[:1], lambda dataset: setattr(dataset, "ImagesInAcquisition", 99))
    assert "99" in completeness(crop_of(study)[1]).sentence


@pytest.mark.parametrize("stated", ["", "1", "1.01", "none", "0", "-1", "nan"])
def test_a_step_as_stated_or_not_stated_is_not_doubted(make_study, crop_files, checks_of, edit, stated):
    study = make_study()
    edit(crop_files(study), lambda dataset: dataset.add_new("SpacingBetweenSlices", "LO", stated))
    assert checks_of(study) == {}


@pytest.mark.parametrize("step", [1.1, 1.3, 0.8])
def test_slices_further_apart_than_stated_are_a_warning_with_what_it_means(
    make_study, crop_files, checks_of, edit, step
):
    study = make_study()

    def move(dataset):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z * step]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = 1

    edit(crop_files(study), move)
    (check,) = checks_of(study).values()
    assert (check.name, check.value) == ("slice_step", pytest.approx(step))
    assert f"{step - 1:+.0%}" in check.sentence


def test_slices_thicker_than_their_step_overlap_and_are_not_doubted(make_study, crop_files, checks_of, edit):
    study = make_study()
    edit(crop_files(study), lambda dataset: setattr(dataset, "SliceThickness", 2))
    assert checks_of(study) == {}


@pytest.mark.parametrize("of", [slice(None), slice(3, 4)])
def test_loss_is_a_warning(make_study, crop_files, checks_of, edit, of):
    study = make_study()
    edit(crop_files(study)[of], lambda dataset: setattr(dataset, "LossyImageCompression", "01"))
    assert list(checks_of(study)) == ["lossy"]
