"""A head from a NIfTI or MGH file: its volume in the patient's axes, and masks back on the file's own grid."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.wrapstruct import WrapStructError

from common.refusal import Failure, Refusal
from common.volume import LARGEST_HEAD, Grid, Volume

SUFFIXES = (".nii", ".nii.gz", ".mgz")
RAS = np.array([[0, 1], [1, 1], [2, 1]])
PERPENDICULAR = 0.01  # of the cosine between two axes
SAME_PLACE = 1.0  # mm: so far may qform and sform lie apart, as one is rounded otherwise than the other
UNREADABLE = (  # what nibabel raises of a file that is none, or broken
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.spatialimages.ImageDataError,
    WrapStructError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class HeadImage:
    """volume: with axes that run most nearly right, anterior and superior. turns: how the file's own axes run."""

    volume: Volume
    affine: np.ndarray
    turns: np.ndarray

    def on_own_grid(self, labels: np.ndarray) -> nib.Nifti1Image:
        """Labels [X, Y, Z] uint8 on the volume's grid as an image on that of the file."""
        image = nib.Nifti1Image(apply_orientation(labels, ornt_transform(RAS, self.turns)), self.affine)
        image.header.set_xyzt_units("mm")
        return image


def read_head(path: Path) -> HeadImage:
    """Raises Refusal: unreadable-pixels and geometry-...; Failure: cannot-read."""
    try:
        return placed(nib.load(path))
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError) or error.errno:
            raise Failure("cannot-read", f"the file cannot be read: {error.strerror}") from error
        raise Refusal("unreadable-pixels", "the file is no whole image") from error
    except UNREADABLE as error:
        raise Refusal("unreadable-pixels", f"the file is no image that can be read ({type(error).__name__})") from error


def placed(image: nib.spatialimages.SpatialImage) -> HeadImage:
    """Raises Refusal as above, and what nibabel raises."""
    _require_grid(image)
    voxels = np.asanyarray(image.dataobj)
    if voxels.dtype.kind not in "iuf":
        raise Refusal("unreadable-pixels", f"the voxels are of type {voxels.dtype}, expected numbers")
    voxels = voxels.reshape(voxels.shape[:3]).astype(np.float32)
    if not np.isfinite(voxels).all():
        raise Refusal("unreadable-pixels", "some voxels are no finite numbers")
    turns = io_orientation(image.affine)
    turned = apply_orientation(voxels, turns)
    grid = Grid(turned.shape, image.affine @ inv_ornt_aff(turns, voxels.shape))
    return HeadImage(Volume(turned, grid), image.affine, turns)


def _require_grid(image: nib.spatialimages.SpatialImage) -> None:
    """The header is judged before voxels are read: it may promise more of them than memory holds."""
    shape = image.shape
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise Refusal("geometry-missing", f"the image has the shape {shape}, expected one volume")
    if min(shape[:3]) < 8 or np.prod(shape[:3], dtype=float) > LARGEST_HEAD:
        raise Refusal(
            "geometry-field-of-view", f"the image has {' x '.join(map(str, shape[:3]))} voxels: it is no head"
        )
    if isinstance(image, nib.Nifti1Pair):
        _require_one_place(image)
    affine = image.affine
    if not np.isfinite(affine).all() or min(Grid(shape[:3], affine).spacing) <= 0:
        raise Refusal("geometry-missing", "the header does not say where the voxels lie")
    directions = affine[:3, :3] / Grid(shape[:3], affine).spacing
    if not np.allclose(directions.T @ directions, np.eye(3), atol=PERPENDICULAR):
        raise Refusal("geometry-uneven", "the axes of the image are not perpendicular to each other")


def _require_one_place(image: nib.Nifti1Pair) -> None:
    """A header may say twice where the voxels lie, or not at all; then nobody knows which side is left."""
    (qform, in_q), (sform, in_s) = image.get_qform(coded=True), image.get_sform(coded=True)
    if not in_q and not in_s:
        raise Refusal(
            "geometry-missing", "the header has neither qform nor sform, so that left and right are not known"
        )
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise Refusal("geometry-spacing", f"the image is measured in {unit}s, expected mm")
    if in_q and in_s:
        corners = np.array(np.meshgrid(*((0, size - 1) for size in image.shape[:3]))).reshape(3, -1)
        apart = np.abs((qform - sform)[:3, :3] @ corners + (qform - sform)[:3, 3:]).max()
        if not apart <= SAME_PLACE:
            told = f"qform {_in_words(qform)}, sform {_in_words(sform)}"
            raise Refusal("geometry-conflict", f"qform and sform disagree by {apart:.3g} mm: {told}")


def _in_words(affine: np.ndarray) -> str:
    """Which way the axes run, and where the first voxel lies."""
    try:
        axes = "".join(nib.aff2axcodes(affine))
    except (ValueError, TypeError):
        axes = "no axes"
    return f"{axes} from {', '.join(f'{value:.1f}' for value in affine[:3, 3])} mm"
