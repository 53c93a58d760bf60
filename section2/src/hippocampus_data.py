"""The curated set in memory, its split by person, and the slices that a network is trained on."""

import argparse
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from augmentation import augment
from config import Config
from nifti import DataError, nifti_files, read_nifti
from volume_segmenter import normalise, slices_along

CURATED = Path(__file__).resolve().parents[2] / "section1" / "out"
SPACING_TOLERANCE = 0.01  # mm off the expected 1 mm
AUGMENTED_AT_ONCE = 8  # volumes; more do not fit the processor's cache


@dataclass(frozen=True)
class Case:
    """One hippocampus: image [X, Y, Z] float32 and labels [X, Y, Z] uint8 (0, 1 anterior, 2 posterior), RAS, 1 mm."""

    name: str
    image: np.ndarray
    labels: np.ndarray

    @property
    def person(self) -> str:
        return person_of(self.name)


def person_of(name: str) -> str:
    """Files 2k-1 and 2k of the set are the two hippocampi of person k; a name without number is a person of its own.

    Corrections that viewers sent begin with their person.
    """
    if told := re.match(r"person-[0-9a-f]{12}(?=-)", name):
        return told[0]
    number = re.search(r"(\d+)\.nii(\.gz)?$", name)
    return f"person_{(int(number[1]) + 1) // 2:03d}" if number else name


def add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", type=Path, default=CURATED, help="with images/ and labels/ (section1/out)")


def read_ras(path: Path) -> np.ndarray:
    """The voxels [X, Y, Z] of a NIfTI file that must be RAS at 1 mm; raises DataError naming it otherwise."""
    image = read_nifti(path)
    orientation = "".join(str(code) for code in nib.aff2axcodes(image.affine))
    if orientation != "RAS":
        raise DataError(f"{path}: orientation is {orientation}, expected RAS")
    spacing = [float(s) for s in image.header.get_zooms()]
    if not np.allclose(spacing, 1, atol=SPACING_TOLERANCE):
        raise DataError(f"{path}: spacing is {spacing} mm, expected 1 mm")
    return np.asanyarray(image.dataobj)


def load_case(image_path: Path, label_path: Path) -> Case:
    image, labels = read_ras(image_path), read_ras(label_path)
    if image.shape != labels.shape:
        raise DataError(f"{label_path}: shape is {labels.shape}, its image has {image.shape}")
    if not np.isin(labels, (0, 1, 2)).all():
        raise DataError(f"{label_path}: has labels {np.unique(labels).tolist()}, expected 0, 1, 2")
    return Case(image_path.name, image.astype(np.float32), labels.astype(np.uint8))


def LoadHippocampusData(root: Path, max_workers: int | None = None) -> list[Case]:
    """Reads all pairs of `root/images` and `root/labels`, in parallel processes.

    At this size that gains nothing: 208 pairs took 1.4 s in this process and 1.8 s in two (medians of five in turn,
    on two busy cores). It is made for sets many times larger. `max_workers` 0 reads in this process.
    Raises DataError where a folder is missing or empty, a file has no partner or breaks the contract of `Case`.
    """
    images, labels = nifti_files(root / "images"), nifti_files(root / "labels")
    if not images:
        raise DataError(f"no NIfTI files in {root / 'images'}; make the curated set first (section1/curation.py)")
    unpaired = {p.name for p in images} ^ {p.name for p in labels}
    if unpaired:
        raise DataError(
            f"image or label missing for {', '.join(sorted(unpaired))} in {root}; curate it first (section1)"
        )
    if max_workers == 0:
        return [load_case(*pair) for pair in zip(images, labels, strict=True)]
    with ProcessPoolExecutor(max_workers) as pool:
        return list(pool.map(load_case, images, labels, chunksize=16))


@dataclass(frozen=True)
class Split:
    """File names for each purpose; no person is in two of them."""

    train: list[str]
    validation: list[str]
    test: list[str]


def split_by_person(names: list[str], test_share: float, validation_share: float, seed: int) -> Split:
    """A seeded random split of persons, not of files: both hippocampi of a person always stay together."""
    persons = shuffled_persons(names, seed)
    tested = round(len(persons) * test_share)
    validated = round(len(persons) * validation_share)
    return split_of(names, test=persons[:tested], validation=persons[tested : tested + validated])


