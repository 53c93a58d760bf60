"""Average the labelled crops into the small atlas that phantom.py draws its synthetic hippocampi from.

    python make_atlas.py [--data-root DIR] [--out atlas.npz]

Every image is brought to one intensity scale and laid over the running mean by an affine map. What is kept are means
over all crops, coarsely quantised, and how much the maps vary. It takes a minute and a half for 208 pairs.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import environment  # noqa: F401  # isort: skip

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy.ndimage import gaussian_filter, map_coordinates
from tqdm import tqdm

GRID = (48, 66, 54)  # voxels of 1 mm: the largest crop of the set and a few millimetres for deformation
ROUNDS = 3  # registrations of all crops to the mean of the round before; the mean stands still after three
STEPS = 8  # Gauss-Newton steps a registration


@dataclass
class Crop:
    """One labelled crop, and where the atlas lies in it."""

    channels: np.ndarray  # [3, X, Y, Z]: intensity 0-1, anterior 0 or 1, posterior 0 or 1
    to_voxel: np.ndarray  # [3, 4]: atlas position in mm, from the middle of the grid -> voxel of the crop


def load_crops(root: Path) -> list[Crop]:
    """Read every image that has a label of the same shape and both structures in it; the others are passed over.

    Raises OSError, EOFError or ImageFileError where a file cannot be read.
    """
    crops = []
    for image_path in sorted((root / "images").glob("*.nii.gz")):
        label_path = root / "labels" / image_path.name
        if not (image_path.is_file() and label_path.is_file()):
            continue
        image = np.asarray(nib.load(image_path).dataobj, dtype=np.float32)
        labels = np.asarray(nib.load(label_path).dataobj)
        if image.shape != labels.shape or set(np.unique(labels)) != {0, 1, 2}:
            continue
        low, high = np.percentile(image, (0.5, 99.5))
        image = (np.clip(image, low, high) - low) / (high - low)
        crops.append(Crop(np.stack([image, labels == 1, labels == 2]).astype(np.float32), np.eye(3, 4)))
    return crops


def grid_positions() -> np.ndarray:
    """Positions of the atlas voxels, mm from the middle of the grid, [3, N]."""
    axes = [np.arange(n) - (n - 1) / 2 for n in GRID]
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)


def sample(crop: Crop, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crop's channels at atlas positions [3, N], as [3, N], and whether the crop reaches there, [N]."""
    voxels = crop.to_voxel[:, :3] @ positions + crop.to_voxel[:, 3:]
    size = np.array(crop.channels.shape[1:])[:, None]
    inside = ((voxels >= 0) & (voxels <= size - 1)).all(axis=0)
    return np.stack([map_coordinates(c, voxels, order=1, mode="nearest") for c in crop.channels]), inside


def align_centroids(crops: list[Crop]) -> None:
    """Start by translation: label centroids coincide, where a crop has its own on average."""
    centroids = np.array([np.argwhere(crop.channels[1:].any(axis=0)).mean(axis=0) for crop in crops])
    middles = np.array([(np.array(crop.channels.shape[1:]) - 1) / 2 for crop in crops])
    offset = (centroids - middles).mean(axis=0)
    for crop, centroid in zip(crops, centroids, strict=True):
        crop.to_voxel[:, 3] = centroid - offset


