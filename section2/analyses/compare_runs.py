"""Compares runs volume by volume: which is better, and by more than the noise?

    python compare_runs.py REFERENCE RUN [RUN ...] [--names NAME ...] [--figure FILE.png]

A run is a folder with the results.csv of run_ml_pipeline.py or combine_runs.py. Every run is compared with the first,
on the volumes that all of them were tested on; the table is Markdown.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

from ending import told
from hippocampus_data import person_of
from paired_differences import MEASURES, Difference, common_volumes, compare, forest, read_scores
from volume_stats import markdown

NOISE = (
    "The intervals say how much other persons of the same kind would change the difference, not how much another seed\n"
    "of the same recipe would; and one in twenty misses by chance."
)


def table(differences: list[Difference], reference: str) -> str:
    """A Markdown table, a row for each difference."""
    rows = [("run", "structure", "measure", reference, "run", "difference", "95 % interval", "n", "better / worse", "")]
    for d in differences:
        _, digits, title = MEASURES[d.measure]
        values = (f"{d.before:.{digits}f}", f"{d.after:.{digits}f}", f"{d.mean:+.{digits}f}")
        ends = f"{d.low:+.{digits}f} to {d.high:+.{digits}f}"
        shares = f"{d.better:.0%} / {d.worse:.0%}"
        rows.append((d.run, d.structure, title, *values, ends, str(d.volumes), shares, d.verdict))
    return markdown(rows)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the reference, then those compared with it")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs (their folders)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw the differences, PNG or SVG")
    return parser


def report(folders: list[Path], names: list[str], figure: Path | None) -> None:
    """What is asked for, printed and drawn."""
    runs = {name: read_scores(folder) for name, folder in zip(names, folders, strict=True)}
    volumes = common_volumes(runs)
    reference, *others = names
    found = [d for name in others for d in compare(name, runs[name], runs[reference], volumes)]
    tested = f"{len(volumes)} volumes of {len({person_of(name) for name in volumes})} persons, tested in all runs"
    print(f"{tested}\n\n{table(found, reference)}\n\n{NOISE}")
    if figure:
        forest(found, f"difference from {reference}; {tested}", figure)


def main(argv: list[str] | None = None) -> int:
    parser = arguments()
    args = parser.parse_args(argv)
    names = args.names or [str(run) for run in args.runs]
    if len(args.runs) < 2 or len(names) != len(args.runs) or len(set(names)) < len(names):
        parser.error(f"two runs or more, each with a name of its own; found {len(args.runs)} runs, names {names}")
    return told(lambda: report(args.runs, names, args.figure))


if __name__ == "__main__":
    sys.exit(main())
