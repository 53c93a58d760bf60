"""A label moved by a voxel is told from one in its place, on phantoms."""

import numpy as np

import curation
import label_shift


def test_moves_are_read_back(larger_pairs):
    profiles, persons = np.array([pair.profiles for pair in larger_pairs]), [pair.person for pair in larger_pairs]
    in_place = label_shift.estimate_shifts(profiles, persons)
    one_person = np.flatnonzero(np.array(persons) == persons[6])
    for row, move in enumerate(label_shift.MOVES[1:], start=1):
        moved = profiles.copy()
        moved[one_person, 0] = profiles[one_person, row]
        change = label_shift.estimate_shifts(moved, persons)[one_person] - in_place[one_person]
        np.testing.assert_allclose(change.mean(axis=0), move, atol=0.55)


def test_most_labels_lie_in_place(larger_pairs):
    shifts = np.array([pair.shift_voxels for pair in larger_pairs])
    assert np.mean(np.abs(shifts).max(axis=1) < curation.FAR_SHIFT) > 0.8


def test_intensity_scale_does_not_matter(clean_set):
    name = "hippocampus_001.nii.gz"
    image, label = (curation.load_ras(clean_set / kind / name).array for kind in ("images", "labels"))
    expected = label_shift.surface_profiles(image, label)
    np.testing.assert_allclose(label_shift.surface_profiles(image * 1000.0 + 7, label), expected, atol=1e-4)


def test_too_few_pairs_say_nothing(larger_pairs):
    few = larger_pairs[: label_shift.MIN_PAIRS - 1]
    assert np.isnan(label_shift.estimate_shifts(np.array([p.profiles for p in few]), [p.person for p in few])).all()
