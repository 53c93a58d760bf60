"""May this number be shown? What is measured on a crop and on the model's answer, against what is usual.

Before the model runs, `assess_input` asks whether the volume can be a T1 crop around a hippocampus at all: its size,
its grey values, and its likeness to the mean of the training crops, also when that is mirrored or rescaled. Afterwards
`assess_output` asks whether the model's answer can be a hippocampus, and how sure of it the model was.

The limits and the mean crop are data and belong to a model: `quality_limits.json` and `quality_template.npz` beside it,
both written by fit_quality_limits.py, which also counts how often they refuse good crops and let nonsense pass. Numpy
alone: importing scipy would take longer than all of this.

The width of the calibrated interval is no check: it is the same share of the volume for every crop, one for each
structure in the model's card, so a limit on it would pass all crops or none. What tells one crop's answer from
another's is how sure the model is of its voxels: `confidence` and `doubt`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from refusal import Refusal

LIMITS_FILE, TEMPLATE_FILE = "quality_limits.json", "quality_template.npz"

PASS, WARN, FAIL = "pass", "warn", "fail"
_SEVERITY = (PASS, WARN, FAIL)

CLIPPED = (0.5, 99.5)  # percentiles: a bright vessel or two must not set the scale
WRONG_SCALE = 1.4  # persons differ by less
COARSE = 1.5  # mm: from voxels of 2 mm volumes come out 3 % too small (benchmarks/geometry.py)
TEMPLATE_SCALE = 40  # the mean crop is stored in steps of 1/40 of a standard deviation, up to 3 of these in a byte


@dataclass(frozen=True)
class Check:
    """One answer. `limit`, `source` and `sentence` are for people; `value` is None where nothing could be measured."""

    name: str
    value: float | None
    limit: str
    source: str
    verdict: str  # "pass", "warn" (look twice) or "fail" (the number must not be shown)
    sentence: str


def verdict(checks: Iterable[Check]) -> str:
    """The worst verdict of all; "pass" where there are none."""
    return worst(check.verdict for check in checks)


def worst(verdicts: Iterable[str]) -> str:
    """The gravest of verdicts; "pass" where there are none."""
    return max(verdicts, key=_SEVERITY.index, default=PASS)


@dataclass(frozen=True)
class Measure:
    """What a check is about, in the words for its sentence. A side without words has no limit."""

    name: str
    subject: str
    unit: str = ""
    too_low: str = ""
    too_high: str = ""


_SIZE = {
    "unit": "mm",
    "too_low": "the crop is too tight, or its spacing is wrong",
    "too_high": "this is no crop around one hippocampus, or its spacing is wrong",
}
_GREY = {
    "too_low": "the contrast is not that of the T1-weighted crops of training",
    "too_high": "the contrast is not that of the T1-weighted crops of training",
}
_VOLUME = {
    "unit": "mm3",
    "too_low": "smaller than what the model measures in any crop it knows",
    "too_high": "larger than what the model measures in any crop it knows",
}

SIZE_MEASURES = (
    Measure("size_x", "The size of the crop from side to side", **_SIZE),
    Measure("size_y", "The size of the crop from back to front", **_SIZE),
    Measure("size_z", "The size of the crop from bottom to top", **_SIZE),
)
IMAGE_MEASURES = (
    Measure("grey_levels", "The number of grey values", too_low="such an image holds next to no information"),
    Measure("brightness", "The mean grey value on a scale from 0 (black) to 1 (white)", **_GREY),
    Measure("asymmetry", "The skewness of the grey values", **_GREY),
    Measure(
        "smoothness",
        "The correlation of neighbouring voxels",
        too_low="the image is noise, or broken",
        too_high="the image is blurred, or was enlarged from coarser voxels",
    ),
    Measure(
        "likeness",
        "The likeness (correlation) to the mean training crop",
        too_low="the crop shows something else, in another contrast, or not in its middle",
    ),
    Measure(
        "orientation",
        "The likeness to the mean training crop less the one to its best mirror image",
        too_low="the crop looks mirrored or turned against the training crops",
    ),
    Measure(
        "scale",
        f"The likeness to the mean training crop less the one to it {WRONG_SCALE:g} times larger or smaller",
        too_low="the spacing in the headers looks wrong, so that volumes would be wrong too",
    ),
)
INPUT_MEASURES = SIZE_MEASURES + IMAGE_MEASURES
OUTPUT_MEASURES = (
    Measure("anterior", "The volume of the anterior part", **_VOLUME),
    Measure("posterior", "The volume of the posterior part", **_VOLUME),
    Measure("total", "The total volume", **_VOLUME),
    Measure(
        "ratio",
        "The ratio of anterior to posterior volume",
        too_low="the border between the parts lies unusually far to the front",
        too_high="the border between the parts lies unusually far to the back",
    ),
    Measure(
        "forward",
        "The distance of the anterior part in front of the posterior part, between their middles",
        unit="mm",
        too_low="the parts lie in the wrong order or too close together",
        too_high="the parts lie too far apart",
    ),
    Measure(
        "tilt",
        "The angle of the line between the middles of the parts to straight forward",
        unit="degrees",
        too_high="the structure lies askew in the crop",
    ),
    Measure(
        "margin",
        "The least distance of the structure from the crop's edge",
        unit="voxels",
        too_low="the structure comes so near to the edge of the crop that a part of it may be cut off",
    ),
    Measure(
        "one_piece",
        "The least share of a part, or of both, that hangs together",
        too_low="the structure found is in pieces",
    ),
    Measure(
        "surface",
        "The surface for this volume (6 for a cube)",
        too_low="too smooth and round for a hippocampus",
        too_high="too ragged for a hippocampus",
    ),
    Measure("confidence", "The mean probability inside the structure", too_low="the model is unusually unsure"),
    Measure(
        "doubt",
        "The share of voxels that are wrong by the model's own probabilities",
        too_high="the model is unusually unsure",
    ),
)


@dataclass(frozen=True)
class Range:
    """Where a value may lie: (low, high), None for no limit. Outside `warn` it is doubtful, outside `fail` refused."""

    warn: tuple[float | None, float | None]
    fail: tuple[float | None, float | None]
    source: str

    def verdict(self, value: float) -> str:
        if not _within(value, self.fail):
            return FAIL
        return PASS if _within(value, self.warn) else WARN


def _within(value: float, limits: tuple[float | None, float | None]) -> bool:
    """Whether a value lies between low and high; NaN never does."""
    low, high = (end if end is not None else infinite for end, infinite in zip(limits, (-np.inf, np.inf), strict=True))
    return low <= value <= high


@dataclass(frozen=True)
class Limits:
    """What is usual.

    ranges: by the name of the measure. template: the mean crop [X, Y, Z], of mean 0 and standard deviation 1.
    model_sha256: the model whose answers the limits were fitted on. fitted_on: in words.
    """

    ranges: Mapping[str, Range]
    template: np.ndarray
    model_sha256: str
    fitted_on: str

    def save(self, folder: Path) -> None:
        """Write both files under temporary names and move them into place."""
        content = {"fitted_on": self.fitted_on, "model_sha256": self.model_sha256}
        content["ranges"] = {name: vars(one) for name, one in self.ranges.items()}
        template = np.clip(np.round(self.template * TEMPLATE_SCALE), -127, 127).astype(np.int8)
        unfinished = {name: folder / f".unfinished-{name}" for name in (LIMITS_FILE, TEMPLATE_FILE)}
        unfinished[LIMITS_FILE].write_text(json.dumps(content, indent=2) + "\n")
        np.savez_compressed(unfinished[TEMPLATE_FILE], template=template)
        for name, path in unfinished.items():
            path.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Limits:
        content = json.loads((folder / LIMITS_FILE).read_text())
        with np.load(folder / TEMPLATE_FILE) as file:
            template = file["template"].astype(np.float32) / TEMPLATE_SCALE
        ranges = {
            name: Range(tuple(one["warn"]), tuple(one["fail"]), one["source"])
            for name, one in content["ranges"].items()
        }
        return cls(ranges, template, content["model_sha256"], content["fitted_on"])


@functools.cache
def limits_beside(model_path: Path) -> Limits | None:
    """Those in the folder of the model; None where it has none."""
    return Limits.load(model_path.parent) if (model_path.parent / LIMITS_FILE).exists() else None


def limits_sha256(model_path: Path) -> str | None:
    """A digest of the limits beside the model, None where it has none: with others, a page may give another verdict.

    Raises Refusal: bad-model, where only one of their files can be read.
    """
    paths = [model_path.parent / name for name in (LIMITS_FILE, TEMPLATE_FILE)]
    if not paths[0].exists():
        return None
    try:
        return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    except OSError as error:
        raise Refusal("bad-model", f"the limits {error.filename} cannot be read: {error.strerror}") from error


# --- the two doors ----------------------------------------------------------------------------------------------------


def assess_spacing(spacing: Iterable[float]) -> Check:
    """Are the voxels of the series, in mm, as fine as they need to be?"""
    measure = Measure(
        "voxel_size", "The widest side of the series' voxels", "mm", too_high="volumes may come out too small"
    )
    usual = Range(warn=(None, COARSE), fail=(None, None), source="measured on resampled crops: benchmarks/geometry.py")
    return _check(measure, round(max(spacing), 3), usual)


def assess_input(volume: np.ndarray, limits: Limits) -> list[Check]:
    """Can the raw volume [X, Y, Z] (RAS, 1 mm) be a crop like those of training? To be asked before the model runs.

    A volume of the wrong size is not looked at any closer: it may be huge.
    """
    sizes = _checks(SIZE_MEASURES, measure_size(volume), limits)
    if verdict(sizes) == FAIL:
        return sizes
    return sizes + _checks(IMAGE_MEASURES, measure_image(volume, limits.template), limits)


def assess_output(probabilities: np.ndarray, model_sha256: str, limits: Limits) -> list[Check]:
    """Can the model's answer, probabilities [3, X, Y, Z] (RAS, 1 mm), be a hippocampus?"""
    checks = _checks(OUTPUT_MEASURES, measure_output(probabilities), limits)
    if model_sha256 != limits.model_sha256:
        checks.append(_other_model(limits))
    return checks


