"""From slices to a volume in the right place, and back."""

from itertools import permutations, product

import numpy as np
import pydicom
import pytest

from common.refusal import Failure, Refusal
from phantom import write_series
from reading import dicom_volume
from reading.dicom_series import Series
from reading.dicom_volume import load_dicom_volume_as_numpy_from_list, volume_to_look_at

SPACING = (0.8, 1.1, 1.7)
ORIENTATIONS = [
    "".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)
]  # all 48 ways to lay columns, rows and slices along the patient's axes


@pytest.fixture
def turn(edit, rotation):
    """turn(paths, degrees) turns a series about two axes through the origin."""

    def turn_files(paths, degrees):
        matrix = rotation(degrees)

        def change(dataset):
            orientation = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3) @ matrix.T
            dataset.ImageOrientationPatient = [f"{value:.10g}" for value in orientation.ravel()]
            position = matrix @ np.array(dataset.ImagePositionPatient, float)
            dataset.ImagePositionPatient = [f"{value:.10g}" for value in position]

        edit(paths, change)

    return turn_files


def _straight():
    """The affine of the phantom's volumes, which have their origin at voxel (X-1, Y-1, 0)."""
    affine = np.diag([*SPACING, 1])
    affine[:2, 3] = -6 * SPACING[0], -5 * SPACING[1]
    return affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_axis_order_and_sign_gives_the_same_volume(tmp_path, noise, load, orientation):
    write_series(tmp_path, noise, spacing=SPACING, orientation=orientation)
    source = load(tmp_path)
    np.testing.assert_array_equal(source.voxels, noise)
    assert source.grid.shape == noise.shape
    np.testing.assert_allclose(source.grid.spacing, SPACING)
    np.testing.assert_allclose(source.grid.affine, _straight(), atol=1e-6)


@pytest.mark.parametrize("degrees", [-30, 20])
@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SAL"])
def test_an_oblique_series_lies_where_its_slices_say(tmp_path, noise, load, turn, rotation, orientation, degrees):
    turn(write_series(tmp_path, noise, spacing=SPACING, orientation=orientation), degrees)
    source = load(tmp_path)
    np.testing.assert_array_equal(source.voxels, noise)
    np.testing.assert_allclose(source.grid.spacing, SPACING)
    ras = np.diag([-1, -1, 1])  # the series was turned in DICOM's coordinates
    expected = _straight()
    expected[:3] = ras @ rotation(degrees) @ ras @ expected[:3]
    np.testing.assert_allclose(source.grid.affine, expected, atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_back_in_the_slices_every_voxel_is_where_it_came_from(tmp_path, noise, load, turn, orientation, degrees):
    turn(write_series(tmp_path, noise, spacing=SPACING, orientation=orientation), degrees)
    source = load(tmp_path)
    pixels = [pydicom.dcmread(instance.path).pixel_array for instance in source.instances]
    np.testing.assert_array_equal(source.by_slice(source.voxels), pixels)


def test_a_volume_s_grid_is_a_value(tmp_path, noise, load):
    write_series(tmp_path, noise)
    with pytest.raises(ValueError, match="read-only"):
        load(tmp_path).grid.affine[0, 0] = 2


def test_monochrome1_is_inverted(tmp_path, noise, load):
    write_series(tmp_path, noise, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(load(tmp_path).voxels, noise.max() - noise)


def test_an_enhanced_image_is_the_same_volume(tmp_path, noise, load, to_enhanced):
    paths = write_series(tmp_path, noise, spacing=SPACING, orientation="PIR")
    single = load(tmp_path)
    path = to_enhanced(paths)
    source = load(tmp_path)
    np.testing.assert_array_equal(source.voxels, single.voxels)
    np.testing.assert_allclose(source.grid.affine, single.grid.affine)
    assert [instance.path for instance in source.instances] == [path] * len(paths)
    slices = source.by_slice(source.voxels)
    stored = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(slices, stored[[instance.frame for instance in source.instances]])


def test_a_field_of_view_beyond_the_limit_is_refused_before_pixels_are_decoded(tmp_path, noise, load):
    write_series(tmp_path, noise, Rows=65535, Columns=65535)
    with pytest.raises(Refusal) as refused:
        load(tmp_path)
    assert refused.value.code == "geometry-field-of-view"


@pytest.mark.parametrize("spacing", [(1, 1, 6.5), (0.2, 1, 1)])
def test_voxels_beyond_the_limits_are_refused(tmp_path, noise, load, spacing):
    write_series(tmp_path, noise, spacing=spacing)
    with pytest.raises(Refusal) as refused:
        load(tmp_path)
    assert refused.value.code == "geometry-spacing"


def test_the_order_of_the_instances_in_memory_means_nothing(tmp_path, noise, series_in):
    write_series(tmp_path, noise)
    instances = series_in(tmp_path).instances
    for order in (instances, instances[::-1]):
        np.testing.assert_array_equal(load_dicom_volume_as_numpy_from_list(Series("1.2", order)).voxels, noise)


def test_a_file_that_vanishes_after_its_header_was_read_is_not_the_study_s_fault(tmp_path, noise, series_in):
    path = write_series(tmp_path, noise)[2]
    series = series_in(tmp_path)
    path.unlink()
    with pytest.raises(Failure) as failed:
        load_dicom_volume_as_numpy_from_list(series)
    assert failed.value.code == "cannot-read"
    assert path.name in failed.value.reason


# --- what is refused for its size, to look at -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spacing", "code"),
    [((135, 8, 5), (2, 1.8, 2), "geometry-field-of-view"), ((7, 6, 5), (1, 1, 6.5), "geometry-spacing")],
)
def test_what_is_refused_for_its_size_can_be_looked_at(tmp_path, load, series_in, shape, spacing, code):
    voxels = np.random.default_rng(0).integers(0, 1000, shape)
    write_series(tmp_path, voxels, spacing=spacing, orientation="PIR")
    with pytest.raises(Refusal) as refused:
        load(tmp_path)
    assert refused.value.code == code
    volume = volume_to_look_at(series_in(tmp_path))
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.grid.extent, np.multiply(shape, spacing))


