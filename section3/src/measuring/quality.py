"""May this number be shown? What is measured on a crop and on the model's answer, against what is usual.

Before the model runs, `assess_input` asks whether the volume can be a T1 crop around a hippocampus at all: its size,
its grey values, and its likeness to the mean of the training crops, also when that is mirrored or rescaled. Afterwards
`assess_output` asks whether the model's answer can be a hippocampus, and how sure of it the model was.

The limits and the mean crop are data and belong to a model: `quality_limits.json` and `quality_template.npz` beside it,
both written by calibration/fit_quality_limits.py, which also counts how often they refuse good crops and let nonsense
pass.

The width of the calibrated interval is no check: it is the same share of the volume for every crop, one for each
structure in the model's card, so a limit on it would pass all crops or none. What tells one crop's answer from
another's is how sure the model is of its voxels: `confidence` and `doubt`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.refusal import Failure
from common.verdicts import FAIL, PASS, WARN, Check, worst
from measuring.quality_measures import (
    WRONG_SCALE,
    count_blank_sides,
    measure_image,
    measure_output,
    measure_size,
    measure_slices,
)

LIMITS_FILE, TEMPLATE_FILE = "quality_limits.json", "quality_template.npz"

COARSE = 1.5  # mm: from voxels of 2 mm volumes come out 3 % too small (benchmarks/geometry.py)
TEMPLATE_SCALE = 40  # the mean crop is stored in steps of 1/40 of a standard deviation, up to 3 of these in a byte


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


def _volume(name: str, what: str) -> Measure:
    return Measure(
        name,
        f"The volume of the {what}",
        "mm3",
        too_low=f"the {what} is smaller than in any crop that the model knows",
        too_high=f"the {what} is larger than in any crop that the model knows",
    )


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
        too_low="the image is noise, broken, or of another contrast",
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
# Of an image whose dark and bright are reversed more can be said than that it is not like the mean crop.
REVERSED = replace(
    next(measure for measure in IMAGE_MEASURES if measure.name == "likeness"),
    too_low="dark and bright look reversed, so that this is no T1-weighted image",
)
OUTPUT_MEASURES = (
    _volume("anterior", "anterior part"),
    _volume("posterior", "posterior part"),
    _volume("total", "whole structure"),
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

# In this order: what fails first is the cause of what fails after it.
CAUSES = (
    *("slices_alike", "size_x", "size_y", "size_z", "grey_levels"),
    *("smoothness", "likeness", "orientation", "scale", "brightness", "asymmetry"),
    *("margin", "one_piece", "total", "anterior", "posterior", "ratio", "forward", "tilt"),
    *("surface", "confidence", "doubt"),
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
    model_sha256: the model whose answers the limits were fitted on. fitted_on: in words. sha256: of the files that hold
    them, as they were read; None of limits that were not.
    """

    ranges: Mapping[str, Range]
    template: np.ndarray
    model_sha256: str
    fitted_on: str
    sha256: str | None = None

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
    def load(cls, folder: Path) -> Limits | None:
        """Those in `folder`, None where it has none. Raises Failure: bad-model."""
        try:
            text, packed = ((folder / name).read_bytes() for name in (LIMITS_FILE, TEMPLATE_FILE))
        except OSError as error:
            names = (LIMITS_FILE, TEMPLATE_FILE)
            if isinstance(error, FileNotFoundError) and not any((folder / name).exists() for name in names):
                return None
            raise Failure("bad-model", f"the limits {error.filename} cannot be read: {error.strerror}") from error
        try:
            content = json.loads(text)
            with np.load(io.BytesIO(packed)) as file:
                template = file["template"].astype(np.float32) / TEMPLATE_SCALE
            ranges = {
                measure.name: _range(content["ranges"][measure.name]) for measure in (*INPUT_MEASURES, *OUTPUT_MEASURES)
            }
            sha256 = hashlib.sha256(text + packed).hexdigest()
            return cls(ranges, template, content["model_sha256"], content["fitted_on"], sha256)
        except Exception as error:  # numpy's reader raises nearly anything for a damaged file
            raise Failure("bad-model", f"{folder / LIMITS_FILE} and {TEMPLATE_FILE} are no limits") from error


def _range(content: Mapping) -> Range:
    return Range(tuple(content["warn"]), tuple(content["fail"]), content["source"])


