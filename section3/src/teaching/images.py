"""Images as viewers send them: NIfTI, MGH or NRRD; and labels, back on the image's own grid."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, ornt_transform

from common.refusal import Refusal
from common.structures import PARTS, structures_of
from common.volume import Grid
from reading.dicom_volume import FIELD_OF_VIEW_LIMIT
from reading.nifti_head import RAS, SUFFIXES, UNREADABLE, HeadImage, placed, read_head
from teaching.nrrd_image import read_nrrd, write_nrrd

NRRD = ".nrrd"
ENDINGS = (*SUFFIXES, NRRD)
SAME_PLACE = 0.05  # mm: so far may the corners of two grids lie apart that are the same, as files round
CROP, HEAD = "crop", "head"
NAMES = {  # of the segments, and their labels
    CROP: {part.key: part.labels[0] for part in PARTS},
    HEAD: {f"{side}_{part.key}": part.labels[0] for side in ("left", "right") for part in structures_of(side)[:2]},
}


def ending_of(name: str) -> str:
    """Raises Refusal: unreadable-pixels, where it is none that is read here."""
    found = [ending for ending in ENDINGS if name.lower().endswith(ending)]
    if not found:
        raise Refusal("unreadable-pixels", f"the file ends in none of {', '.join(ENDINGS)}")
    return max(found, key=len)


def read_image(content: bytes, ending: str) -> HeadImage:
    """Raises Refusal; Failure: cannot-read."""
    if ending == NRRD:
        try:
            return placed(read_nrrd(content))
        except UNREADABLE as error:
            raise Refusal("unreadable-pixels", f"the file is no image ({type(error).__name__})") from error
    with tempfile.NamedTemporaryFile(suffix=ending) as file:
        file.write(content)
        file.flush()
        return read_head(Path(file.name))


def kind_of(grid: Grid) -> str:
    """A crop is smaller than any head."""
    return CROP if max(grid.extent) <= FIELD_OF_VIEW_LIMIT else HEAD


def is_same_grid(one: Grid, other: Grid) -> bool:
    if one.shape != other.shape:
        return False
    corners = np.array(np.meshgrid(*((0, size - 1) for size in one.shape))).reshape(3, -1)
    apart = (one.affine - other.affine)[:3, :3] @ corners + (one.affine - other.affine)[:3, 3:]
    return bool(np.abs(apart).max() <= SAME_PLACE)


def as_nrrd(image: HeadImage, voxels: np.ndarray, compress: bool = True) -> bytes:
    """Voxels [X, Y, Z] on the volume's grid as a file on the image's own."""
    own = apply_orientation(voxels, ornt_transform(RAS, image.turns))
    return write_nrrd(own, image.affine, compress)


def as_nifti(image: HeadImage, labels: np.ndarray) -> bytes:
    """Labels [X, Y, Z] uint8 on the volume's grid as .nii.gz on the image's own."""
    return gzip.compress(image.on_own_grid(labels).to_bytes(), compresslevel=1, mtime=0)


def labels_of(content: bytes, image: HeadImage) -> np.ndarray:
    """The labels [X, Y, Z] uint8 in a .nii.gz file of ours, on the volume's grid."""
    own = np.asanyarray(nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(content))).dataobj)
    return apply_orientation(own.astype(np.uint8), image.turns)
