"""From a whole head to a crop around each hippocampus, and back.

A small network looks at the head in voxels of 4 mm. Of hundreds of points of the brain it says which point of a
template brain each is, and how far away the two hippocampi are; the best affine through the former says how the head
lies, the middle of the latter where the hippocampi are. The affine is never one that mirrors: left stays left. The
network answers again with the head laid straight, as its answer before says.

section2/localiser trains the network. Crops are cut straight in the template's directions; the right one is mirrored,
as the model knows left hippocampi alone. A grid of a crop says so, and is the way back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.refusal import Failure, Refusal
from common.structures import LEFT, RIGHT, SIDES
from common.volume import Grid, Volume
from measuring.unet_inference_agent import LOAD_ERRORS, open_session

CROP = (46, 62, 46)  # mm: wider than the crops of training, so that what lies a few mm off is seen whole
# Of Task04's labels the middle lies so far from that of their crops, in mm to the right, to the front and upwards.
OFF_MIDDLE = np.array([-2.3, 1.4, -2.4])

BRAIN_BELOW = 150  # mm: a brain ends higher, below the top of the head; beneath are neck and shoulders
MIDDLE_BELOW = 85  # mm below the top of the head: where the first look is taken
MIDDLE = np.array([0.0, -18.0, 0.0])  # of a brain in the template, mm: where the later ones are taken
LEAST_BRAIN = 100  # coarse voxels (51 ml); what has less is no head at all
NEAR_HIPPOCAMPUS = 35  # mm: whose word counts most
# Of an answer to a mirrored window: left and right change places, and what points across points the other way.
MIRRORED, ACROSS = [0, 1, 2, 3, 7, 8, 9, 4, 5, 6], [1, 4, 7]
ROUNDS = 10  # of weighing the votes
LOOKS = 3  # at the head: the later ones with it laid straight


@dataclass(frozen=True, eq=False)
class Place:
    """Where a head lies.

    to_template: [4, 4], from mm in the head (RAS+) to mm in the template. middles: of each hippocampus, [3] in mm in
    the head. residual: how far the points lie from where the affine takes them, the median in mm. brain_ml: how large
    the brain is that was seen. apart: how far from its usual place is the farther of the two hippocampi, in mm.
    """

    to_template: np.ndarray
    middles: Mapping[str, np.ndarray]
    residual: float
    brain_ml: float
    apart: float

    @property
    def rotation(self) -> np.ndarray:
        """[3, 3]; its columns are the template's directions in the head, right, anterior and superior."""
        return _nearest_rotation(self.to_template[:3, :3]).T

    @property
    def scales(self) -> np.ndarray:
        """[3], the largest first: how much larger the template is."""
        return np.linalg.svd(self.to_template[:3, :3], compute_uv=False)

    @property
    def tilt(self) -> float:
        """The angle in degrees by which the head is turned against the template."""
        return float(np.degrees(np.arccos(np.clip((np.trace(self.rotation) - 1) / 2, -1, 1))))