# --- the two doors ----------------------------------------------------------------------------------------------------


def assess_spacing(spacing: Iterable[float]) -> Check:
    """Are the voxels of the series, in mm, as fine as they need to be?"""
    measure = Measure(
        "voxel_size", "The widest side of the series' voxels", "mm", too_high="volumes may come out too small"
    )
    usual = Range(warn=(None, COARSE), fail=(None, None), source="measured on resampled crops: benchmarks/geometry.py")
    return _check(measure, round(max(spacing), 3), usual)


def assess_slices(voxels: np.ndarray) -> list[Check]:
    """Is every slice of the volume [X, Y, Z] an image of what lies between its neighbours, and none of them blank?"""
    alike = Measure(
        "slices_alike",
        "The likeness of a slice to the mean of its neighbours less that of these to each other, of the worst slice",
        too_low="a slice is blank, noise, or from somewhere else",
    )
    blank = Measure("blank_edges", "The number of sides without an image", too_high="an edge of the crop is masked")
    by_meaning = "by its meaning; in 209 crops of training it is .05 or more"
    return [
        _check(alike, float(measure_slices(voxels)), Range(warn=(0, None), fail=(0, None), source=by_meaning)),
        _check(
            blank, float(count_blank_sides(voxels)), Range(warn=(None, 0), fail=(None, None), source="by its meaning")
        ),
    ]


def assess_input(volume: np.ndarray, limits: Limits, scanned: np.ndarray | None = None) -> list[Check]:
    """Can the raw volume [X, Y, Z] (RAS, 1 mm) be a crop like those of training? To be asked before the model runs.

    scanned: its voxels [X, Y, Z] before they were resampled, where they were: there a slice is a slice. A volume of the
    wrong size is not looked at any closer: it may be huge.
    """
    sizes = _checks(SIZE_MEASURES, measure_size(volume), limits)
    if worst(sizes) == FAIL:
        return sizes
    slices = assess_slices(volume if scanned is None else scanned)
    values = measure_image(volume, limits.template)
    reversed_grey = values["likeness"] < -_least_likeness(limits)
    measures = [REVERSED if reversed_grey and one.name == "likeness" else one for one in IMAGE_MEASURES]
    return sizes + slices + _checks(measures, values, limits)


def assess_output(probabilities: np.ndarray, model_sha256: str, limits: Limits) -> list[Check]:
    """Can the model's answer, probabilities [3, X, Y, Z] (RAS, 1 mm), be a hippocampus?"""
    checks = _checks(OUTPUT_MEASURES, measure_output(probabilities), limits)
    if model_sha256 != limits.model_sha256:
        checks.append(_other_model(limits))
    return checks


def cause(checks: Iterable[Check], limits: Limits) -> Check:
    """Of checks some of which failed the one that explains the others, which it drags along.

    A mirrored or rescaled crop is not like the mean crop either: it is told from one that shows something else by how
    much it is like the mean crop mirrored or rescaled.
    """
    checks = {check.name: check for check in checks}
    failed = [name for name in CAUSES if name in checks and checks[name].verdict == FAIL]
    if "likeness" in failed and failed[0] in ("smoothness", "likeness"):
        likeness, least = checks["likeness"].value, _least_likeness(limits)
        if likeness < -least:
            return checks["likeness"]
        for name in ("orientation", "scale"):
            if name in failed and likeness - checks[name].value >= least:
                return checks[name]
    return checks[failed[0]]


def _least_likeness(limits: Limits) -> float:
    """Below it a crop is not like the mean crop."""
    return limits.ranges["likeness"].fail[0] or 0.0


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
    found = f"{measure.subject} is {number_in_words(value)} {measure.unit}".rstrip()
    if result == PASS:
        return Check(measure.name, value, _in_words(usual.fail, measure.unit), usual.source, PASS, f"{found}.")
    limit = usual.fail if result == FAIL else usual.warn
    conclusion = measure.too_low if limit[0] is not None and value < limit[0] else measure.too_high
    word = "expected" if result == FAIL else "usual is"
    sentence = f"{conclusion[0].upper()}{conclusion[1:]}: {found[0].lower()}{found[1:]}, {word} "
    sentence += f"{_in_words(limit, measure.unit)}."
    return Check(measure.name, value, _in_words(usual.fail, measure.unit), usual.source, result, sentence)


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
