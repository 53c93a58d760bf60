"""The template space in which heads are compared, made from label maps of whole heads.

Its points are the means of the heads' own structures after each head was moved, turned and scaled onto the others by
one affine. It is symmetric: a structure's left is its right mirrored at x = 0. Its axes are right, anterior and
superior; origin, pitch and size come from where atlases of the MNI space show six deep structures, so that its numbers
can be compared with published ones to a few mm.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

LEFT_HIPPOCAMPUS, RIGHT_HIPPOCAMPUS = 17, 53
# Structures by their FreeSurfer labels, left and right; the middle ones are their own mirror image.
PAIRS = (
    (2, 41),
    (3, 42),
    (4, 43),
    (7, 46),
    (8, 47),
    (10, 49),
    (11, 50),
    (12, 51),
    (13, 52),
    (17, 53),
    (18, 54),
    (28, 60),
)
MIDDLE = (14, 15, 16)
LABELS = (*(label for pair in PAIRS for label in pair), *MIDDLE)
MIRRORED = (*(label for pair in PAIRS for label in reversed(pair)), *MIDDLE)
# Where the middle of the left structure lies in MNI space, in mm, rounded: thalamus, caudate, putamen, pallidum,
# hippocampus, amygdala.
MNI = {
    10: (-11, -19, 7),
    11: (-13, 10, 11),
    12: (-26, 2, 0),
    13: (-20, -4, 0),
    17: (-26, -22, -13.5),
    18: (-24, -4, -18),
}
ROUNDS = 10
FIRST_OUTSIDE = 500  # labels from here on are skull, skin and what else is outside of the brain


@dataclass(frozen=True)
class HeadLabels:
    """labels: [X, Y, Z] int16 of one head. affine: [4, 4], index to mm, right, anterior and superior."""

    labels: np.ndarray
    affine: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "HeadLabels":
        image = nib.as_closest_canonical(nib.load(path))
        return cls(np.asarray(image.dataobj).astype(np.int16), image.affine)

    def middles(self) -> np.ndarray:
        """The middles [structure, 3] of LABELS in mm; nan where it has none."""
        flat = self.labels.ravel()
        counts = np.bincount(flat, minlength=max(LABELS) + 1)[list(LABELS)]
        index = np.empty((len(LABELS), 3))
        for axis, size in enumerate(self.labels.shape):
            place = np.arange(size).reshape([-1 if n == axis else 1 for n in range(3)])
            sums = np.bincount(flat, np.broadcast_to(place, self.labels.shape).ravel(), max(LABELS) + 1)
            index[:, axis] = sums[list(LABELS)] / np.where(counts, counts, np.nan)
        return move(self.affine, index)


def affine_onto(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The affine [4, 4] that takes points [N, 3] onto targets with the least squares; those with nan are left out."""
    known = np.isfinite(points).all(1) & np.isfinite(targets).all(1)
    with_one = np.c_[points[known], np.ones(known.sum())]
    affine = np.eye(4)
    affine[:3] = np.linalg.lstsq(with_one, targets[known], rcond=None)[0].T
    return affine


def similarity_onto(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rotation, one scale and shift [4, 4], never a mirror image (Umeyama 1991)."""
    known = np.isfinite(points).all(1) & np.isfinite(targets).all(1)
    points, targets = points[known], targets[known]
    from_middle, to_middle = points - points.mean(0), targets - targets.mean(0)
    u, sizes, vt = np.linalg.svd(to_middle.T @ from_middle)
    proper = np.array([1, 1, np.linalg.det(u @ vt)])
    affine = np.eye(4)
    affine[:3, :3] = (sizes * proper).sum() / (from_middle**2).sum() * (u * proper) @ vt
    affine[:3, 3] = targets.mean(0) - affine[:3, :3] @ points.mean(0)
    return affine


def move(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ affine[:3, :3].T + affine[:3, 3]


@dataclass(frozen=True)
class Template:
    """points: [structure, 3] in mm, of LABELS."""

    points: np.ndarray

    @classmethod
    def of(cls, heads: list[np.ndarray]) -> "Template":
        """From the middles [structure, 3] of each head."""
        mni = np.full((len(LABELS), 3), np.nan)
        for label, (x, y, z) in MNI.items():
            pair = next(pair for pair in PAIRS if label in pair)
            mni[LABELS.index(pair[0])], mni[LABELS.index(pair[1])] = (x, y, z), (-x, y, z)
        points = move(similarity_onto(heads[0], mni), heads[0])
        for _ in range(ROUNDS):
            affines = [affine_onto(one, points) for one in heads]
            points = np.nanmean([move(affine, one) for affine, one in zip(affines, heads, strict=True)], axis=0)
            # Least squares shrink a little, and again in every round: the average head keeps its shape.
            points = points @ np.linalg.inv(np.mean([affine[:3, :3] for affine in affines], axis=0)).T
            mirrored = points[[LABELS.index(label) for label in MIRRORED]] * (-1, 1, 1)
            points = (points + mirrored) / 2
            points = move(similarity_onto(points, mni), points)
        return cls(points)

    def affine_of(self, head: np.ndarray) -> np.ndarray:
        """[4, 4] from the head's mm to the template's, by its middles [structure, 3]."""
        return affine_onto(head, self.points)

    def middle(self, label: int) -> np.ndarray:
        return self.points[LABELS.index(label)]
