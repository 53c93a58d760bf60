"""How the checks judge crops that should get a number, and what must never get one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from tqdm import tqdm

from checks.quality import assess_input, assess_output
from checks.quality_limits import Limits
from common.verdicts import FAIL, PASS, WARN, Check, worst
from crops import Crop, Segment, SegmentOf
from nonsense import NONSENSE, random_crops, squeezed

BRAIN_CROPS = 10  # from each brain series


@dataclass
class Tally:
    """How the checks judged the cases of one kind."""

    kind: str
    verdicts: Counter = field(default_factory=Counter)
    before_model: int = 0  # failed by the input checks already
    failed: Counter = field(default_factory=Counter)  # cases by check

    def add(self, checks: list[Check], before_model: bool) -> None:
        self.verdicts[worst(checks)] += 1
        self.before_model += before_model
        self.failed.update(check.name for check in checks if check.verdict == FAIL)

    @property
    def count(self) -> int:
        return sum(self.verdicts.values())

    def share(self, wanted: str) -> float:
        """Of the cases, how many got this verdict."""
        return self.verdicts[wanted] / self.count


def judge(volume: np.ndarray, segment: Segment, limits: Limits) -> tuple[list[Check], bool]:
    """The checks of one volume as the program makes them, and whether those before the model were enough to fail it."""
    checks = assess_input(volume, limits)
    if worst(checks) == FAIL:
        return checks, True
    return checks + assess_output(segment(volume), limits.model_sha256, limits), False


def tally_crops(
    crops: Sequence[Crop], segment_of: SegmentOf, limits_of: Callable[[Crop], Limits], kind: str = "as they are"
) -> Tally:
    """Judge crops that should get a number."""
    tally = Tally(kind)
    for crop in tqdm(crops, desc="judging", unit="crop", disable=None):
        tally.add(*judge(crop.volume, segment_of(crop), limits_of(crop)))
    return tally


def tally_nonsense(crops: Sequence[Crop], segment_of: SegmentOf, limits_of: Callable[[Crop], Limits]) -> list[Tally]:
    """Judge every kind of nonsense that can be made of crops."""
    tallies = []
    for kind, change in tqdm(NONSENSE.items(), desc="nonsense", unit="kind", disable=None):
        rng = np.random.default_rng(0)
        tally = Tally(kind)
        for crop in crops:
            volume = np.ascontiguousarray(change(crop.volume, rng), dtype=np.float32)
            tally.add(*judge(volume, segment_of(crop), limits_of(crop)))
        tallies.append(tally)
    return tallies


def tally_brains(brains: dict[str, list[np.ndarray]], segment: Segment, limits: Limits) -> list[Tally]:
    """Judge other anatomy, by the description of its series, and whole brains."""
    tallies = []
    for kind, volumes in _brain_cases(brains, limits.template.shape):
        tally = Tally(kind)
        for volume in volumes:
            tally.add(*judge(volume, segment, limits))
        tallies.append(tally)
    return tallies


def _brain_cases(
    brains: dict[str, list[np.ndarray]], shape: tuple[int, ...]
) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
    rng = np.random.default_rng(0)
    for description, volumes in brains.items():
        crops = (crop for brain in volumes for crop in islice(random_crops(brain, shape, rng), BRAIN_CROPS))
        yield f"{description}, anywhere", crops
    everything = [brain for volumes in brains.values() for brain in volumes]
    yield "whole brain series", iter(everything)
    yield "whole brain series, squeezed", (squeezed(brain, shape) for brain in everything)


def as_table(tallies: Sequence[Tally]) -> str:
    """A line for each kind: how many were refused, doubted and passed, and the checks that refused most of them."""
    lines = [f"{'kind':<30}{'n':>5}{'fail':>7}{'warn':>7}{'pass':>7}{'before':>9}   failed most often by"]
    for tally in tallies:
        shares = "".join(f"{tally.share(wanted):>7.1%}" for wanted in (FAIL, WARN, PASS))
        by = ", ".join(f"{name} {count}" for name, count in tally.failed.most_common(3))
        lines.append(f"{tally.kind:<30}{tally.count:>5}{shares}{tally.before_model / tally.count:>9.1%}   {by}")
    return "\n".join([*lines, "before: refused by the input checks, so that the model did not run"])
