"""An image in space: its voxels, and where they lie."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

LARGEST_HEAD = 512**3  # voxels; no image of a head needs more


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie: how many there are along each axis, and the affine [4, 4] from index to RAS+ coordinates, mm.

    A value: made once and handed on, never changed.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, np.float64)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """The sides of a voxel in mm."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(self.spacing))

    @property
    def extent(self) -> np.ndarray:
        """The sides [3] of the whole in mm."""
        return np.array(self.shape) * self.spacing

    def indices_to(self, other: "Grid") -> np.ndarray:
        """The matrix [4, 4] from indices of this grid to indices of the other."""
        return np.linalg.inv(other.affine) @ self.affine


@dataclass(frozen=True, eq=False)
class Volume:
    """voxels: [X, Y, Z] float32 on `grid`, whose axes run most nearly right, anterior and superior."""

    voxels: np.ndarray
    grid: Grid

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise ValueError(f"voxels of shape {self.voxels.shape} on a grid of shape {self.grid.shape}")
