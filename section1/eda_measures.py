"""What the notebook measures: what headers say, a common frame for the crops, and what they have in common in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from scipy.ndimage import binary_dilation

from curation import PairFacts, find_folders, load_ras

# Half the box that holds any hippocampus of the set with its surroundings, in voxels around the middle of the label.
HALF = np.array([15, 27, 17])
# The plane that a slice lies in, by the letter of the axis that it cuts across.
PLANE_ACROSS = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


@dataclass
class Case:
    """A pair with its voxels, in RAS."""

    facts: PairFacts
    image: np.ndarray  # [X, Y, Z]
    label: np.ndarray  # [X, Y, Z]: 0 background, 1 anterior, 2 posterior
    spacing: np.ndarray  # mm

    @property
    def title(self) -> str:
        return self.facts.name.removesuffix(".gz").removesuffix(".nii")


def load_cases(pairs: list[PairFacts], data_root: Path) -> list[Case]:
    """Read the voxels of all kept pairs."""
    images, labels = find_folders(Path(data_root))
    cases = []
    for pair in pairs:
        if pair.kept:
            image, label = load_ras(images / pair.name), load_ras(labels / pair.name)
            cases.append(Case(pair, image.array, label.array.astype(np.uint8), voxel_sizes(image.affine)))
    return cases


def header_facts(path: Path) -> dict[str, str]:
    """What the header of a NIfTI file says of its format, voxels, units and axes, in nibabel's words."""
    file = nib.load(path)
    space, time = file.header.get_xyzt_units()
    return {
        "header": type(file.header).__name__,
        "voxels are": str(file.header.get_data_dtype()),
        "bits per voxel": str(file.header["bitpix"]),
        "unit of space": space,
        "unit of time": time,
        "spacing": " x ".join(f"{size:g}" for size in file.header.get_zooms()),
        "axes": "".join(nib.aff2axcodes(file.affine)),
    }


def count_headers(cases: list[Case], data_root: Path) -> str:
    """A line for each fact of the headers: what it is in how many images and in how many labels."""
    folders = find_folders(Path(data_root))
    images, labels = ([header_facts(folder / case.facts.name) for case in cases] for folder in folders)

    def counts(facts: list[dict[str, str]], what: str) -> str:
        return ", ".join(f"{value} ({n})" for value, n in Counter(each[what] for each in facts).most_common())

    rows = [("", "images", "labels"), *((what, counts(images, what), counts(labels, what)) for what in images[0])]
    return "\n".join(f"{what:<16}{of_images:<30}{of_labels}" for what, of_images, of_labels in rows)


def planes_of(affine: np.ndarray) -> tuple[str, ...]:
    """The plane in which a slice lies that holds the first, second or third index fixed, for an affine [4, 4]."""
    return tuple(PLANE_ACROSS[code] for code in nib.aff2axcodes(affine))


def list_shifted(cases: list[Case]) -> str:
    """How many labels are flagged as shifted, and which, with their shift along x, y and z in voxels."""
    shifted = [case for case in cases if "label_shifted" in case.facts.flags]
    shifts = [" ".join(f"{shift:+.2f}" for shift in case.facts.shift_voxels) for case in shifted]
    lines = [f"{case.title[-3:]}: {shift}" for case, shift in zip(shifted, shifts, strict=True)]
    return "\n".join([f"{len(shifted)} of {len(cases)} labels are flagged as shifted", *lines])


def pooled(means: Sequence[float], deviations: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of equally large groups taken together, from those of each."""
    mean = np.mean(means)
    return float(mean), float(np.sqrt(np.mean(np.square(deviations) + np.square(means - mean))))


def normalise(image: np.ndarray) -> np.ndarray:
    """Clip to the 0.5th and 99.5th percentile, then mean 0 and SD 1: the scale of a scan is arbitrary."""
    clipped = np.clip(image, *np.percentile(image, [0.5, 99.5])).astype(np.float32)
    return (clipped - clipped.mean()) / clipped.std()


def bounding_box(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel [3] of a label [X, Y, Z] along each axis."""
    voxels = np.argwhere(label > 0)
    return voxels.min(axis=0), voxels.max(axis=0)


def aligned(case: Case, volume: np.ndarray) -> np.ndarray:
    """Cut from `volume` [X, Y, Z] the box of 2 * HALF + 1 around the middle of the case's label, repeating the edge."""
    middle = np.add(*bounding_box(case.label)) // 2
    padded = np.pad(volume, [(h, h) for h in HALF], mode="edge")
    return padded[tuple(slice(m, m + 2 * h + 1) for m, h in zip(middle, HALF, strict=True))]


def mean_image(cases: list[Case]) -> np.ndarray:
    """The mean of all normalised images, aligned by their labels."""
    return np.mean([aligned(case, normalise(case.image)) for case in cases], axis=0)


def mean_label(cases: list[Case], value: int) -> np.ndarray:
    """Share of the cases that have `value` at each voxel of the common frame."""
    return np.mean([aligned(case, case.label) == value for case in cases], axis=0)


def neighbourhood(cases: list[Case]) -> np.ndarray:
    """Where the structure may be, and two voxels around it: mask in the common frame."""
    structure = mean_label(cases, 1) + mean_label(cases, 2)
    return binary_dilation(structure > 0.1, iterations=2)


def neighbour_correlations(cases: list[Case]) -> tuple[list[float], list[float]]:
    """Correlation of each image with the next by name: of the same person, and of two persons."""
    mask = neighbourhood(cases)
    values = [aligned(case, normalise(case.image))[mask] for case in cases]
    same, different = [], []
    for (case, one), (following, other) in pairwise(zip(cases, values, strict=True)):
        group = same if case.facts.person == following.facts.person else different
        group.append(float(np.corrcoef(one, other)[0, 1]))
    return same, different


def mirror_correlations(cases: list[Case]) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of each image with the mean of the others: as it is, and mirrored in x."""
    mask = neighbourhood(cases)
    mask = mask | mask[::-1]
    images = np.array([aligned(case, normalise(case.image)) for case in cases])
    others = (images.sum(axis=0) - images) / (len(images) - 1)
    as_is = [np.corrcoef(image[mask], other[mask])[0, 1] for image, other in zip(images, others, strict=True)]
    mirrored = [np.corrcoef(image[::-1][mask], other[mask])[0, 1] for image, other in zip(images, others, strict=True)]
    return np.array(as_is), np.array(mirrored)
