"""Differences between runs, paired by volume, with intervals over persons."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import save
from hippocampus_data import person_of
from volume_stats import STRUCTURES

MEASURES = {  # the better way, decimals, what it is
    "dice": (1, 4, "Dice"),
    "hd95_mm": (-1, 3, "95 % Hausdorff, mm"),
    "absolute_volume_error_percent": (-1, 2, "absolute volume error, %"),
}
LEVEL = 0.95
RESAMPLES = 10_000
VERDICT_COLOURS = {"better": "#0072B2", "worse": "#D55E00", "inside the noise": "0.6"}

Scores = dict[str, dict[str, float]]  # {volume: {column of results.csv: value}}


@dataclass(frozen=True)
class Difference:
    """What a run changes in one measure of one structure, against the reference; shares are of the volumes."""

    run: str
    structure: str
    measure: str
    volumes: int
    before: float
    after: float
    low: float
    high: float
    better: float
    worse: float

    @property
    def mean(self) -> float:
        return self.after - self.before

    @property
    def verdict(self) -> str:
        if self.low <= 0 <= self.high:
            return "inside the noise"
        return "better" if self.mean * MEASURES[self.measure][0] > 0 else "worse"


def read_scores(run: Path) -> Scores:
    """The rows of a run's results.csv. Raises ValueError where there is none or a column is missing."""
    path = run / "results.csv"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; expected the folder of a run that was tested")
    columns = [f"{s}_{m}" for s in STRUCTURES for m in (*MEASURES, "true_volume_mm3")]
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        missing = {"name", *columns} - set(table.fieldnames or [])
        if missing:
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}; expected a run's results.csv")
        return {row["name"]: {column: float(row[column]) for column in columns} for row in table}


def common_volumes(runs: dict[str, Scores]) -> list[str]:
    """The volumes that all runs were tested on, and against the same labels. Raises ValueError otherwise."""
    first, *others = runs.values()
    common = [name for name in first if all(name in scores for scores in others)]
    if not common:
        raise ValueError(f"no volume was tested in all of {', '.join(runs)}; give runs on the same data")
    for name in common:
        for column in (f"{s}_true_volume_mm3" for s in STRUCTURES):
            if any(scores[name][column] != first[name][column] for scores in others):
                raise ValueError(f"the label of {name} is not the same in all of {', '.join(runs)}; compare none")
    if len({person_of(name) for name in common}) < 2:
        raise ValueError(f"only {', '.join(common)} tested in all runs; an interval needs two persons or more")
    return common


def interval(values: np.ndarray, persons: list[str]) -> tuple[float, float]:
    """LEVEL interval of the mean of `values` [N], by drawing persons, not volumes, with replacement; seeded.

    Percentile cluster bootstrap: the two hippocampi of a person are not independent and are drawn together.
    Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; Field and Welsh,
    "Bootstrapping clustered data", J. R. Stat. Soc. B 69:369-390, 2007.
    """
    _, person = np.unique(persons, return_inverse=True)
    sums, counts = np.bincount(person, values), np.bincount(person)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare(run: str, scores: Scores, reference: Scores, volumes: list[str]) -> list[Difference]:
    """All differences of one run.

    Where a measure is undefined for a volume (nothing was found), that volume is left out; with less than two persons
    left, the measure is.
    """
    found = []
    for structure in STRUCTURES:
        for measure, (sign, _, _) in MEASURES.items():
            pairs = np.array([[s[name][f"{structure}_{measure}"] for s in (reference, scores)] for name in volumes])
            defined = np.isfinite(pairs).all(axis=1)
            persons = [person_of(name) for name, known in zip(volumes, defined, strict=True) if known]
            if len(set(persons)) < 2:
                continue
            before, after = pairs[defined].T
            gains = sign * (after - before)
            ends = interval(after - before, persons)
            shares = float((gains > 0).mean()), float((gains < 0).mean())
            found.append(Difference(run, structure, measure, len(gains), before.mean(), after.mean(), *ends, *shares))
    return found


def forest(differences: list[Difference], title: str, path: Path) -> None:
    """A figure of differences with their intervals, a panel for each measure."""
    structures, runs = (list(dict.fromkeys(getattr(d, key) for d in differences)) for key in ("structure", "run"))
    heights = {
        (structure, run): -(n * (len(runs) + 0.6) + k)
        for n, structure in enumerate(structures)
        for k, run in enumerate(runs)
    }
    figure = Figure(figsize=(13, 1.8 + 0.35 * len(heights)))
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for panel, (measure, (sign, _, name)) in zip(panels, MEASURES.items(), strict=True):
        panel.axvline(0, color="0.4", linewidth=1, zorder=0)
        for d in (d for d in differences if d.measure == measure):
            y, colour = heights[d.structure, d.run], VERDICT_COLOURS[d.verdict]
            panel.plot([d.low, d.high], [y, y], color=colour, linewidth=2)
            panel.plot(d.mean, y, "o", color=colour, markersize=7)
        panel.set_title(f"{name}\n{'← worse    better →' if sign > 0 else '← better    worse →'}", fontsize=10)
        panel.margins(x=0.15)
    labels = [f"{structure}: {run}" for structure, run in heights]
    panels[0].set_yticks(list(heights.values()), labels)
    panels[0].set_ylim(min(heights.values()) - 0.7, 0.7)
    handles = [Line2D([], [], color=c, marker="o", linewidth=2, label=v) for v, c in VERDICT_COLOURS.items()]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    save(figure, path)