class Localiser:
    """The exported network; sha256: of its file. Raises Failure: bad-model."""

    def __init__(self, path: Path, threads: int = 1):
        try:
            content = Path(path).read_bytes()
            self._session = open_session(content, threads)
            self.sha256 = hashlib.sha256(content).hexdigest()
            card = json.loads(self._session.get_modelmeta().custom_metadata_map["card"])
            self._size, self._voxel, self._scale = card["window_voxels"], card["voxel_mm"], card["scale_mm"]
            self._middles = {side: np.array(card["hippocampi_mm"][side], float) for side in SIDES}
        except OSError as error:
            raise Failure("bad-model", f"model {path} cannot be read: {error.strerror}") from error
        except (*LOAD_ERRORS, LookupError, TypeError, ValueError) as error:
            raise Failure("bad-model", f"{path} is no exported localiser") from error

    def find(self, head: Volume) -> Place:
        """Raises Refusal: nothing-found."""
        voxels = np.maximum(head.voxels, 0)
        middle, rotation = _first_middle(voxels, head.grid), np.eye(3)
        for _ in range(LOOKS):
            place = self._look(Volume(voxels, head.grid), middle, rotation)
            back = np.linalg.inv(place.to_template)
            middle, rotation = back[:3, :3] @ MIDDLE + back[:3, 3], place.rotation
        return place

    def _look(self, head: Volume, middle: np.ndarray, rotation: np.ndarray) -> Place:
        """One answer, to a window around `middle` [3] in mm, whose axes are the columns of `rotation` [3, 3]."""
        window = Grid((self._size,) * 3, _affine(rotation * self._voxel, middle, self._size))
        answer = self._answer(normalised(_averaged(head, window)))
        brain = 1 / (1 + np.exp(-answer[0]))
        seen = brain > 0.5
        if np.count_nonzero(seen) < LEAST_BRAIN:
            raise Refusal("nothing-found", "no brain of a head is found in the image")
        coarse = _affine(np.eye(3) * 2 * self._voxel, np.zeros(3), self._size // 2)
        points = np.argwhere(seen) @ coarse[:3, :3] + coarse[:3, 3]  # mm around the middle, along the window's axes
        in_template, to_left, to_right = (answer[n : n + 3, seen].T * self._scale for n in (1, 4, 7))
        sure = brain[seen].astype(float)
        pose, residual = _robust_affine(points, in_template, sure)
        to_window = np.eye(4)
        to_window[:3, :3], to_window[:3, 3] = rotation.T, -rotation.T @ middle
        votes = {LEFT: points + to_left, RIGHT: points + to_right}
        middles = {side: _agreed(points, votes[side], sure) @ rotation.T + middle for side in SIDES}
        to_template = pose @ to_window
        moved = [to_template[:3, :3] @ middles[side] + to_template[:3, 3] - self._middles[side] for side in SIDES]
        apart = float(np.linalg.norm(moved, axis=1).max())
        return Place(to_template, middles, residual, sure.size * (2 * self._voxel) ** 3 / 1000, apart)

    def _answer(self, window: np.ndarray) -> np.ndarray:
        """The mean of what is said of the window [X, Y, Z] and of its mirror image, so that neither side goes first.

        [10, X/2, Y/2, Z/2]: brain, point of the template, ways to the left and to the right hippocampus.
        """
        (answer,) = self._session.run(None, {"window": window})
        (mirrored,) = self._session.run(None, {"window": np.ascontiguousarray(window[::-1])})
        mirrored = mirrored[MIRRORED, ::-1]
        mirrored[ACROSS] *= -1
        return (answer + mirrored) / 2


def crop_grid(place: Place, side: str) -> Grid:
    """The grid of a crop of 1 mm; of the right hippocampus it is mirrored, so that both look like a left one in RAS."""
    mirror = np.diag([-1.0 if side == RIGHT else 1.0, 1, 1])
    directions = place.rotation @ mirror
    affine = np.eye(4)
    affine[:3, :3] = directions
    affine[:3, 3] = place.middles[side] - directions @ (OFF_MIDDLE + (np.array(CROP) - 1) / 2)
    return Grid(CROP, affine)


def box_around(grid: Grid, head: Grid) -> tuple[Grid, tuple[slice, ...]]:
    """The part of the head's own grid that holds another grid, and where in the head it is. Raises Refusal."""
    corners = np.stack(np.meshgrid(*((0, size - 1) for size in grid.shape), indexing="ij"), -1).reshape(-1, 3)
    matrix = grid.indices_to(head)
    index = corners @ matrix[:3, :3].T + matrix[:3, 3]
    low = np.maximum(np.floor(index.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(index.max(0)).astype(int) + 1, head.shape)
    if (high <= low).any():
        raise Refusal("structure-cut", "the hippocampus lies outside of the image")
    affine = head.affine.copy()
    affine[:3, 3] += head.affine[:3, :3] @ low
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return Grid(tuple((high - low).tolist()), affine), box


def normalised(window: np.ndarray) -> np.ndarray:
    """Grey values from 0 to 1.5, 1 being bright for this image; section 2's synthetic_heads.py does the same."""
    inside = window[window > 0.05 * window.max()] if window.max() > 0 else window
    return np.clip(window / max(np.percentile(inside, 95), 1e-6), 0, 1.5).astype(np.float32)


def _affine(directions: np.ndarray, middle: np.ndarray, size: int) -> np.ndarray:
    """[4, 4] of a cube of so many voxels around its middle, whose steps are the columns of `directions`."""
    affine = np.eye(4)
    affine[:3, :3] = directions
    affine[:3, 3] = middle - directions @ np.full(3, (size - 1) / 2)
    return affine


def _averaged(head: Volume, grid: Grid) -> np.ndarray:
    """The head on a coarse grid: of each voxel the mean of eight points in it. Black beyond the image."""
    from scipy import ndimage

    fine = grid.affine.copy()
    fine[:3, :3] /= 2
    fine[:3, 3] -= fine[:3, :3].sum(1) / 2
    shape = tuple(2 * size for size in grid.shape)
    matrix = Grid(shape, fine).indices_to(head.grid)
    points = ndimage.affine_transform(head.voxels, matrix, output_shape=shape, order=1, output=np.float32)
    x, y, z = grid.shape
    return points.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))


