"""A grid is a value: nobody can change it, and it answers for itself."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from common.volume import Grid, Volume


@pytest.fixture
def affine() -> np.ndarray:
    """Voxels of 0.5 x 2 x 3 mm, X and Y exchanged."""
    return np.array([[0, 2, 0, -7], [0.5, 0, 0, 11], [0, 0, 3, 1], [0, 0, 0, 1]])


def test_nobody_can_change_a_grid(affine):
    grid = Grid((4, 5, 6), affine)
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] += 1
    with pytest.raises(FrozenInstanceError):
        grid.affine = np.eye(4)
    with pytest.raises(FrozenInstanceError):
        grid.shape = (1, 1, 1)


def test_a_grid_shares_nothing_with_the_array_that_it_was_made_of(affine):
    grid = Grid((4, 5, 6), affine)
    before = affine.copy()
    affine[:] = 0  # still its owner's to write
    np.testing.assert_array_equal(grid.affine, before)


def test_a_grid_knows_its_sizes(affine):
    grid = Grid((4, 5, 6), affine)
    assert grid.spacing == pytest.approx((0.5, 2, 3))
    assert grid.voxel_mm3 == pytest.approx(3)
    np.testing.assert_allclose(grid.extent, (2, 10, 18))


def test_indices_of_one_grid_lead_to_the_same_place_in_another(affine):
    grid, other = Grid((4, 5, 6), affine), Grid((9, 9, 9), np.diag([1, 1, 1.5, 1]))
    index = np.array([1, 2, 3, 1])
    np.testing.assert_allclose(other.affine @ grid.indices_to(other) @ index, grid.affine @ index)
    np.testing.assert_allclose(grid.indices_to(grid), np.eye(4), atol=1e-12)


def test_voxels_must_fit_their_grid(affine):
    grid = Grid((4, 5, 6), affine)
    assert Volume(np.zeros((4, 5, 6), np.float32), grid).grid is grid
    with pytest.raises(ValueError, match="shape"):
        Volume(np.zeros((6, 5, 4), np.float32), grid)
