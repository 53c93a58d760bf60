"""Planes of a volume as pictures: one way from the volume to the page, for image and contour alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from common.structures import COLOURS, PARTS
from common.volume import Grid
from pages.canvas import BRIGHT, MUTED, Page

CONTOUR = 2  # pixels
EVEN = (0.25, 0.75)  # probabilities of a hippocampus between which the network is unsure
DOT, DOT_STEP = 255, 4  # grey value; pixels between dots
MOST_VOXELS = 1 << 21  # of which percentiles are taken: more tell no more, and a head has many


@dataclass(frozen=True)
class View:
    """A plane of the volume as it is shown."""

    title: str
    axis: int
    index: int  # of the slice along the axis


SAGITTAL, CORONAL, AXIAL = 0, 1, 2  # the axis of the volume that a plane is normal to
LETTERS = {SAGITTAL: ("A", "P", "S", "I"), CORONAL: ("", "", "S", "I"), AXIAL: ("", "", "A", "P")}
SIDES = {SAGITTAL: (1, 2), CORONAL: (0, 2), AXIAL: (0, 1)}  # axes along the picture's width and height


def display_plane(volume: np.ndarray, view: View) -> np.ndarray:
    """The slice of volume [X, Y, Z] (RAS) as rows and columns of a picture, as radiologists look at it.

    Every axis is reversed: superior and anterior are up, anterior is left in a sagittal picture, the lowest x is right.
    """
    return np.take(volume, view.index, axis=view.axis).T[::-1, ::-1]


def display_size(grid: Grid, axis: int, zoom: float) -> tuple[int, int]:
    """Width and height in pixels of a plane normal to `axis`, at `zoom` pixels per mm."""
    return tuple(max(1, round(grid.shape[side] * grid.spacing[side] * zoom)) for side in SIDES[axis])


def zoom_to(plane: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """Scale a uint8 plane to (width, height); a voxel covers the same pixels whatever the resampling."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, resample))


def render(
    view: View, grey: np.ndarray, labels: np.ndarray, size: tuple[int, int], chance: np.ndarray | None = None
) -> Image.Image:
    """The picture of a view of uint8 volumes [X, Y, Z]; a contour is the rim of its structure's voxels.

    chance: how probable a hippocampus is; where that is nearly even, there are dots.
    """
    pixels = np.repeat(zoom_to(display_plane(grey, view), size, Image.Resampling.BICUBIC)[..., None], 3, axis=2)
    if chance is not None:
        pixels[dots(zoom_to(display_plane(is_doubtful(chance), view), size, Image.Resampling.NEAREST) > 0)] = DOT
    mask = zoom_to(display_plane(labels, view), size, Image.Resampling.NEAREST)
    for label, colour in COLOURS.items():
        pixels[rim(mask == label)] = _rgb(colour)
    return Image.fromarray(pixels)


def is_doubtful(chance: np.ndarray) -> np.ndarray:
    """Where to look first, uint8: as much as 8 % of the volume, with 22 % of the errors (analyses/where_unsure.py)."""
    low, high = EVEN
    return ((chance >= low) & (chance <= high)).astype(np.uint8)


def dots(where: np.ndarray) -> np.ndarray:
    """Of a mask [rows, columns] single pixels, as the corners and middles of small squares."""
    rows, columns = np.indices(where.shape)
    return where & ((rows + columns) % DOT_STEP == 0) & ((rows - columns) % DOT_STEP == 0)


def explain_marks(page: Page, left: int, baseline: int, dotted: bool) -> None:
    """What colours and dots of the pictures mean, on one line."""
    for x, part in zip((left, left + 120), PARTS, strict=True):
        page.draw.rectangle((x, baseline - 13, x + 13, baseline), None, part.colour, CONTOUR)
        page.text(x + 22, baseline, part.key.capitalize(), 16)
    if not dotted:
        return
    for row, column in np.argwhere(dots(np.ones((14, 14), bool))):
        page.draw.point((left + 240 + column, baseline - 13 + row), BRIGHT)
    page.text(left + 262, baseline, "Unsure: look here first", 16)


def rim(inside: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask [rows, columns], closed also at the picture's edge."""
    height, width = inside.shape
    steps = range(2 * CONTOUR + 1)
    core = np.pad(inside, CONTOUR)
    core = np.logical_and.reduce([core[step : step + height] for step in steps])
    core = np.logical_and.reduce([core[:, step : step + width] for step in steps])
    return inside & ~core


def window(volume: np.ndarray) -> np.ndarray:
    """Grey values uint8 between the 0.5th and 99.5th percentile: a bright vessel or two must not darken the rest."""
    few = volume.ravel()[:: volume.size // MOST_VOXELS + 1]
    low, high = np.percentile(few, (0.5, 99.5))
    if low == high:  # almost constant: what little there is must be seen
        low, high = float(volume.min()), float(volume.max())
    if low == high:
        return np.full(volume.shape, 128, np.uint8)
    return np.round(np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def choose_views(labels: np.ndarray) -> list[View]:
    """Coronal slices through the middle of each structure, a sagittal and an axial one through the middle of both."""
    either = labels > 0
    views = []
    for part in PARTS:
        mask = labels == part.labels[0]
        title, mask = (f"Coronal, {part.key}", mask) if mask.any() else (f"Coronal; no {part.key} part found", either)
        views.append(View(title, CORONAL, middle_slice(mask, CORONAL)))
    for title, axis in (("Sagittal", SAGITTAL), ("Axial", AXIAL)):
        views.append(View(title, axis, middle_slice(either, axis)))
    return views


def middle_slice(mask: np.ndarray, axis: int) -> int:
    """The slice that halves the structure; it always cuts it. The middle of the volume for an empty mask."""
    profile = mask.sum(axis=tuple(other for other in range(3) if other != axis)).cumsum()
    return int(np.searchsorted(profile, profile[-1] / 2)) if profile[-1] else mask.shape[axis] // 2


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(colour[1:]))


def annotate(page: Page, view: View, left: int, top: int, width: int, height: int) -> None:
    """Title above; the letters of known directions at the ends of the picture's left and lower sides."""
    page.text(left, top - 13, view.title, 16, BRIGHT)
    x, y = left - 13, top + height + 13
    places = ((left + 7, y), (left + width - 7, y), (x, top + 8), (x, top + height - 8))
    for letter, place in zip(LETTERS[view.axis], places, strict=True):
        page.text(*place, letter, 15, MUTED, "mm")
