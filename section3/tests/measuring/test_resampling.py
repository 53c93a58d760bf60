"""From the grid of a series to that of the model, and back."""

import numpy as np
import pytest

from common.volume import Grid, Volume
from measuring.measure_crop import get_predicted_volumes
from measuring.resampling import to_model_grid, to_source_grid
from measuring.unet_inference_agent import UNetInferenceAgent

GRIDS = [
    ((1, 1, 1), (36, 50, 34)),
    ((0.5, 0.9, 1.4), (72, 56, 25)),
    ((1.3, 0.7, 0.45), (28, 72, 76)),
    ((0.8, 1.1, 1.7), (45, 46, 20)),
]


def _volume(voxels, spacing=(1, 1, 1), turned=None):
    """A volume somewhere in space, its axes turned by a matrix."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turned is None else turned) @ np.diag(spacing)
    affine[:3, 3] = -21.4, 13.2, 8.7
    return Volume(np.asarray(voxels, np.float32), Grid(np.shape(voxels), affine))


def _indices(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)


def _points(grid):
    """The patient coordinates [X, Y, Z, 3] of a grid's voxels."""
    return _indices(grid.shape) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def _unlike_padding(image: np.ndarray) -> np.ndarray:
    """The image with one corner unlike the others."""
    image[0, 0, 0] += 50
    return image


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("spacing", [(0.5, 0.9, 1.4), (1.3, 0.7, 0.45), (1, 1, 1), (1.5, 1.5, 1.5)])
def test_the_mask_on_the_source_has_the_volume_found_on_the_model_grid(rotation, spacing, degrees):
    shape = tuple(int(48 / step) for step in spacing)
    source = _volume(_unlike_padding(np.zeros(shape)), spacing, rotation(degrees))
    model_grid = to_model_grid(source).grid
    points = _indices(model_grid.shape) - (np.array(model_grid.shape) - 1) / 2
    anterior, posterior = (np.linalg.norm(points - (0, y, 0), axis=-1) < 7.3 for y in (6, -6))
    posterior &= ~anterior
    probabilities = np.stack([~(anterior | posterior), anterior, posterior]).astype(np.float32)
    labels, _ = to_source_grid(probabilities, model_grid, source.grid)
    volumes = get_predicted_volumes(labels, source.grid)
    assert volumes["anterior"] == pytest.approx(anterior.sum(), abs=float(np.prod(spacing)))
    assert volumes["total"] == pytest.approx((anterior | posterior).sum(), abs=float(np.prod(spacing)))


@pytest.mark.parametrize("degrees", [10, 20, 30])
def test_of_a_padded_crop_the_model_gets_what_was_there_before_it_was_padded(rotation, degrees):
    crop, axes = (35, 50, 36), rotation(degrees)
    shape = tuple(np.round(np.abs(axes.T) @ crop).astype(int))
    centred = _indices(shape) - (np.array(shape) - 1) / 2
    inside = (np.abs(centred @ axes.T) < np.array(crop) / 2).all(axis=-1)
    volume = to_model_grid(_volume(900 * inside, turned=axes))
    np.testing.assert_allclose(volume.voxels.shape, crop, atol=1)
    assert volume.voxels.mean() > 860


def test_an_oblique_crop_without_padding_keeps_its_size_and_fills_its_corners_with_what_is_near(rotation):
    crop = (36, 50, 34)
    volume = to_model_grid(_volume(_unlike_padding(np.full(crop, 400)), turned=rotation(20)))
    assert volume.voxels.shape == crop
    assert volume.voxels.min() >= 395


def test_a_volume_on_the_model_s_grid_goes_in_as_it_is():
    source = _volume(np.random.default_rng(0).random((7, 6, 5)))
    assert to_model_grid(source) is source


@pytest.mark.parametrize(("spacing", "degrees"), [((1.004, 0.996, 1), 0), ((1, 1, 1), 0.5)])
def test_so_does_one_whose_grid_is_nearly_the_model_s(rotation, spacing, degrees):
    source = _volume(np.random.default_rng(0).random((7, 6, 5)), spacing, rotation(degrees))
    assert to_model_grid(source) is source


@pytest.mark.parametrize(("spacing", "degrees"), [((1.02, 1, 1), 0), ((1, 1, 1), 2)])
def test_one_that_only_resembles_it_does_not(rotation, spacing, degrees):
    source = _volume(np.random.default_rng(0).random((7, 6, 5)), spacing, rotation(degrees))
    volume = to_model_grid(source)
    assert volume is not source
    np.testing.assert_array_equal(volume.grid.affine[:3, :3], np.eye(3))


def test_from_its_own_grid_the_model_s_answer_comes_back_as_it_is():
    grid = _volume(np.zeros((7, 6, 5))).grid
    probabilities = np.random.default_rng(0).random((3, 7, 6, 5), np.float32)
    labels, _ = to_source_grid(probabilities, grid, grid)
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=0))
    assert labels.dtype == np.uint8


def test_noise_finer_than_the_model_s_voxels_is_averaged_not_sampled():
    fine = np.round(1000 + 100 * np.random.default_rng(0).standard_normal((60, 80, 60)))
    middle = to_model_grid(_volume(fine, spacing=(0.5, 0.5, 0.5))).voxels[3:-3, 3:-3, 3:-3]
    assert middle.std() == pytest.approx(100 / np.sqrt(8), rel=0.05)


RADII = np.array([7, 9, 8])  # mm
FORWARD = np.array([0, 11, 0])  # mm


def _two_ellipsoids(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Brightness at patient coordinates [..., 3] (RAS, mm): one in front, one behind, blurred over 1 mm."""
    return 300 + 200 * _inside(points - centre - FORWARD) - 200 * _inside(points - centre + FORWARD)


def _inside(points: np.ndarray) -> np.ndarray:
    scaled = points / RADII
    radius = np.linalg.norm(scaled, axis=-1)
    depth = radius * (1 - radius) / np.linalg.norm(scaled / RADII, axis=-1)  # mm below the surface, to first order
    return np.clip(depth + 0.5, 0, 1)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize(("spacing", "shape"), GRIDS)
def test_one_anatomy_has_one_volume_and_place_on_any_grid(threshold_model, rotation, spacing, shape, degrees):
    """Against the formula of ellipsoids; oblique volumes are turned about two axes."""
    grid = _volume(np.zeros(shape), spacing, rotation(degrees)).grid
    centre = grid.affine[:3, :3] @ (np.array(shape) / 2 + (0.13, 0.31, -0.2)) + grid.affine[:3, 3]
    brightness = np.round(_unlike_padding(_two_ellipsoids(_points(grid), centre)))  # whole numbers, as scanners write
    source = Volume(brightness.astype(np.float32), grid)

    crop = to_model_grid(source)
    np.testing.assert_allclose(crop.voxels.shape, np.array(shape) * spacing, atol=0.51)
    probabilities = UNetInferenceAgent(threshold_model).single_volume_inference(crop.voxels)
    labels, _ = to_source_grid(probabilities, crop.grid, source.grid)
    assert labels.shape == source.voxels.shape
    volumes = get_predicted_volumes(labels, source.grid)
    for label, structure, shift in ((1, "anterior", FORWARD), (2, "posterior", -FORWARD)):
        assert volumes[structure] == pytest.approx(4 / 3 * np.pi * RADII.prod(), rel=0.013)
        found = grid.affine[:3, :3] @ np.argwhere(labels == label).mean(axis=0) + grid.affine[:3, 3]
        np.testing.assert_allclose(found, centre + shift, atol=0.12)
