"""What is measured on a crop and on the model's answer, to judge whether its number may be shown.

Numpy alone: importing scipy would take longer than all of this.
"""

from itertools import product

import numpy as np

from common.structures import ANTERIOR, POSTERIOR

CLIPPED = (0.5, 99.5)  # percentiles: a bright vessel or two must not set the scale
WRONG_SCALE = 1.4  # persons differ by less
# What is measured of the answer besides volumes, where there are any.
SHAPE = ("ratio", "forward", "tilt", "margin", "one_piece", "surface", "confidence", "doubt")


def measure_size(volume: np.ndarray) -> dict[str, float]:
    """The values of quality_catalogue.SIZE_MEASURES for a volume [X, Y, Z] of 1 mm."""
    return {f"size_{axis}": size for axis, size in zip("xyz", volume.shape, strict=True)}


def measure_image(volume: np.ndarray, template: np.ndarray) -> dict[str, float]:
    """The values of quality_catalogue.IMAGE_MEASURES for a raw volume [X, Y, Z] (RAS, 1 mm).

    It has 2 voxels or more along each axis.
    """
    normal = normalise(volume)
    centre = around_centre(normal, template.shape)
    likeness = _correlation(centre, template)
    reversed_ones = [template[reverse] for reverse in _reversals()]
    rescaled_ones = [enlarged(template, factor) for factor in (WRONG_SCALE, 1 / WRONG_SCALE)]
    extent = np.ptp(normal)
    return {
        "grey_levels": len(np.unique(volume)),
        "brightness": -normal.min() / extent if extent else 0.0,  # as its mean is 0
        "asymmetry": (normal**3).mean(),
        "smoothness": np.mean([_correlation(one[1:], one[:-1]) for one in _along_each_axis(normal)]),
        "likeness": likeness,
        "orientation": likeness - max(_correlation(centre, one) for one in reversed_ones),
        "scale": likeness - max(_correlation(centre, one) for one in rescaled_ones),
    }


def measure_slices(voxels: np.ndarray) -> float:
    """How much liker a slice is to the mean of its two neighbours than these are to each other: the least, on any axis.

    Of a slice that lies between its neighbours it is above 0; 0 where no axis has three slices.
    """
    values = np.clip(voxels.astype(np.float64), *np.percentile(voxels, CLIPPED))
    gains = [
        _correlation(middle, before + after) - _correlation(before, after)
        for planes in _along_each_axis(values)
        for before, middle, after in zip(planes, planes[1:], planes[2:], strict=False)
    ]
    return min(gains, default=0.0)


def count_blank_sides(voxels: np.ndarray) -> int:
    """How many of the six sides of a volume are of one grey value."""
    return sum(planes[side].min() == planes[side].max() for planes in _along_each_axis(voxels) for side in (0, -1))


def normalise(volume: np.ndarray) -> np.ndarray:
    """Clip and shift to mean 0 and standard deviation 1, as the scale of a scan is arbitrary; all 0 if constant."""
    volume = volume.astype(np.float64)  # the square of a large float32 is none
    clipped = np.clip(volume, *np.percentile(volume, CLIPPED))
    deviation = clipped.std()
    return ((clipped - clipped.mean()) / (deviation or 1)).astype(np.float32)


def around_centre(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The box of `shape` voxels in the middle of the volume; beyond the edge the nearest voxels are repeated."""
    places = (
        np.clip(np.arange(wanted) + (size - wanted) // 2, 0, size - 1)
        for wanted, size in zip(shape, volume.shape, strict=True)
    )
    return volume[np.ix_(*places)]


def _reversals() -> list[tuple[slice, ...]]:
    """The seven ways to reverse one, two or three axes."""
    return list(product((slice(None), slice(None, None, -1)), repeat=3))[1:]


def enlarged(volume: np.ndarray, factor: float) -> np.ndarray:
    """The volume [X, Y, Z] enlarged about its middle and cut to its shape, by nearest voxels; the edge is repeated."""
    places = []
    for size in volume.shape:
        middle = (size - 1) / 2
        place = np.round((np.arange(size) - middle) / factor + middle).astype(int)
        places.append(np.clip(place, 0, size - 1))
    return volume[np.ix_(*places)]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; 0 where one is constant."""
    one, other = (array - array.mean() for array in (one, other))
    scale = np.sqrt((one * one).sum() * (other * other).sum())
    return float((one * other).sum() / scale) if scale > 0 else 0.0


def _along_each_axis(volume: np.ndarray) -> list[np.ndarray]:
    return [np.moveaxis(volume, axis, 0) for axis in range(3)]


def measure_output(probabilities: np.ndarray) -> dict[str, float]:
    """The values of quality_catalogue.OUTPUT_MEASURES for probabilities [3, X, Y, Z].

    NaN what cannot be measured, as a part is absent.
    """
    labels = probabilities.argmax(axis=0)
    structure, anterior, posterior = labels > 0, labels == ANTERIOR, labels == POSTERIOR
    volumes = {name: np.count_nonzero(part) for name, part in (("anterior", anterior), ("posterior", posterior))}
    volumes["total"] = sum(volumes.values())
    if not all(volumes.values()):
        return {**dict.fromkeys(SHAPE, np.nan), **volumes}

    way = np.argwhere(anterior).mean(axis=0) - np.argwhere(posterior).mean(axis=0)
    voxels = np.argwhere(structure)
    first, last = voxels.min(axis=0), voxels.max(axis=0)
    box = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    most_probable = probabilities.max(axis=0)
    return {
        **volumes,
        "ratio": volumes["anterior"] / volumes["posterior"],
        "forward": way[1],
        "tilt": np.degrees(np.arccos(way[1] / np.linalg.norm(way))),
        "margin": min(*first, *(np.array(labels.shape) - 1 - last)),
        "one_piece": min(largest_share(part[box]) for part in (anterior, posterior, structure)),
        "surface": _faces(structure) / volumes["total"] ** (2 / 3),
        "confidence": most_probable[structure].mean(),
        "doubt": (1 - most_probable).sum() / volumes["total"],
    }


def largest_share(mask: np.ndarray) -> float:
    """The share of a mask's voxels [X, Y, Z] in its largest piece; voxels with a common face are of one piece."""
    mask = np.pad(mask, 1)
    # Every voxel starts with a number of its own and takes the highest of its neighbours', until nothing changes.
    numbers = np.where(mask, np.arange(mask.size, dtype=np.int32).reshape(mask.shape), 0)
    before = None
    while before is None or not np.array_equal(before, numbers):
        before = numbers.copy()
        for one in _along_each_axis(numbers):
            np.maximum(one[1:], one[:-1], out=one[1:])
            np.maximum(one[:-1], one[1:], out=one[:-1])
            numbers *= mask
    return np.unique(numbers[mask], return_counts=True)[1].max() / np.count_nonzero(mask)


def _faces(mask: np.ndarray) -> int:
    """The number of voxel faces between inside and outside, or the edge of the volume."""
    return sum(np.count_nonzero(one[1:] != one[:-1]) for one in _along_each_axis(np.pad(mask, 1)))