def is_cut(checks: Iterable[Check]) -> bool:
    """Does the structure come too near to the edge of the crop, as where slices at its end are missing?"""
    return any(check.name == "margin" and check.verdict == FAIL for check in checks)


def _checks(measures: Iterable[Measure], values: Mapping[str, float], limits: Limits) -> list[Check]:
    return [_check(measure, float(values[measure.name]), limits.ranges[measure.name]) for measure in measures]


def _check(measure: Measure, value: float, usual: Range) -> Check:
    result = usual.verdict(value)
    if not np.isfinite(value):
        sentence = f"{measure.subject} cannot be measured."
        return Check(measure.name, None, _in_words(usual.fail, measure.unit), usual.source, result, sentence)
    sentence = f"{measure.subject} is {number_in_words(value)} {measure.unit}".rstrip()
    if result != PASS:
        limit = usual.fail if result == FAIL else usual.warn
        low = limit[0] is not None and value < limit[0]
        word = "expected" if result == FAIL else "usual is"
        sentence += f", {word} {_in_words(limit, measure.unit)}: {measure.too_low if low else measure.too_high}"
    return Check(measure.name, value, _in_words(usual.fail, measure.unit), usual.source, result, f"{sentence}.")


def _other_model(limits: Limits) -> Check:
    sentence = "The limits of the checks were fitted on another model: run fit_quality_limits.py for this one."
    return Check("model", None, f"SHA-256 {limits.model_sha256[:12]}", limits.fitted_on, WARN, sentence)


