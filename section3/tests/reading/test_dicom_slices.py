"""What must hold for the slices of a series to be one volume."""

import numpy as np
import pydicom
import pytest

from common.refusal import Refusal
from phantom import write_series
from reading.dicom_slices import checked_slices


def _move(*shift: float):
    def change(dataset):
        position = np.array(dataset.ImagePositionPatient, float) + shift
        dataset.ImagePositionPatient = [f"{value:.6g}" for value in position]

    return change


def _halve_rows(dataset):
    dataset.PixelData = dataset.pixel_array[: dataset.Rows // 2].tobytes()
    dataset.Rows //= 2


def _set(keyword, value):
    return lambda dataset: setattr(dataset, keyword, value)


def _from_the_bottom_up(paths):
    return sorted(paths, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


TILTED = [0.98480775, 0.17364818, 0, -0.17364818, 0.98480775, 0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_move(0, 0, 1), "geometry-duplicate-position"),
        (_move(0, 0, 0.3), "geometry-uneven"),
        (_move(0, 2, 0), "geometry-gantry-tilt"),
        (_halve_rows, "geometry-mixed-size"),
        (_set("PixelSpacing", [1, 1.2]), "geometry-mixed-spacing"),
        (_set("ImageOrientationPatient", TILTED), "geometry-mixed-orientation"),
        (_set("FrameOfReferenceUID", "1.2.3"), "geometry-mixed-frame"),
    ],
)
def test_one_slice_unlike_the_others_is_refused_with_both_files(tmp_path, noise, edit, series_in, change, code):
    paths = _from_the_bottom_up(write_series(tmp_path, noise))
    edit([paths[2]], change)
    with pytest.raises(Refusal) as refused:
        checked_slices(series_in(tmp_path))
    assert refused.value.code == code
    assert sum(path.name in refused.value.reason for path in paths) == 2
    assert "\n" not in refused.value.reason


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, noise, series_in):
    paths = _from_the_bottom_up(write_series(tmp_path, noise))
    paths[2].unlink()
    with pytest.raises(Refusal) as refused:
        checked_slices(series_in(tmp_path))
    assert refused.value.code == "geometry-gap"
    assert paths[1].name in refused.value.reason
    assert paths[3].name in refused.value.reason


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImagePositionPatient", None),
        ("ImagePositionPatient", [0, 0]),
        ("ImageOrientationPatient", None),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("PixelSpacing", None),
        ("PixelSpacing", [1, 0]),
        ("PixelSpacing", []),
    ],
)
def test_absent_or_senseless_attributes_are_refused_by_name(tmp_path, noise, series_in, keyword, value):
    write_series(tmp_path, noise, **{keyword: value})
    with pytest.raises(Refusal) as refused:
        checked_slices(series_in(tmp_path))
    assert refused.value.code == "geometry-missing"
    assert keyword in refused.value.reason


def test_one_slice_is_no_volume(tmp_path, noise, series_in):
    for path in write_series(tmp_path, noise)[1:]:
        path.unlink()
    with pytest.raises(Refusal) as refused:
        checked_slices(series_in(tmp_path))
    assert refused.value.code == "too-few-slices"


def test_neither_names_nor_instance_numbers_order_the_slices(tmp_path, noise, edit, load):
    paths = write_series(tmp_path, noise)
    for number, path in enumerate(np.random.default_rng(1).permutation(paths)):
        edit([path], lambda dataset, number=number: setattr(dataset, "InstanceNumber", number))
        path.rename(path.with_name(f"{number:03d}.dcm"))
    source = load(tmp_path)
    np.testing.assert_array_equal(source.voxels, noise)
    heights = [float(instance.header.ImagePositionPatient[2]) for instance in source.instances]
    assert heights == sorted(heights)


# --- enhanced multi-frame images --------------------------------------------------------------------------------------


def test_a_frame_that_was_taken_out_is_a_gap_and_named(tmp_path, noise, edit, to_enhanced, series_in):
    path = to_enhanced(write_series(tmp_path, noise))
    slices = checked_slices(series_in(tmp_path))
    assert len(slices) == noise.shape[2]
    middle = slices[2].instance.frame

    def take_out(dataset):
        kept = np.delete(dataset.pixel_array, middle, axis=0)
        dataset.PerFrameFunctionalGroupsSequence.pop(middle)
        dataset.NumberOfFrames, dataset.PixelData = len(kept), kept.tobytes()

    edit([path], take_out)
    with pytest.raises(Refusal) as refused:
        checked_slices(series_in(tmp_path))
    assert refused.value.code == "geometry-gap"
    assert "frame" in refused.value.reason


def _last_place(dataset):
    dataset.PerFrameFunctionalGroupsSequence.pop()


def _last_frame(dataset):
    dataset.NumberOfFrames -= 1


@pytest.mark.parametrize(("drop", "stated", "placed"), [(_last_place, 5, 4), (_last_frame, 4, 5)])
def test_a_frame_without_a_place_is_a_missing_slice(
    tmp_path, noise, edit, to_enhanced, series_in, drop, stated, placed
):
    """At an end of the series no gap would show it."""
    path = to_enhanced(_from_the_bottom_up(write_series(tmp_path, noise)))
    edit([path], drop)
    with pytest.raises(Refusal) as refused:
        checked_slices(series_in(tmp_path))
    assert refused.value.code == "slices-missing"
    assert f"{path.name} states {stated} frames and places {placed}" in refused.value.reason


def _with_damage(path, *, before, after):
    """Write other bytes in place of the last occurrence of some."""
    content = path.read_bytes()
    at = content.rindex(before)
    path.write_bytes(content[:at] + after + content[at + len(before) :])


def test_the_place_of_a_frame_that_cannot_be_decoded_is_missing(tmp_path, noise, to_enhanced, series_in):
    path = to_enhanced(write_series(tmp_path, noise))
    _with_damage(path, before=b"\x20\x00\x32\x00DS", after=b"\x20\x00\x32\x00FD")  # not of as many bytes
    with pytest.raises(Refusal) as refused:
        checked_slices(series_in(tmp_path))
    assert refused.value.code == "geometry-missing"
    assert f"{path.name}, frame 5" in refused.value.reason


def test_what_is_damaged_and_not_needed_is_left_alone(tmp_path, noise, to_enhanced, series_in):
    path = to_enhanced(write_series(tmp_path, noise))
    private = b"\x09\x00\x10\x00LO\x04\x00SOME\x09\x00\x01\x10US\x05\x00other"
    _with_damage(path, before=b"\x10\x00\x10\x00PN", after=private + b"\x10\x00\x10\x00PN")
    assert len(checked_slices(series_in(tmp_path))) == noise.shape[2]


def test_a_damaged_image_is_refused_each_time_for_the_same_reason(tmp_path, noise, to_enhanced, series_in):
    """pydicom gives at the second time what it could not decode at the first."""
    path = to_enhanced(write_series(tmp_path, noise))
    _with_damage(path, before=b"\x28\x00\x03\x01US\x02\x00", after=b"\x28\x00\x03\x01US\x05\x00nan")
    series = series_in(tmp_path)
    reasons = []
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            checked_slices(series)
        reasons.append(str(refused.value))
    assert reasons[0] == reasons[1]
    assert reasons[0].endswith("[geometry-missing]")
