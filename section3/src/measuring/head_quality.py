"""May the number of a hippocampus of a whole head be shown? First for the head, then for each side.

The limits were fitted on heads at hand: section2/out/heads.md has their values, head by head, and what they refuse.
"""

from __future__ import annotations

import numpy as np

from checks.quality import assess_handedness, check_of
from checks.quality_catalogue import OUTPUT_MEASURES, Measure
from checks.quality_limits import Range
from checks.quality_measures import measure_output
from common.verdicts import Check
from common.volume import Grid
from measuring.hippocrop import Place

FITTED = "heads of several scanners: section2/out/heads.md"
NO_HEAD = "this is no head of an adult, or a part of one"

HEAD_CHECKS = (
    (
        Measure("voxel_size", "The widest side of the voxels", "mm", too_high="volumes come out too small"),
        Range((None, 1.2), (None, 1.5), "heads made coarser: section2/out/heads.md"),
    ),
    (
        Measure("brain", "The volume of the brain that is seen", "ml", too_low=NO_HEAD, too_high=NO_HEAD),
        Range((850, 1800), (650, 2000), FITTED),
    ),
    (
        Measure("residual", "The distance of the brain's points from a template's", "mm", too_high=NO_HEAD),
        Range((None, 1.9), (None, 2.4), FITTED),
    ),
    (
        Measure(
            "size", "The size of the template for this head, along the axis that differs most", "", NO_HEAD, NO_HEAD
        ),
        Range((0.85, 1.2), (0.78, 1.28), FITTED),
    ),
    (
        Measure("apart", "The distance of a hippocampus from its usual place", "mm", too_high=NO_HEAD),
        Range((None, 3.5), (None, 7), FITTED),
    ),
    (
        Measure(
            "turned", "The angle by which the head is turned", "degrees", too_high="the head does not lie straight"
        ),
        Range((None, 35), (None, 50), "by what the localiser was trained on"),
    ),
)
IMAGE_BORDER = Measure(
    "image_border",
    "The distance of the hippocampus from where the image ends",
    "mm",
    too_low="a part of it may lie outside of the image",
)
SIDE_RANGES = {
    "total": Range((1200, 6000), (900, 7000), "by what hippocampi of adults measure"),
    "margin": Range((2, None), (1, None), "by its meaning"),
    "one_piece": Range((0.95, None), (0.85, None), FITTED),
    "confidence": Range((0.935, None), (0.922, None), FITTED),
    "doubt": Range((None, 0.14), (None, 0.17), FITTED),
}


def head_values(place: Place, spacing: tuple[float, float, float]) -> dict[str, float]:
    """What HEAD_CHECKS are about, by name."""
    scales = place.scales
    return {
        "voxel_size": round(max(spacing), 3),
        "brain": place.brain_ml,
        "residual": place.residual,
        "size": float(scales[np.abs(np.log(scales)).argmax()]),
        "apart": place.apart,
        "turned": place.tilt,
    }


def assess_head(place: Place, spacing: tuple[float, float, float]) -> list[Check]:
    """Is it the head of an adult, whole, finely enough scanned, and nearly upright?"""
    values = head_values(place, spacing)
    return [check_of(measure, values[measure.name], usual) for measure, usual in HEAD_CHECKS]


def assess_border(labels: np.ndarray, box: tuple[slice, ...], head: Grid) -> Check:
    """Does what was found, labels [X, Y, Z] in the box of the head, end before the image does?"""
    found = np.argwhere(labels)
    start = [one.start for one in box]
    low, high = (found.min(0) + start, found.max(0) + start) if len(found) else (np.zeros(3), np.zeros(3))
    room = np.minimum(low, np.array(head.shape) - 1 - high) * head.spacing
    return check_of(IMAGE_BORDER, float(room.min()), Range((4, None), (2, None), "by its meaning"))


def assess_side(probabilities: np.ndarray, mirrored: np.ndarray) -> list[Check]:
    """Can the answer [3, X, Y, Z] be a hippocampus, of this side? mirrored: the answer to the crop's mirror image."""
    values, other = measure_output(probabilities), measure_output(mirrored)
    checks = [
        check_of(measure, float(values[measure.name]), SIDE_RANGES[measure.name])
        for measure in OUTPUT_MEASURES
        if measure.name in SIDE_RANGES
    ]
    return [*checks, assess_handedness(values, other)]