def match_intensity(image: np.ndarray, target: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`image` rescaled to the mean and standard deviation that `target` has at the same voxels."""
    return (image - image[where].mean()) / image[where].std() * target[where].std() + target[where].mean()


def register(crop: Crop, mean: np.ndarray, positions: np.ndarray) -> None:
    """Improve the crop's affine map by Gauss-Newton on all three channels.

    Inverse compositional Lucas-Kanade (Baker and Matthews, IJCV 2004): the mean's gradients serve for all crops.
    `mean` is [3, X, Y, Z]. Only positions around the structure count: what lies far away differs between persons.
    """
    near = gaussian_filter(mean[1] + mean[2], 3).ravel() > 0.02
    positions = positions[:, near]
    target = mean.reshape(3, -1)[:, near]
    gradient = np.stack([np.stack(np.gradient(channel)).reshape(3, -1)[:, near] for channel in mean])  # [3, 3, N]
    homogeneous = np.vstack([positions, np.ones(positions.shape[1])])
    jacobian = np.einsum("cin,jn->cnij", gradient, homogeneous).reshape(3, -1, 12)
    for _ in range(STEPS):
        values, inside = sample(crop, positions)
        values[0] = match_intensity(values[0], target[0], inside)
        error = (values - target)[:, inside].ravel()
        j = jacobian[:, inside].reshape(-1, 12)
        step = np.linalg.solve(j.T @ j + 1e-6 * np.trace(j.T @ j) * np.eye(12), j.T @ error).reshape(3, 4)
        move = np.vstack([np.eye(3, 4) + step, [0, 0, 0, 1]])
        crop.to_voxel = crop.to_voxel @ np.linalg.inv(move)


def centre_maps(crops: list[Crop]) -> None:
    """Undo the common part of the maps, so that the atlas has the mean size and tilt of its crops."""
    common = np.mean([crop.to_voxel[:, :3] for crop in crops], axis=0)
    undo = np.linalg.inv(common)
    for crop in crops:
        crop.to_voxel[:, :3] = crop.to_voxel[:, :3] @ undo


def average(crops: list[Crop], positions: np.ndarray) -> np.ndarray:
    """Mean channels [3, X, Y, Z] over the crops that reach each voxel."""
    total = np.zeros((3, positions.shape[1]))
    count = np.zeros(positions.shape[1])
    for crop in crops:
        values, inside = sample(crop, positions)
        total += values * inside
        count += inside
    return (total / np.maximum(count, 1)).reshape(3, *GRID)


def tissue_mean(crops: list[Crop], positions: np.ndarray, hippocampus: bool) -> np.ndarray:
    """Mean intensity [X, Y, Z] over the crops whose voxel is (or is not) hippocampus.

    Kept apart, the two let a phantom have a sharp border of its own where their mixture would be a blur. Where few
    crops contribute, the values of the neighbourhood fill in.
    """
    total = np.zeros(positions.shape[1])
    weight = np.zeros(positions.shape[1])
    for crop in crops:
        values, inside = sample(crop, positions)
        share = values[1] + values[2]
        share = inside * (share if hippocampus else 1 - share)
        total += values[0] * share
        weight += share
    total, weight = total.reshape(GRID), weight.reshape(GRID)
    for sigma in (1, 2, 4, 8, 16):
        spread = 5 * np.maximum(0, 1 - weight / 5)  # how much the neighbourhood has to lend
        near = gaussian_filter(weight, sigma)
        total = total + spread * gaussian_filter(total, sigma) / np.maximum(near, 1e-6) * (near > 1e-3)
        weight = weight + spread * (near > 1e-3)
    return total / weight


def make_atlas(crops: list[Crop]) -> dict[str, np.ndarray]:
    """Align the crops to their mean, round by round, and average them.

    Returns four volumes of GRID's shape, 0-248 for 0-1 in 32 steps (finer ones only cost bytes), and the covariance
    [9, 9] of the affine maps' matrices: how size and tilt vary between crops.
    """
    positions = grid_positions()
    align_centroids(crops)
    mean = average(crops, positions)
    for _ in range(ROUNDS):
        for crop in tqdm(crops, desc="aligning", disable=None):
            register(crop, mean, positions)
        centre_maps(crops)
        mean = average(crops, positions)
    structure = mean[1] + mean[2]
    volumes = {
        "background": tissue_mean(crops, positions, hippocampus=False),
        # Kept a few millimetres around the structure only, where a phantom's own structure can lie.
        "hippocampus": tissue_mean(crops, positions, hippocampus=True) * (gaussian_filter(structure, 2) > 0.01),
        "anterior": mean[1],
        "posterior": mean[2],
    }
    atlas = {name: (8 * np.round(31 * np.clip(v, 0, 1))).astype(np.uint8) for name, v in volumes.items()}
    affines = np.array([crop.to_voxel[:, :3].ravel() for crop in crops])
    return atlas | {"affine_covariance": np.cov(affines.T).astype(np.float32)}


def make_parser() -> argparse.ArgumentParser:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Average the labelled crops into data/atlas.npz.")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("HIPPO_DATA") or here))
    parser.add_argument("--out", type=Path, default=here / "atlas.npz")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        crops = load_crops(args.data_root / "TrainingSet")
    except (OSError, EOFError, ImageFileError) as error:
        print(f"{error}; section1/curation.py finds all files that are broken", file=sys.stderr)
        return 1
    if not crops:
        print(f"no labelled volumes in {args.data_root / 'TrainingSet'}: see data/README.md", file=sys.stderr)
        return 1
    atlas = make_atlas(crops)
    part = args.out.with_suffix(".part.npz")
    np.savez_compressed(part, **atlas)
    part.replace(args.out)
    print(f"{args.out}: mean of {len(crops)} labelled crops, {args.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
