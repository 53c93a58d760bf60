"""NIfTI files: which are there, what they must be to be read, and how results are written."""

import os
import zlib
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform
from nibabel.wrapstruct import WrapStructError

from resampling import Grid, Volume

SUFFIXES = (".nii", ".nii.gz")
# mm: finer or coarser voxels are not resampled faithfully to the model's grid; the clinic has the same limits.
SPACING_LIMITS = (0.4, 2.0)
SPACING_ROUNDING = 0.02  # of a limit, as scanners round
LARGEST_MM = 100  # of a crop along any axis; the curated ones measure up to 59
COSINE_TOLERANCE = 0.01  # of the axes' directions from perpendicular ones
UNREADABLE = (  # what nibabel raises of a file that is none, or broken
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.spatialimages.ImageDataError,
    WrapStructError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    zlib.error,
)
RAS = np.array([[0, 1], [1, 1], [2, 1]])


class DataError(ValueError):
    """The data cannot be used; says which file, what was found and what was expected."""


def nifti_files(folder: Path) -> list[Path]:
    """The NIfTI files of a folder, sorted by name; `._` files of macOS are none."""
    return sorted(p for p in folder.glob("*") if p.name.endswith(SUFFIXES) and not p.name.startswith("."))


def printable(text: str | Path) -> str:
    """A name or message as one line of UTF-8; what cannot be shown is escaped."""
    decoded = os.fsencode(text).decode(errors="backslashreplace")
    return " ".join("".join(c if c.isprintable() else " " for c in decoded).split())


def read_nifti(path: Path) -> nib.Nifti1Image:
    """A crop of finite numbers, read to its last byte; raises DataError naming the file otherwise.

    Its header is judged before its voxels are read: it may promise more of them than memory holds.
    """
    try:
        image = nib.load(path)
        fault = fault_of_grid(image.shape, image.affine) or fault_of_units(image.header.get_xyzt_units()[0])
        voxels = None if fault else np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise DataError(f"{printable(path)}: cannot be read ({printable(str(error))})") from error
    fault = fault or fault_of_voxels(voxels)
    if fault:
        raise DataError(f"{printable(path)}: {fault}")
    return nib.Nifti1Image(voxels, image.affine, image.header)


def fault_of_grid(shape: tuple[int, ...], affine: np.ndarray) -> str:
    """What makes a grid none of a crop around a hippocampus; empty if nothing does."""
    if len(shape) != 3:
        return f"has {len(shape)} dimensions, expected 3"
    if min(shape) < 1:
        return f"has {shape} voxels, expected one or more along each axis"
    if not np.isfinite(affine).all():
        return "its affine has values that are no finite numbers"
    grid = Grid(shape, affine)
    if min(grid.spacing) > 0 and grid.extent.max() > LARGEST_MM:
        return f"is {grid.extent.max():.4g} mm long, a crop around a hippocampus is at most {LARGEST_MM} mm"
    lowest, highest = SPACING_LIMITS
    if min(grid.spacing) < lowest * (1 - SPACING_ROUNDING) or max(grid.spacing) > highest * (1 + SPACING_ROUNDING):
        sides = " x ".join(f"{side:.3g}" for side in grid.spacing)
        return f"has voxels of {sides} mm, expected {lowest} to {highest} mm"
    directions = affine[:3, :3] / grid.spacing
    if not np.allclose(directions.T @ directions, np.eye(3), atol=COSINE_TOLERANCE):
        return "its axes are not perpendicular to each other"
    return ""


def fault_of_units(unit: str) -> str:
    return "" if unit in ("mm", "unknown") else f"is measured in {unit}s, expected mm"


def fault_of_voxels(voxels: np.ndarray) -> str:
    """What makes voxels no image; empty if nothing does."""
    if voxels.dtype.kind not in "iuf":
        return f"has voxels of type {voxels.dtype}, expected numbers"
    with np.errstate(over="ignore"):  # the model takes 32 bits, and what they cannot hold is infinite to it
        finite = np.isfinite(voxels.astype(np.float32)).all()
    return "" if finite else "has voxels that are no finite numbers"


def ras_volume(image: nib.Nifti1Image) -> Volume:
    """The image with its axes in the order of the patient's, values untouched; `as_image` undoes the order."""
    turns = ras_turns(image.affine)
    voxels = apply_orientation(np.asanyarray(image.dataobj), turns).astype(np.float32)
    return Volume(voxels, Grid(voxels.shape, image.affine @ inv_ornt_aff(turns, image.shape)))


def as_image(voxels: np.ndarray, like: nib.Nifti1Image) -> nib.Nifti1Image:
    """Voxels [X, Y, Z] or [X, Y, Z, N] on the grid of `ras_volume(like)` as an image on that of `like`."""
    image = nib.Nifti1Image(apply_orientation(voxels, ornt_transform(RAS, ras_turns(like.affine))), like.affine)
    image.header.set_xyzt_units("mm")
    return image


def ras_turns(affine: np.ndarray) -> np.ndarray:
    """[3, 2]: for each axis the patient axis along which it runs most nearly, and 1, or -1 where it runs against it."""
    directions = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    order = max(permutations(range(3)), key=lambda axes: sum(directions[row, axis] for row, axis in enumerate(axes)))
    return np.array([[order.index(axis), np.sign(affine[order.index(axis), axis])] for axis in range(3)])


def write_image(image: nib.Nifti1Image, path: Path) -> None:
    """Through another name, so that no half a file ever has the right one."""
    unfinished = path.with_name(f".unfinished_{path.name}")
    nib.save(image, unfinished)
    unfinished.replace(path)
