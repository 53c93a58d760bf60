"""Images of heads that nobody scanned: label maps in a random pose, field of view and contrast, with what scanners add.

Each is a window of the localiser (WINDOW voxels of 4 mm) with the answer that the localiser should give. Sources of the
idea: Billot et al. 2023 (SynthSeg) for the contrasts, Hoffmann et al. 2022 for learning alignment from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation

from head_template import FIRST_OUTSIDE, LEFT_HIPPOCAMPUS, RIGHT_HIPPOCAMPUS, HeadLabels, Template

WINDOW = 64  # voxels along each axis
VOXEL = 4.0  # mm
FINE = 2  # points along each axis of a voxel, whose mean it is
COARSE = 2  # voxels along each axis of those for which the answer is given

WHITE = (2, 41, 7, 46, 16, 28, 60, 85)
GREY = (3, 42, 8, 47, 17, 53, 18, 54, 26, 58)
DEEP = (10, 49, 11, 50, 12, 51, 13, 52)
FLUID = (4, 43, 5, 44, 14, 15, 24)
MARGIN = 24  # the label of the fluid around the brain, which some programs strip and others leave


@dataclass(frozen=True)
class Head:
    """A head to make images of. classes: [X, Y, Z] uint8, indices of `labels`. to_template: [4, 4], index to mm."""

    classes: np.ndarray
    labels: np.ndarray
    to_template: np.ndarray


@dataclass(frozen=True)
class Sample:
    """What to learn from.

    image: [W, W, W]. brain: [w, w, w], how much of a coarse voxel is brain. pose: [4, 4], from mm around the window's
    middle to template mm. hippocampi: [2, 3], the middles of the left and right one, mm around the window's middle; nan
    where it is outside.
    """

    image: np.ndarray
    brain: np.ndarray
    pose: np.ndarray
    hippocampi: np.ndarray


def load_heads(folder: Path) -> tuple[list[Head], Template]:
    """All label maps of a folder, and the template that they make. Raises FileNotFoundError where there is none."""
    paths = sorted(folder.glob("*.nii.gz"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no label maps (*.nii.gz)")
    found = [HeadLabels.load(path) for path in paths]
    middles = [one.middles() for one in found]
    template = Template.of(middles)
    heads = []
    for one, middle in zip(found, middles, strict=True):
        labels = np.flatnonzero(np.bincount(one.labels.ravel()))
        classes = np.searchsorted(labels, np.arange(labels[-1] + 1)).astype(np.uint8)[one.labels]
        heads.append(Head(classes, labels, template.affine_of(middle) @ one.affine))
    return heads, template


def samples(heads: list[Head], seed: int) -> Iterator[Sample]:
    """Without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield draw(heads[rng.integers(len(heads))], rng)


def draw(head: Head, rng: np.random.Generator) -> Sample:
    pose = _pose(rng)
    classes = _sampled(head, pose, rng)
    labels = head.labels[classes]
    is_brain = (labels > 0) & (labels < FIRST_OUTSIDE) & (labels != MARGIN)
    hippocampi = np.array([_middle(labels == label) for label in (LEFT_HIPPOCAMPUS, RIGHT_HIPPOCAMPUS)])
    values = _contrast(head.labels, rng)[classes]
    if rng.random() < 0.45:
        values[~(is_brain | ((labels == MARGIN) & (rng.random() < 0.5)))] = 0
    elif rng.random() < 0.1:  # a face that was removed
        values[:, int(rng.uniform(0.72, 0.85) * values.shape[1]) :, : int(rng.uniform(0.3, 0.5) * values.shape[2])] = 0
    values += rng.normal(0, rng.uniform(0, 0.12), values.shape).astype(np.float32) * (values > 0)
    values = _cut(values, rng)
    image = values.reshape(WINDOW, FINE, WINDOW, FINE, WINDOW, FINE).mean(axis=(1, 3, 5))
    points = FINE * COARSE
    coarse = WINDOW // COARSE
    brain = is_brain.reshape(coarse, points, coarse, points, coarse, points).mean(axis=(1, 3, 5), dtype=np.float32)
    return Sample(normalised(_scanned(image, rng)), brain, pose, hippocampi)


def normalised(image: np.ndarray) -> np.ndarray:
    """Between 0 and 1.5, 1 being bright for this image."""
    inside = image[image > 0.05 * image.max()] if image.max() > 0 else image
    return np.clip(image / max(np.percentile(inside, 95), 1e-6), 0, 1.5).astype(np.float32)


