"""Everything that was found about one study, typed and whole. It is built up by making new values, never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.refusal import Refusal
from common.verdicts import Check, SeriesVerdict
from common.volume import Grid, Volume


@dataclass(frozen=True, eq=False)
class Hippocampus:
    """One hippocampus: where it is, how large, and whether that may be shown.

    side: "left" or "right", None where the data does not say. labels: [X, Y, Z] uint8 on `grid`, see common.structures.
    volumes_mm3: by the key of the structure; intervals_mm3: low and high of each, None where the model has no
    calibration. checks: what was asked of it. refusal: why it has neither labels nor volumes. cause: the check that the
    refusal rests on, if it rests on one.
    """

    grid: Grid
    checks: tuple[Check, ...] = ()
    labels: np.ndarray | None = None
    volumes_mm3: Mapping[str, float] | None = None
    intervals_mm3: Mapping[str, Sequence[float]] | None = None
    refusal: Refusal | None = None
    cause: Check | None = None
    side: str | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.shape != self.grid.shape:
            raise ValueError(f"labels of shape {self.labels.shape} on a grid of shape {self.grid.shape}")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was found about a study, as far as it went.

    header: patient and study attributes as text, by DICOM keyword. series: the verdict on each series of the study.
    source: the volume that was measured, or that was refused. hippocampi: one of a crop, two of a head. checks: of the
    series as a whole. refusal: why there is no number.
    """

    header: Mapping[str, str]
    series: tuple[SeriesVerdict, ...] = ()
    source: Volume | None = None
    hippocampi: tuple[Hippocampus, ...] = ()
    checks: tuple[Check, ...] = ()
    refusal: Refusal | None = None

    @property
    def accepted(self) -> SeriesVerdict | None:
        """The verdict on the series that is the input, None where there is none, or more than one."""
        accepted = [one for one in self.series if one.accepted]
        return accepted[0] if len(accepted) == 1 else None

    @property
    def series_to_show(self) -> tuple[SeriesVerdict, ...]:
        """`series` but for our own results, as no page may depend on whether its study has them already."""
        return tuple(one for one in self.series if not one.ours)

    @property
    def cause(self) -> Check | None:
        """The check that the refusal rests on, if it rests on one."""
        return next((one.cause for one in self.hippocampi if one.cause), None)

    @property
    def all_checks(self) -> tuple[Check, ...]:
        """Those of the series, then those of each hippocampus."""
        return self.checks + tuple(check for one in self.hippocampi for check in one.checks)
