"""Everything that was found about one study, typed and whole. It is built up by making new values, never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.refusal import Refusal
from common.structures import PARTS, WHOLE, Structure, structures_of
from common.verdicts import Check, SeriesVerdict
from common.volume import Grid, Volume

AROUND = 12  # mm that are shown around what a person outlined


@dataclass(frozen=True, eq=False)
class Hippocampus:
    """One hippocampus: where it is, how large, and whether that may be shown.

    side: "left" or "right", None where the data does not say. labels: [X, Y, Z] uint8 on `grid`, see common.structures.
    volumes_mm3: by the key of the structure; intervals_mm3: low and high of each, None where the model has no
    calibration. checks: what was asked of it. refusal: why it has neither labels nor volumes. cause: the check that the
    refusal rests on, if it rests on one. box: where its grid is in that of the source, None where it is all of it.
    chance: how probable a hippocampus is in each voxel, as `labels` lies, by the network alone: no measure of how good
    the labels are.
    """

    grid: Grid
    checks: tuple[Check, ...] = ()
    labels: np.ndarray | None = None
    volumes_mm3: Mapping[str, float] | None = None
    intervals_mm3: Mapping[str, Sequence[float]] | None = None
    refusal: Refusal | None = None
    cause: Check | None = None
    side: str | None = None
    box: tuple[slice, ...] | None = None
    chance: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.shape != self.grid.shape:
            raise ValueError(f"labels of shape {self.labels.shape} on a grid of shape {self.grid.shape}")

    @property
    def volumes(self) -> dict[Structure, float]:
        """In mm3, by the structure; none where it has none."""
        return {one: self.volumes_mm3[one.key] for one in structures_of(self.side)} if self.volumes_mm3 else {}


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was found about a study, as far as it went.

    header: patient and study attributes as text, by DICOM keyword. series: the verdict on each series of the study.
    source: the volume that was measured, or that was refused. hippocampi: one of a crop, two of a head. checks: of the
    series as a whole. refusal: why there is no number. corrected_by: the person who drew or corrected the labels, "" of
    those of a model alone. predecessor: a file with measurements of ours that these supersede, if it lies elsewhere.
    """

    header: Mapping[str, str]
    series: tuple[SeriesVerdict, ...] = ()
    source: Volume | None = None
    hippocampi: tuple[Hippocampus, ...] = ()
    checks: tuple[Check, ...] = ()
    refusal: Refusal | None = None
    corrected_by: str = ""
    predecessor: Path | None = None

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

    @property
    def is_head(self) -> bool:
        """Whether it is of a whole head, whose hippocampi have sides."""
        return any(one.side for one in self.hippocampi)

    @property
    def volumes(self) -> dict[Structure, float]:
        """In mm3, by the structure, of all hippocampi that have a number."""
        return {structure: value for one in self.hippocampi for structure, value in one.volumes.items()}

    @property
    def labels(self) -> np.ndarray:
        """[X, Y, Z] uint8 on the grid of the source; see common.structures."""
        return labels_in(self.source.grid, self.hippocampi)

    @property
    def chances(self) -> np.ndarray:
        """[X, Y, Z] float32 on the grid of the source: how probable a hippocampus is."""
        return chances_in(self.source.grid, self.hippocampi)


def chances_in(grid: Grid, hippocampi: Sequence[Hippocampus]) -> np.ndarray:
    """How probable a hippocampus is, [X, Y, Z] float32 on the grid of the image that they were found in."""
    chances = np.zeros(grid.shape, np.float32)
    for one in hippocampi:
        if one.chance is not None:
            found = chances[one.box] if one.box else chances
            np.maximum(found, one.chance, out=found)
    return chances


def by_hand(grid: Grid, labels: np.ndarray, sides: Sequence[str | None]) -> tuple[Hippocampus, ...]:
    """What a person outlined, labels [X, Y, Z] uint8 on the grid of the image: of a crop whose side is None, or of both
    sides of a head, of which one may be missing.
    """
    return tuple(_outlined(grid, labels, side) for side in sides)


def _outlined(grid: Grid, labels: np.ndarray, side: str | None) -> Hippocampus:
    parts = structures_of(side)[: len(PARTS)]
    own = sum((number * (labels == part.labels[0]) for number, part in enumerate(parts, 1)), np.zeros(grid.shape, int))
    if not own.any():
        nothing = Refusal("nothing-found", "nobody outlined it")
        return Hippocampus(grid, refusal=nothing, side=side)
    counts = {part.key: int((own == number).sum()) * grid.voxel_mm3 for number, part in enumerate(PARTS, 1)}
    volumes = {**counts, WHOLE.key: sum(counts.values())}
    if side is None:
        return Hippocampus(grid, labels=own.astype(np.uint8), volumes_mm3=volumes)
    around = np.ceil(AROUND / np.array(grid.spacing)).astype(int)
    found = np.argwhere(own)
    low = np.maximum(found.min(0) - around, 0)
    high = np.minimum(found.max(0) + 1 + around, grid.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    own_grid = Grid(tuple(int(size) for size in high - low), affine)
    return Hippocampus(own_grid, labels=own[box].astype(np.uint8), volumes_mm3=volumes, side=side, box=box)


def labels_in(grid: Grid, hippocampi: Sequence[Hippocampus]) -> np.ndarray:
    """The labels [X, Y, Z] uint8 of all hippocampi on the grid of the image that they were found in."""
    labels = np.zeros(grid.shape, np.uint8)
    for one in hippocampi:
        if one.labels is not None:
            found = labels[one.box] if one.box else labels
            found[one.labels > 0] = one.labels[one.labels > 0] + structures_of(one.side)[0].labels[0] - 1
    return labels
