"""What must never get a number: faulty crops and other anatomy. To try the checks of checks/quality.py on.

Every change takes a raw volume [X, Y, Z] (RAS, 1 mm) and a random generator and returns another raw volume.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from scipy import ndimage

from reading.dicom_series import Series, list_files, read_study

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _grey(volume: np.ndarray) -> np.ndarray:
    """Grey values from 0 to 1."""
    low, high = np.percentile(volume, (0.5, 99.5))
    return np.clip((volume - low) / (high - low), 0, 1)


def _recoloured(*greys: float) -> Change:
    """New greys for what had 0, 0.25, 0.5, 0.75 and 1: fluid, grey matter about 0.45, white matter about 0.75."""
    return lambda volume, _: np.interp(_grey(volume), np.linspace(0, 1, 5), greys)


def _turned(quarters: tuple[int, ...], axes: tuple[int, int]) -> Change:
    return lambda volume, rng: np.rot90(volume, rng.choice(quarters), axes)


def _zoomed(factor: float) -> Change:
    """As if the spacing were wrong: the crop itself is larger or smaller."""
    return lambda volume, _: ndimage.zoom(volume, factor, order=1)


def _zoomed_inside(factor: float) -> Change:
    """As if the spacing were wrong, cut to the usual size."""

    def change(volume: np.ndarray, _: np.random.Generator) -> np.ndarray:
        offset = (1 - 1 / factor) * (np.array(volume.shape) - 1) / 2
        return ndimage.affine_transform(volume, np.eye(3) / factor, offset, order=1, mode="reflect")

    return change


def _half_zero(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    axis, volume = rng.integers(3), volume.copy()
    half = np.array_split(np.moveaxis(volume, axis, 0), 2)[rng.integers(2)]
    half[:] = 0
    return volume


def _moved(share: float) -> Change:
    """The window of the crop moved along an axis; what it gains is a reflection of what it had."""

    def change(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        axis = rng.integers(3)
        step = round(volume.shape[axis] * share) * rng.choice((-1, 1))
        padding = [(0, 0)] * 3
        padding[axis] = (max(-step, 0), max(step, 0))
        window = slice(max(step, 0), max(step, 0) + volume.shape[axis])
        return np.moveaxis(np.moveaxis(np.pad(volume, padding, "reflect"), axis, 0)[window], 0, axis)

    return change


def _checkerboard(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (np.indices(volume.shape) // rng.choice((1, 2, 4, 8))).sum(axis=0) % 2 * 100.0


NONSENSE: dict[str, Change] = {
    "mirrored in x": lambda volume, _: volume[::-1],
    "mirrored in y": lambda volume, _: volume[:, ::-1],
    "mirrored in z": lambda volume, _: volume[:, :, ::-1],
    "turned by 90 about x": _turned((1, 3), (1, 2)),
    "turned by 90 about y": _turned((1, 3), (0, 2)),
    "turned by 90 about z": _turned((1, 3), (0, 1)),
    "turned by 180 about x": _turned((2,), (1, 2)),
    "turned by 180 about y": _turned((2,), (0, 2)),
    "turned by 180 about z": _turned((2,), (0, 1)),
    "contrast inverted": _recoloured(1, 0.75, 0.5, 0.25, 0),
    "contrast like T2": _recoloured(1, 0.8, 0.5, 0.25, 0.2),
    "contrast like FLAIR": _recoloured(0, 0.4, 1, 0.55, 0.5),
    "spacing halved": _zoomed(2),
    "spacing doubled": _zoomed(0.5),
    "enlarged by 1.4 in its frame": _zoomed_inside(1.4),
    "enlarged by 1.2 in its frame": _zoomed_inside(1.2),
    "shrunk by 0.7 in its frame": _zoomed_inside(0.7),
    "blurred, sigma 3": lambda volume, _: ndimage.gaussian_filter(volume, 3),
    "blurred, sigma 1.5": lambda volume, _: ndimage.gaussian_filter(volume, 1.5),
    "noise over it": lambda volume, rng: _grey(volume) + rng.normal(0, 0.5, volume.shape),
    "half of it zero": _half_zero,
    "moved by half": _moved(0.5),
    "moved by a quarter": _moved(0.25),
    "noise": lambda volume, rng: rng.normal(100, 20, volume.shape),
    "smooth noise": lambda volume, rng: ndimage.gaussian_filter(rng.normal(0, 1, volume.shape), 2),
    "checkerboard": _checkerboard,
    "constant": lambda volume, _: np.full_like(volume, 7),
}


def read_brains(folder: Path) -> dict[str, list[np.ndarray]]:
    """All series but HippoCrop of the DICOM studies in a folder, by description: volumes [X, Y, Z] at 1 mm.

    Their axes run as RAS does but for the tilt of the slices: they stand for other anatomy, not for a place in it.
    """
    brains = {}
    for study in sorted(path for path in folder.iterdir() if path.is_dir()):
        for series in read_study(list_files(study)).series:
            if series.description != "HippoCrop":
                brains.setdefault(series.description, []).append(_read_brain(series))
    return brains


def _read_brain(series: Series) -> np.ndarray:
    slices = sorted(
        (pydicom.dcmread(instance.path) for instance in series.instances),
        key=lambda one: float(one.ImagePositionPatient[2]),
    )
    step = np.subtract(slices[1].ImagePositionPatient, slices[0].ImagePositionPatient)
    between_rows, between_columns = slices[0].PixelSpacing
    volume = np.stack([one.pixel_array.T[::-1, ::-1] for one in slices], axis=-1).astype(np.float32)
    return ndimage.zoom(volume, (between_columns, between_rows, np.linalg.norm(step)), order=1)


def random_crops(brain: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless crops of `shape` from anywhere in a brain [X, Y, Z] where there is not mainly air."""
    while True:
        first = [rng.integers(0, size - wanted + 1) for size, wanted in zip(brain.shape, shape, strict=True)]
        crop = brain[tuple(slice(low, low + wanted) for low, wanted in zip(first, shape, strict=True))]
        if crop.mean() > 0.3 * brain.mean():
            yield crop


def squeezed(brain: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The whole brain [X, Y, Z] in a crop of `shape`, as if its spacing were wrong."""
    return ndimage.zoom(brain, np.divide(shape, brain.shape), order=1)