def _first_middle(voxels: np.ndarray, grid: Grid) -> np.ndarray:
    """Where to look first, [3] in mm: below the top of the head, amid what of the head may hold the brain."""
    from scipy import ndimage

    step = np.maximum(1, np.round(4 / np.array(grid.spacing))).astype(int)
    few = voxels[:: step[0], :: step[1], :: step[2]]
    bright = few[few > 0.02 * few.max()] if few.max() > 0 else few
    index = np.argwhere(ndimage.binary_opening(few > 0.15 * np.percentile(bright, 98))) * step
    if not len(index):
        raise Refusal("nothing-found", "the image is empty")
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    top = np.percentile(points[:, 2], 99.8)
    x, y, _ = points[points[:, 2] > top - BRAIN_BELOW].mean(0)
    return np.array([x, y, top - MIDDLE_BELOW])


def _robust_affine(points: np.ndarray, targets: np.ndarray, sure: np.ndarray) -> tuple[np.ndarray, float]:
    """The affine [4, 4] that takes points [N, 3] near to targets, with a proper rotation; and the median distance.

    Least squares, weighed anew in each round by how well a point fits (Cauchy's weights).
    """
    with_one = np.c_[points, np.ones(len(points))]
    weights = sure
    for _ in range(ROUNDS):
        root = np.sqrt(weights)[:, None]
        solution = np.linalg.lstsq(with_one * root, targets * root, rcond=None)[0]
        distance = np.linalg.norm(with_one @ solution - targets, axis=1)
        residual = float(np.median(distance))
        weights = sure / (1 + (distance / (2 * residual + 1e-6)) ** 2)
    affine = np.eye(4)
    affine[:3] = solution.T
    if np.linalg.det(affine[:3, :3]) <= 0:
        raise Refusal("nothing-found", "what is found is no head: it would be a mirrored one")
    return affine, residual


def _agreed(points: np.ndarray, votes: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Where most votes [N, 3] lie, those of the points nearby first."""
    middle = np.median(votes, axis=0)
    for _ in range(ROUNDS):
        near = np.exp(-((np.linalg.norm(points - middle, axis=1) / NEAR_HIPPOCAMPUS) ** 2))
        weights = sure * near / (1 + (np.linalg.norm(votes - middle, axis=1) / 4) ** 2)
        middle = weights @ votes / max(weights.sum(), 1e-9)
    return middle


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