def _take_a_slice_out(paths, _):
    sorted(paths, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])[2].unlink()


def _leave_one_slice(paths, _):
    for path in paths[1:]:
        path.unlink()


def _move_a_slice(paths, edit):
    edit(paths[:1], lambda dataset: setattr(dataset, "ImagePositionPatient", [50, 60, 70]))


def _drop_positions(paths, edit):
    edit(paths, lambda dataset: dataset.pop("ImagePositionPatient"))


def _drop_pixels(paths, edit):
    edit(paths[:1], lambda dataset: dataset.pop("PixelData"))


@pytest.mark.parametrize(
    "change",
    [
        _take_a_slice_out,
        _leave_one_slice,
        _move_a_slice,
        _drop_positions,
        _drop_pixels,
    ],
)
def test_there_is_nothing_to_look_at_of_what_is_no_volume(tmp_path, noise, edit, series_in, change):
    paths = write_series(tmp_path, noise, spacing=(1, 1, 6.5))
    assert volume_to_look_at(series_in(tmp_path)) is not None
    change(paths, edit)
    assert volume_to_look_at(series_in(tmp_path)) is None


def test_nor_is_there_of_what_would_fill_the_memory(tmp_path, noise, series_in, monkeypatch):
    write_series(tmp_path, noise, spacing=(1, 1, 6.5))
    monkeypatch.setattr(dicom_volume, "MOST_PICTURED", noise.size)
    assert volume_to_look_at(series_in(tmp_path)) is not None
    monkeypatch.setattr(dicom_volume, "MOST_PICTURED", noise.size - 1)
    assert volume_to_look_at(series_in(tmp_path)) is None


def test_what_would_is_not_even_decoded(tmp_path, noise, series_in):
    write_series(tmp_path, noise, Rows=65535, Columns=65535)
    assert volume_to_look_at(series_in(tmp_path)) is None
