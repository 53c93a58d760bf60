"""A series as one volume on its own grid.

Patient coordinates are those of NIfTI here: RAS+, millimetres.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from common.refusal import Refusal, Stop
from common.volume import LARGEST_HEAD, Grid, Volume
from reading.dicom_file import Instance
from reading.dicom_pixels import grey_values, stored_pixels
from reading.dicom_series import Series
from reading.dicom_slices import STEP_TOLERANCE, Slice, checked_slices

# mm: finer or coarser voxels are not resampled faithfully to the model's grid.
SPACING_LIMITS = (0.4, 2.0)
# mm a side; the longest crops of training have 59. Resampling and segmenting much more would fill the memory.
FIELD_OF_VIEW_LIMIT = 100
MOST_PICTURED = 1 << 25  # voxels of a series that is only to be looked at: 128 MiB

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class SourceVolume(Volume):
    """A series as a volume: its voxels untouched but for rescale, its axes reordered.

    instances: one a slice, or one a frame of a multi-frame image, with that slice's geometry in its header, sorted by
    position along the slices' normal. order: which of columns, rows and slices runs along X, Y and Z. reversed_axes:
    those of X, Y and Z that run against it.
    """

    instances: list[Instance]
    order: tuple[int, int, int]
    reversed_axes: tuple[int, ...]

    @property
    def affine_by_slice(self) -> np.ndarray:
        """[4, 4] from column, row and slice to RAS."""
        affine = np.eye(4)
        affine[:3, 3] = self.grid.affine[:3, 3]
        for axis, own in enumerate(self.order):
            affine[:3, own] = self.grid.affine[:3, axis]
            if axis in self.reversed_axes:
                affine[:3, 3] += (self.grid.shape[axis] - 1) * affine[:3, own]
                affine[:3, own] *= -1
        return affine

    def by_slice(self, array: np.ndarray) -> np.ndarray:
        """`array` [X, Y, Z] on this grid as [slices, rows, columns] of the instances."""
        stacked = np.flip(array, self.reversed_axes).transpose(np.argsort(self.order))
        return stacked.transpose(2, 1, 0)


def load_dicom_volume_as_numpy_from_list(series: Series) -> SourceVolume:
    """Build the volume of a crop from its slices' positions and orientations, never from their numbers.

    Single-frame and enhanced multi-frame images alike. Raises Refusal: too-few-slices, slices-missing, geometry-*,
    unreadable-pixels; Failure: cannot-read, helper-failed.
    """
    slices = checked_slices(series)
    require_resampleable(_grid(slices))  # before any pixel is decoded
    return _volume(slices)


def load_head(series: Series) -> SourceVolume:
    """The same of a head, whose voxels and extent are judged by who looks for the hippocampi in it."""
    slices = checked_slices(series)
    shape = _grid(slices).shape
    if np.prod(shape, dtype=float) > LARGEST_HEAD:
        found = " x ".join(map(str, shape))
        raise Refusal("geometry-field-of-view", f"the series has {found} voxels, more than a head needs")
    return _volume(slices)


def volume_to_look_at(series: Series) -> SourceVolume | None:
    """What a series shows that was refused, as far as it is one volume; None where it is not."""
    try:
        slices = checked_slices(series)
        return _volume(slices) if np.prod(_grid(slices).shape, dtype=float) <= MOST_PICTURED else None
    except Stop:  # a picture that is missing changes nothing about the refusal
        return None


def _volume(slices: list[Slice]) -> SourceVolume:
    voxels, grid = _stacked(slices), _grid(slices)
    order, reversed_axes = _way_to_ras(grid.affine)
    shape = tuple(grid.shape[axis] for axis in order)
    affine = grid.affine[:, [*order, 3]]
    for axis in reversed_axes:
        affine[:3, 3] += (shape[axis] - 1) * affine[:3, axis]
        affine[:3, axis] *= -1
    voxels = np.ascontiguousarray(np.flip(voxels.transpose(order), reversed_axes))
    return SourceVolume(voxels, Grid(shape, affine), [one.instance for one in slices], order, reversed_axes)


def _grid(slices: list[Slice]) -> Grid:
    """The grid of columns, rows and slices (PS3.3, equation C.7.6.2.1-1)."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.pixel_spacing[1]
    affine[:3, 1] = first.along_column * first.pixel_spacing[0]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return Grid((first.columns, first.rows, len(slices)), _LPS_TO_RAS @ affine)


def _way_to_ras(affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """The order of axes in which each runs most nearly along its own patient axis, and which of them to reverse."""
    directions = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    order = max(permutations(range(3)), key=lambda axes: sum(directions[row, axis] for row, axis in enumerate(axes)))
    return order, tuple(axis for axis in range(3) if affine[axis, order[axis]] < 0)


def require_resampleable(grid: Grid) -> None:
    """Neither voxels nor field of view may be out of all proportion."""
    spacing = np.array(grid.spacing)
    lowest, highest = SPACING_LIMITS
    if spacing.min() < lowest * (1 - STEP_TOLERANCE) or spacing.max() > highest * (1 + STEP_TOLERANCE):
        found = " x ".join(f"{length:.3g}" for length in spacing)
        raise Refusal("geometry-spacing", f"voxels of {found} mm, expected {lowest} to {highest} mm")
    if grid.extent.max() > FIELD_OF_VIEW_LIMIT:
        order, _ = _way_to_ras(grid.affine)
        found = " x ".join(f"{length:.4g}" for length in grid.extent[list(order)])
        raise Refusal(
            "geometry-field-of-view",
            f"the image covers {found} mm, more than a crop around one hippocampus; expected at most "
            f"{FIELD_OF_VIEW_LIMIT} mm a side",
        )


def _stacked(slices: list[Slice]) -> np.ndarray:
    """Voxels [columns, rows, slices] float32."""
    digests = {one.instance.path: one.instance.sha256 for one in slices}
    stored = {path: stored_pixels(path, sha256) for path, sha256 in digests.items()}
    voxels = np.stack([grey_values(one.instance, stored[one.instance.path]).T for one in slices], axis=-1)
    if slices[0].instance.text("PhotometricInterpretation") == "MONOCHROME1":  # the lowest value is the brightest
        voxels = voxels.max() - voxels
    return voxels
