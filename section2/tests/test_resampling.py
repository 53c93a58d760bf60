import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from phantom import make_phantom
from resampling import Grid, Volume, interpolated, to_model_grid, to_source_grid

GRIDS = {
    "fine": ((0.5, 0.5, 0.5), 0),
    "anisotropic": ((0.5, 0.8, 1.3), 0),
    "coarse": ((1.5, 1.0, 0.7), 0),
    "oblique": ((1, 1, 1), 20),
    "oblique and anisotropic": ((0.7, 1, 1.2), 15),
}


def grid_of(shape, spacing=(1, 1, 1), degrees=0.0) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [degrees, degrees / 2, -degrees], degrees=True).as_matrix()
    affine[:3, :3] *= spacing
    affine[:3, 3] = 5, -7, 3
    return Grid(shape, affine)


def crop(name: str) -> Volume:
    """Tissue of 36 x 50 x 34 mm on one of GRIDS."""
    spacing, degrees = GRIDS[name]
    shape = tuple(round(size / side) for size, side in zip((36, 50, 34), spacing, strict=True))
    voxels = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    return Volume(voxels, grid_of(shape, spacing, degrees))


def answer(grid: Grid) -> np.ndarray:
    """A model's answer on its grid: a soft ellipsoid in the middle, front half anterior. [3, X, Y, Z]"""
    x, y, z = (np.arange(size) - (size - 1) / 2 for size in grid.shape)
    inside = (x[:, None, None] / 7) ** 2 + (y[None, :, None] / 16) ** 2 + (z[None, None] / 7) ** 2 < 1
    front = np.broadcast_to((y > 1)[None, :, None], grid.shape)
    parts = [gaussian_filter((inside & part).astype(np.float32), 0.6) for part in (front, ~front)]
    return np.stack([1 - sum(parts), *parts])


@pytest.mark.parametrize("turn", [0, 0.5])
def test_at_one_mm_the_voxels_go_in_and_the_labels_come_out_as_they_are(turn):
    made = make_phantom(seed=2)
    source = Volume(made.image, grid_of(made.image.shape, degrees=turn))
    seen = to_model_grid(source)
    assert seen is source
    probabilities = answer(seen.grid)
    assert np.array_equal(to_source_grid(probabilities, seen.grid, source.grid), probabilities.argmax(axis=0))
    assert interpolated(probabilities, seen.grid, source.grid) is probabilities


@pytest.mark.parametrize("name", GRIDS)
def test_the_model_s_grid_has_one_mm_and_keeps_size_and_middle(name):
    source = crop(name)
    seen = to_model_grid(source)
    assert seen.grid.spacing == (1, 1, 1) and np.array_equal(seen.grid.affine[:3, :3], np.eye(3))
    np.testing.assert_allclose(seen.grid.extent, source.grid.extent, atol=0.51)
    middles = [one.affine @ [*(np.array(one.shape) - 1) / 2, 1] for one in (source.grid, seen.grid)]
    np.testing.assert_allclose(*middles, atol=1e-9)
    assert seen.voxels.shape == seen.grid.shape
    assert seen.voxels.mean() == pytest.approx(100, abs=1)


@pytest.mark.parametrize("name", GRIDS)
def test_volumes_and_places_are_those_of_the_model_s_grid(name):
    source = crop(name)
    seen = to_model_grid(source)
    probabilities = answer(seen.grid)
    labels = to_source_grid(probabilities, seen.grid, source.grid)
    assert labels.dtype == np.uint8 and labels.shape == source.grid.shape and np.unique(labels).tolist() == [0, 1, 2]
    for label in (1, 2):
        before = probabilities.argmax(axis=0) == label
        assert (labels == label).sum() * source.grid.voxel_mm3 == pytest.approx(before.sum(), abs=1)
        places = [
            grid.affine @ [*np.argwhere(mask).mean(axis=0), 1]
            for grid, mask in ((seen.grid, before), (source.grid, labels == label))
        ]
        np.testing.assert_allclose(*places, atol=0.25)  # mm


def test_where_nothing_is_found_nothing_comes_back():
    source = crop("anisotropic")
    seen = to_model_grid(source)
    nothing = np.stack([np.ones(seen.grid.shape), *np.zeros((2, *seen.grid.shape))])
    assert not to_source_grid(nothing, seen.grid, source.grid).any()


def test_the_padding_of_a_turned_crop_is_none_of_its_size():
    plain = crop("oblique")
    padded = plain.voxels.copy()
    padded[np.ix_([0, -1], [0, -1], [0, -1])] = 0
    sizes = [to_model_grid(Volume(voxels, plain.grid)).grid.shape for voxels in (plain.voxels, padded)]
    assert sizes[0] == (36, 50, 34) and all(np.array(sizes[1]) < sizes[0])


def test_noise_of_fine_voxels_does_not_come_through():
    """A wave of 1.2 mm on voxels of 0.4 mm would look like one of 6 mm at 1 mm."""
    shape = (90, 100, 80)
    wave = np.cos(2 * np.pi * (np.arange(shape[1]) + 0.5) * 0.4 / 1.2, dtype=np.float32)
    source = Volume(np.broadcast_to(wave[None, :, None], shape).copy(), grid_of(shape, (0.4, 0.4, 0.4)))
    assert to_model_grid(source).voxels.std() < 0.1