def fold_splits(names: list[str], folds: int, validation_share: float, seed: int) -> list[Split]:
    """Each person is in the test of exactly one of the folds."""
    persons = shuffled_persons(names, seed)
    if folds > len(persons):
        raise DataError(f"{folds} folds need as many persons, found {len(persons)}")
    splits = []
    for fold in range(folds):
        test = persons[fold::folds]
        others = [p for p in persons if p not in test]
        splits.append(split_of(names, test=test, validation=others[: round(len(persons) * validation_share)]))
    return splits


def shuffled_persons(names: list[str], seed: int) -> list[str]:
    persons = sorted({person_of(name) for name in names})
    return [persons[i] for i in np.random.default_rng(seed).permutation(len(persons))]


def split_of(names: list[str], test: list[str], validation: list[str]) -> Split:
    split = Split(
        train=[n for n in names if person_of(n) not in {*test, *validation}],
        validation=[n for n in names if person_of(n) in validation],
        test=[n for n in names if person_of(n) in test],
    )
    if not split.train:
        raise DataError(f"nothing left to train on: {len(names)} volumes, {len(test)} persons held out for the test")
    return split


class SlicesDataset(Dataset):
    """Slices with their neighbours as channels, out of volumes that are augmented anew each epoch.

    The volumes are normalised once and laid into the middle of one common shape, so that an epoch's augmentation is a
    few calls over batches of whole volumes (three-dimensional, then sliced) and a batch of slices is one indexing.
    Augmented volumes are seen through a window of common size (`window`): the largest would mostly add empty voxels.
    With `dims` 3 the items are whole volumes. Volumes lie as `slices_along` turns them: the sliced axis is the second.
    """

    def __init__(self, cases: list[Case], config: Config, multiple: int, device: torch.device):
        self.config, self.dims, self.context = config, config.dims, config.context
        dims, context = config.dims, config.context
        plane = config.plane if dims == 2 else "coronal"
        volumes = [[slices_along(plane, torch.from_numpy(v)) for v in (case.image, case.labels)] for case in cases]
        sizes = np.array([image.shape for image, _ in volumes])
        shape, window = (
            -(-size // multiple) * multiple for size in (sizes.max(axis=0), np.quantile(sizes, config.window, axis=0))
        )
        if dims == 2:
            shape[1] = window[1] = sizes[:, 1].max() + context - 1  # all slices, with neighbours for the outermost
        self.window = tuple(int(size) for size in window)
        self.images = torch.zeros((len(cases), *shape), device=device)
        self.labels = torch.zeros((len(cases), *shape), dtype=torch.uint8, device=device)
        self.items = []
        for n, (image, labels) in enumerate(volumes):
            start = (shape - image.shape) // 2
            inside = tuple(slice(a, a + size) for a, size in zip(start, image.shape, strict=True))
            self.images[n][inside] = normalise(image).to(device)
            self.labels[n][inside] = labels.to(device)
            self.items += [(n, y) for y in range(inside[1].start, inside[1].stop)] if dims == 2 else [(n, 0)]
        self.shown_images, self.shown_labels = self.images, self.labels

    def augment(self) -> None:
        """Draws a new deformation and intensity for each volume; call it once before each epoch."""
        batches = zip(self.images.split(AUGMENTED_AT_ONCE), self.labels.split(AUGMENTED_AT_ONCE), strict=True)
        drawn = [augment(images, labels, self.window, self.config) for images, labels in batches]
        self.shown_images, self.shown_labels = (torch.cat(part) for part in zip(*drawn, strict=True))

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: inputs [B, context, X, Z] float32, labels [B, X, Z] int64; dims 3: [B, 1, X, Y, Z], [B, X, Y, Z]."""
        volume, y = torch.tensor([self.items[i] for i in indices], device=self.images.device).unbind(dim=1)
        if self.dims == 3:
            return self.shown_images[volume][:, None], self.shown_labels[volume].long()
        neighbours = y[:, None] + torch.arange(self.context, device=y.device) - self.context // 2
        return self.shown_images[volume[:, None], :, neighbours], self.shown_labels[volume, :, y].long()