def nothing_checked() -> Check:
    """What is told of a model that comes without limits."""
    sentence = f"No {LIMITS_FILE} lies beside the model, so nothing was checked: run fit_quality_limits.py for it."
    return Check("model", None, f"{LIMITS_FILE} beside the model", "the volume contract", WARN, sentence)


def number_in_words(value: float) -> str:
    """A value as people read it."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _in_words(limit: tuple[float | None, float | None], unit: str) -> str:
    low, high = limit
    if low is None and high is None:
        return "none"
    if high is None:
        words = f"at least {number_in_words(low)}"
    elif low is None:
        words = f"at most {number_in_words(high)}"
    else:
        words = f"{number_in_words(low)} to {number_in_words(high)}"
    return f"{words} {unit}".rstrip()


# --- what is measured -------------------------------------------------------------------------------------------------


def measure_size(volume: np.ndarray) -> dict[str, float]:
    """The values of SIZE_MEASURES for a volume [X, Y, Z] of 1 mm."""
    return {f"size_{axis}": size for axis, size in zip("xyz", volume.shape, strict=True)}


def measure_image(volume: np.ndarray, template: np.ndarray) -> dict[str, float]:
    """The values of IMAGE_MEASURES for a raw volume [X, Y, Z] (RAS, 1 mm) of at least 2 voxels along each axis."""
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
    """The values of OUTPUT_MEASURES for probabilities [3, X, Y, Z]; NaN what cannot be measured as a part is absent."""
    labels = probabilities.argmax(axis=0)
    structure, anterior, posterior = labels > 0, labels == 1, labels == 2
    volumes = {name: np.count_nonzero(part) for name, part in (("anterior", anterior), ("posterior", posterior))}
    volumes["total"] = sum(volumes.values())
    if not all(volumes.values()):
        return {measure.name: volumes.get(measure.name, np.nan) for measure in OUTPUT_MEASURES}

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
