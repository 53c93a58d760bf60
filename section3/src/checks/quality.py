"""May this number be shown? What is measured on a crop and on the model's answer, against what is usual.

Before the model runs, `assess_input` asks whether the volume can be a T1 crop around a hippocampus at all: its size,
its slices, its grey values, and its likeness to the mean of the training crops, also when that is mirrored or rescaled.
Afterwards `assess_output` asks whether the model's answer can be a hippocampus, and how sure of it the model was. What
is usual comes with the model (quality_limits.py); three limits hold by their meaning and stand here.

The width of the calibrated interval is no check: it is the same share of the volume for every crop, one for each
structure in the model's card, so a limit on it would pass all crops or none. What tells one crop's answer from
another's is how sure the model is of its voxels: `confidence` and `doubt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from checks.quality_catalogue import CAUSES, IMAGE_MEASURES, OUTPUT_MEASURES, REVERSED, SIZE_MEASURES, Measure
from checks.quality_limits import LIMITS_FILE, Limits, Range
from checks.quality_measures import count_blank_sides, measure_image, measure_output, measure_size, measure_slices
from common.verdicts import FAIL, PASS, WARN, Check, worst

HANDED = Measure(
    "handedness",
    "The confidence of the model less the one in the mirror image",
    too_low="it looks like a hippocampus of the other side",
)
COARSE = 1.5  # mm: from voxels of 2 mm volumes come out 7 % too small (benchmarks/geometry.py)


def assess_spacing(spacing: Iterable[float]) -> Check:
    """Are the voxels of the series, in mm, as fine as they need to be?"""
    measure = Measure(
        "voxel_size", "The widest side of the series' voxels", "mm", too_high="volumes may come out too small"
    )
    usual = Range(warn=(None, COARSE), fail=(None, None), source="measured on resampled crops: benchmarks/geometry.py")
    return check_of(measure, round(max(spacing), 3), usual)


def assess_slices(voxels: np.ndarray) -> list[Check]:
    """Is every slice of the volume [X, Y, Z] an image of what lies between its neighbours, and none of them blank?"""
    alike = Measure(
        "slices_alike",
        "The likeness of a slice to the mean of its neighbours less that of these to each other, of the worst slice",
        too_low="a slice is blank, noise, or from somewhere else",
    )
    blank = Measure("blank_edges", "The number of sides without an image", too_high="an edge of the crop is masked")
    by_meaning = "by its meaning; in the crops of training it is .05 or more"
    return [
        check_of(alike, float(measure_slices(voxels)), Range(warn=(0, None), fail=(0, None), source=by_meaning)),
        check_of(
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


def assess_handedness(values: Mapping[str, float], mirrored: Mapping[str, float]) -> Check:
    """Is it a hippocampus of the side that the model knows? By what measure_output says of it and of its mirror image.

    The model is surer of a left one than of its mirror image: in 42 of 42 crops of training by .036 or more.
    """
    difference = float(np.nan_to_num(values["confidence"]) - np.nan_to_num(mirrored["confidence"]))
    return check_of(HANDED, difference, Range((0, None), (0, None), "by its meaning"))


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
    return [check_of(measure, float(values[measure.name]), limits.ranges[measure.name]) for measure in measures]


def check_of(measure: Measure, value: float, usual: Range) -> Check:
    """Of one value, with its sentence."""
    result = usual.verdict(value)
    if not np.isfinite(value):
        sentence = f"{measure.subject} cannot be measured."
        return Check(measure.name, None, limits_in_words(usual.fail, measure.unit), usual.source, result, sentence)
    found = f"{measure.subject} is {number_in_words(value)} {measure.unit}".rstrip()
    if result == PASS:
        return Check(measure.name, value, limits_in_words(usual.fail, measure.unit), usual.source, PASS, f"{found}.")
    limit = usual.fail if result == FAIL else usual.warn
    conclusion = measure.too_low if limit[0] is not None and value < limit[0] else measure.too_high
    word = "expected" if result == FAIL else "usual is"
    sentence = f"{conclusion[0].upper()}{conclusion[1:]}: {found[0].lower()}{found[1:]}, {word} "
    sentence += f"{limits_in_words(limit, measure.unit)}."
    return Check(measure.name, value, limits_in_words(usual.fail, measure.unit), usual.source, result, sentence)


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


def limits_in_words(limit: tuple[float | None, float | None], unit: str = "") -> str:
    """(low, high) as people read it, None being no limit."""
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
