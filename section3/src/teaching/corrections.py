"""A mask that a person drew: to the labels of the structures that it names, on the grid of its image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.refusal import Refusal
from reading.nifti_head import HeadImage
from teaching.images import NAMES, is_same_grid

MOST_SEGMENTS = 255


def corrected_labels(mask: HeadImage, image: HeadImage, kind: str, names: Sequence[str] | None) -> np.ndarray:
    """Labels [X, Y, Z] uint8 on the image's volume.

    mask: as the viewer wrote it. names: of its segments in their order, as voxels hold their places from 1 on; whoever
    draws a segment anew changes the order. None where nobody says: then voxels hold our own labels.
    Raises Refusal: geometry-conflict, on another grid than the image's; unreadable-pixels, of segments that are none.
    """
    if not is_same_grid(mask.volume.grid, image.volume.grid):
        raise Refusal("geometry-conflict", f"the mask lies on another grid than the image: {_grids(mask, image)}")
    values = np.unique(mask.volume.voxels)
    if not np.array_equal(values, np.round(values)) or values.min() < 0 or values.max() > MOST_SEGMENTS:
        raise Refusal("unreadable-pixels", "the mask holds other values than those of segments: 0, 1, 2, ...")
    return by_names(mask.volume.voxels.astype(np.uint8), list(NAMES[kind]) if names is None else names, kind)


def by_names(places: np.ndarray, names: Sequence[str], kind: str) -> np.ndarray:
    """Our labels, uint8, of voxels that hold the places of segments in `names`, from 1 on. Raises Refusal."""
    ours, table = NAMES[kind], np.zeros(MOST_SEGMENTS + 1, np.uint8)
    for value in (int(value) for value in np.unique(places) if value):
        name = names[value - 1] if value <= len(names) else None
        if name not in ours:
            said = f"the segment {name!r}" if name else f"the value {value}, which no segment has,"
            raise Refusal("unreadable-pixels", f"{said} is none of {', '.join(ours)}; name it so, or empty it")
        if ours[name] in table[1:]:
            raise Refusal("unreadable-pixels", f"two segments are called {name}")
        table[value] = ours[name]
    return table[places]


def _grids(mask: HeadImage, image: HeadImage) -> str:
    one, other = mask.volume.grid, image.volume.grid
    if one.shape != other.shape:
        return f"{' x '.join(map(str, one.shape))} voxels in place of {' x '.join(map(str, other.shape))}"
    return "its voxels lie elsewhere"
