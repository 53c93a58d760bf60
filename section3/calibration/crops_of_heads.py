"""Crops of heads that other scanners took, cut as the training set's were: to fit limits on more than one scanner."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from checks.quality_measures import around_centre
from common.refusal import Stop
from measuring.hippocrop import SIDES, Localiser, crop_grid
from measuring.measure_head import cut
from reading.nifti_head import SUFFIXES, read_head

LABELS_ENDING = "_labels.nii.gz"  # beside an image, what is known of it
WIDEST = 1.5  # mm: of coarser voxels a crop is blurred
AS_IN_TRAINING = (40, 56, 40)  # mm: as wide as is usual there, so that no hippocampus is cut


def head_images(folder: Path) -> list[Path]:
    """The images of heads in a folder, without their labels."""
    paths = sorted(one for one in folder.iterdir() if one.name.endswith(SUFFIXES))
    return [path for path in paths if not path.name.endswith(LABELS_ENDING)]


def crops_of_heads(folder: Path, localiser: Localiser, widest: float = WIDEST) -> Iterator[tuple[str, np.ndarray]]:
    """Name and crop [X, Y, Z] of each hippocampus that is found in the heads of a folder, the right ones mirrored.

    Heads of voxels wider than `widest` mm are left out, and what is no head.
    """
    for path in head_images(folder):
        try:
            head = read_head(path).volume
            if max(head.grid.spacing) > widest:
                continue
            place = localiser.find(head)
            for side in SIDES:
                yield f"{path.name} {side}", around_centre(cut(head, crop_grid(place, side)), AS_IN_TRAINING)
        except Stop:
            continue
