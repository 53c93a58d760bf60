"""Compares runs volume by volume: which is better, and by more than the noise?

    python compare_runs.py REFERENCE RUN [RUN ...] [--names NAME ...] [--figure FILE.png]

A run is a folder with the results.csv of run_ml_pipeline.py or combine_runs.py. Every run is compared with the first,
on the volumes that all of them were tested on; the table is Markdown.
"""

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import figures
from hippocampus_data import person_of
from volume_stats import STRUCTURES

MEASURES = {  # the better way, decimals, what it is
    "dice": (1, 4, "Dice"),
    "hd95_mm": (-1, 3, "95 % Hausdorff, mm"),
    "absolute_volume_error_percent": (-1, 2, "absolute volume error, %"),
}
LEVEL = 0.95
RESAMPLES = 10_000
NOISE = (
    "The intervals say how much other persons of the same kind would change the difference, not how much another seed\n"
    "of the same recipe would; and one in twenty misses by chance."
)

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


def table(differences: list[Difference], reference: str) -> str:
    """A Markdown table, a row for each difference."""
    rows = [("run", "structure", "measure", reference, "run", "difference", "95 % interval", "n", "better / worse", "")]
    for d in differences:
        _, digits, title = MEASURES[d.measure]
        values = (f"{d.before:.{digits}f}", f"{d.after:.{digits}f}", f"{d.mean:+.{digits}f}")
        ends = f"{d.low:+.{digits}f} to {d.high:+.{digits}f}"
        shares = f"{d.better:.0%} / {d.worse:.0%}"
        rows.append((d.run, d.structure, title, *values, ends, str(d.volumes), shares, d.verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)) + " |" for row in rows)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the reference, then those compared with it")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs (their folders)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw the differences, PNG or SVG")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = arguments()
    args = parser.parse_args(argv)
    names = args.names or [str(run) for run in args.runs]
    if len(args.runs) < 2 or len(names) != len(args.runs) or len(set(names)) < len(names):
        parser.error(f"two runs or more, each with a name of its own; found {len(args.runs)} runs, names {names}")
    try:
        runs = {name: read_scores(run) for name, run in zip(names, args.runs, strict=True)}
        volumes = common_volumes(runs)
        reference, *others = names
        found = [d for name in others for d in compare(name, runs[name], runs[reference], volumes)]
        tested = f"{len(volumes)} volumes of {len({person_of(name) for name in volumes})} persons, tested in all runs"
        print(f"{tested}\n\n{table(found, reference)}\n\n{NOISE}")
        if args.figure:
            titles = {measure: (sign, title) for measure, (sign, _, title) in MEASURES.items()}
            figures.forest(found, titles, f"difference from {reference}; {tested}", args.figure)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
