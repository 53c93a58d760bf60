"""How far a volume may be off: an interval calibrated on held-out volumes.

Split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005) on the relative error: of
the true volumes of persons like those of the calibration, the share LEVEL lies within volume x (1 +- half width).
"""

import math
from itertools import chain

from volume_stats import STRUCTURES

LEVEL = 0.9


def relative_errors(scores: list[dict], structure: str) -> list[float]:
    """|true - found| / found of one structure; infinite where nothing was found."""
    volumes = [(score[structure]["true_volume_mm3"], score[structure]["volume_mm3"]) for score in scores]
    return [abs(true - found) / found if found else math.inf for true, found in volumes]


def half_width(folds: list[list[float]]) -> float:
    """The error that the share LEVEL of new volumes stays below; infinite where there are too few to say."""
    errors = list(chain.from_iterable(folds))
    rank = math.ceil((len(errors) + 1) * LEVEL)
    return sorted(errors)[rank - 1] if rank <= len(errors) else math.inf


def calibrate(folds: list[list[dict]]) -> dict:
    """{"level", "half_width": {structure: share}, "coverage": {structure: share}} from the scores of each fold.

    The coverage is measured: each fold's volumes in intervals from the other folds; absent with a single fold.
    A structure without a finite width is left out.
    """
    widths, coverage = {}, {}
    for structure in STRUCTURES:
        errors = [relative_errors(scores, structure) for scores in folds]
        width = half_width(errors)
        if math.isfinite(width):
            widths[structure] = width
        if len(folds) > 1:
            of_others = [half_width(errors[:n] + errors[n + 1 :]) for n in range(len(folds))]
            inside = [error <= other for fold, other in zip(errors, of_others, strict=True) for error in fold]
            coverage[structure] = sum(inside) / len(inside)
    return {"level": LEVEL, "half_width": widths, **({"coverage": coverage} if coverage else {})}
