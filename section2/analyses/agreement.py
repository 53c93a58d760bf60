"""What the labels allow: do two models agree with each other more than either agrees with the labels?

    python agreement.py RUN RUN [--names NAME NAME] [--figure FILE.png]

Each volume is segmented by both runs' models that did not see its person. Where two models of different kind agree, and
the label does not, a better score on these labels is not to be had. It is no proof that the models are right: both
learned from labels of the same hands.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

import numpy as np
from matplotlib.figure import Figure

from ending import told
from figures import COLOURS, save
from held_out_test import run_test
from hippocampus_data import Case, LoadHippocampusData, add_data_root, person_of
from runs import tested_parts
from volume_stats import STRUCTURES, markdown, score_volume, standard_error


def agreements(runs: list[Path], cases: list[Case]) -> list[list[dict]]:
    """Scores of the first run against the labels, of the second, and of the first against the second, by volume."""
    of_first, of_second, of_both = [], [], []
    for held_out, models in tested_parts(runs, cases):
        first, second = (run_test([model], held_out) for model in models)
        of_first, of_second = of_first + first.scores, of_second + second.scores
        pairs = zip(held_out, first.labels, second.labels, strict=True)
        of_both += [score_volume(case.name, one, other) for case, one, other in pairs]
    return [of_first, of_second, of_both]


def dice(scores: list[dict], structure: str) -> np.ndarray:
    return np.array([score[structure]["dice"] for score in scores])


def table(names: list[str], found: list[list[dict]]) -> str:
    """A Markdown table of mean Dice with its standard error over persons."""
    persons = [person_of(score["name"]) for score in found[0]]
    rows = [("Dice ± SE", *STRUCTURES)]
    for name, scores in zip(names, found, strict=True):
        values = (dice(scores, s) for s in STRUCTURES)
        rows.append((name, *(f"{v.mean():.4f} ± {standard_error(v, persons):.4f}" for v in values)))
    with np.errstate(invalid="ignore"):  # models that find nothing anywhere have no correlation: nan
        alike = [np.corrcoef(dice(found[0], s), dice(found[1], s))[0, 1] for s in STRUCTURES]
    rows.append(("correlation of the first two", *(f"{r:.2f}" for r in alike)))
    return markdown(rows)


def draw(first: list[dict], second: list[dict], both: list[dict], path: Path) -> None:
    """Dice between two models against their mean Dice with the label, a point a volume, a panel a structure."""
    figure = Figure(figsize=(13, 4.8))
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for panel, structure in zip(panels, STRUCTURES, strict=True):
        one, other, mutual = (np.array([s[structure]["dice"] for s in scores]) for scores in (first, second, both))
        label = (one + other) / 2
        panel.scatter(label, mutual, s=14, color=COLOURS.get(structure, "0.3"), alpha=0.8)
        panel.axline((0.9, 0.9), slope=1, color="0.2", linewidth=1)
        panel.set_title(
            f"{structure}: with label {label.mean():.3f}, with each other {mutual.mean():.3f}\n"
            f"closer to each other (above the line): {(mutual > label).sum()} of {len(label)} volumes",
            fontsize=9,
        )
        panel.set_xlabel("Dice of model and label (mean of both models)")
    panels[0].set_ylabel("Dice between the models")
    figure.tight_layout()
    save(figure, path)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="folder of a finished run, same data and folds")
    parser.add_argument("--names", nargs=2, metavar="NAME", help="what to call the runs (their folders)")
    add_data_root(parser)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw every volume, PNG or SVG")
    return parser


def report(args: argparse.Namespace) -> None:
    """What is asked for, printed and drawn."""
    first, second = args.names or map(str, args.runs)
    found = agreements(args.runs, LoadHippocampusData(args.data_root))
    print(f"{len(found[0])} volumes of {len({person_of(score['name']) for score in found[0]})} persons\n")
    print(table([f"{first} and label", f"{second} and label", f"{first} and {second}"], found))
    if args.figure:
        draw(*found, args.figure)


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return told(lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