def _pose(rng: np.random.Generator) -> np.ndarray:
    """Most heads lie nearly straight; the chin is what is up or down. Some are turned by much."""
    spread = 2.0 if rng.random() < 0.3 else 1.0
    turn = Rotation.from_euler("xyz", np.clip(rng.normal(0, 1, 3), -2, 2) * (14, 8, 8) * spread, degrees=True)
    size = np.exp(rng.uniform(-0.16, 0.22)) * np.exp(rng.normal(0, 0.04, 3))
    shear = np.eye(3) + np.triu(rng.normal(0, 0.02, (3, 3)), 1)
    pose = np.eye(4)
    pose[:3, :3] = turn.as_matrix() @ shear @ np.diag(size)
    pose[:3, 3] = rng.uniform(-1, 1, 3) * (20, 25, 30) + (0, -18, 0)
    return pose


def _sampled(head: Head, pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The classes [W * FINE, ...] at the points of the window, which is bent a little."""
    count = WINDOW * FINE
    mm = (np.arange(count, dtype=np.float32) + 0.5) * (VOXEL / FINE) - WINDOW * VOXEL / 2
    to_index = (np.linalg.inv(head.to_template) @ pose).astype(np.float32)
    bend = zoom(rng.normal(0, rng.uniform(0, 2.5), (3, 5, 5, 5)), (1, 6.4, 6.4, 6.4), order=1).astype(np.float32)
    bend = bend.repeat(4, 1).repeat(4, 2).repeat(4, 3)
    flat = np.zeros((count,) * 3, np.int32)
    inside = np.ones((count,) * 3, bool)
    for axis, size in enumerate(head.classes.shape):
        x, y, z = (to_index[axis, n] * mm for n in range(3))
        index = x[:, None, None] + y[None, :, None] + z[None, None, :]
        index += bend[axis] + (to_index[axis, 3] + 0.5)
        index = index.astype(np.int32)  # towards 0, which differs from the floor at the very edge alone
        inside &= (index >= 0) & (index < size)
        flat = flat * size + index
    return np.where(inside, head.classes.ravel()[np.where(inside, flat, 0)], 0)


def _middle(mask: np.ndarray) -> np.ndarray:
    """In mm around the middle of the window; nan where it has hardly any."""
    points = [np.flatnonzero(mask)]
    if len(points[0]) < 40:
        return np.full(3, np.nan)
    index = np.array(np.unravel_index(points[0], mask.shape)).mean(1)
    return (index + 0.5) * (VOXEL / FINE) - WINDOW * VOXEL / 2


def _contrast(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How bright each label is: mostly as in T1, sometimes as nowhere."""
    values = rng.uniform(0, 1, len(labels))
    outside = labels >= FIRST_OUTSIDE
    if rng.random() < 0.75:
        grey, fluid = rng.uniform(0.5, 0.85), rng.uniform(0.08, 0.4)
        for group, value in ((WHITE, 1.0), (GREY, grey), (DEEP, rng.uniform(grey, 0.95)), (FLUID, fluid)):
            values[np.isin(labels, group)] = value
        values[outside] = rng.uniform(0.03, 1.3, outside.sum())
    else:
        for group in (WHITE, GREY, DEEP, FLUID):
            values[np.isin(labels, group)] = rng.uniform(0.05, 1)
    values *= np.exp(rng.normal(0, 0.05, len(labels)))
    values[labels == 0] = rng.uniform(0, 0.06) if rng.random() < 0.5 else 0
    return values.astype(np.float32)


def _cut(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A field of view that ends in the neck or the head: black beyond."""
    size = values.shape[0]
    low, high = np.zeros(3, int), np.full(3, size)
    if rng.random() < 0.6:
        low[2] = rng.uniform(0, 0.36) * size
    for axis, share in ((0, 0.2), (1, 0.2), (2, 0.12)):
        if rng.random() < 0.25:
            low[axis] = max(low[axis], int(rng.uniform(0, share) * size))
            high[axis] -= int(rng.uniform(0, share) * size)
    kept = np.zeros_like(values)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    kept[box] = values[box]
    return kept


def _scanned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With the coils' shading, another scale of grey, blur along an axis, and noise."""
    shading = zoom(rng.normal(0, 1, (4, 4, 4)), WINDOW / 4, order=1, grid_mode=True, mode="nearest")
    image = image * np.exp(rng.uniform(0, 0.6) * shading)
    if rng.random() < 0.3:
        axis = rng.integers(3)
        image = (image + np.roll(image, 1, axis) + np.roll(image, -1, axis)) / 3
    image = np.clip(image / max(image.max(), 1e-6), 0, None)
    image = image ** np.exp(rng.uniform(-0.4, 0.4))
    return np.abs(image + rng.normal(0, rng.uniform(0, 0.04), image.shape) * (rng.random() < 0.8))
