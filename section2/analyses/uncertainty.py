"""Can a model tell which of its volumes are far off? Signs of doubt against the error of the volume.

    python uncertainty.py RUN OTHER [--figure FILE.png]

Finished cross-validations on the same folds. Each sign is computed for every volume by the models that did not see its
person; `OTHER` is only asked where it disagrees. A sign that went with the error could make the interval of
held_out_test.py wide for some volumes and narrow for others; without one, a constant share is the honest width.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from tqdm import tqdm

from ending import told
from figures import save
from hippocampus_data import LoadHippocampusData, add_data_root
from runs import tested_parts
from volume_stats import STRUCTURES, Dice3d, markdown, structure_mask

SIGNS = (
    "volume differs from the other model's",
    "outline differs from the other model's",
    "low probability inside",
    "variance p (1 - p)",
    "soft volume differs from the counted",
)


def signs(probabilities: np.ndarray, other: np.ndarray, structure: str) -> list[float]:
    """One number for each of SIGNS, from two models' probabilities [3, X, Y, Z]; more is more doubt."""
    mask, of_other = (structure_mask(p.argmax(axis=0), structure) for p in (probabilities, other))
    chance = probabilities[list(STRUCTURES[structure])].sum(axis=0, dtype=np.float64)
    volume = mask.sum()
    return [
        abs(float(np.log(volume / of_other.sum()))),
        1 - Dice3d(mask, of_other),
        1 - chance[mask].mean(),
        (chance * (1 - chance)).sum() / volume,
        abs(chance.sum() / volume - 1),
    ]


def doubts_and_errors(runs: list[Path], root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each structure the signs [volume, SIGNS] and |volume error| in % of the true volume [volume]."""
    found = {structure: ([], []) for structure in STRUCTURES}
    for held_out, (model, other) in tested_parts(runs, LoadHippocampusData(root)):
        for case in tqdm(held_out, "volumes", disable=None, leave=False):
            pair = model(case.image), other(case.image)
            for structure, (doubts, errors) in found.items():
                volume, true = (structure_mask(m, structure).sum() for m in (pair[0].argmax(axis=0), case.labels))
                doubts.append(signs(*pair, structure))
                errors.append(100 * abs(volume / true - 1))
    return {structure: (np.array(doubts), np.array(errors)) for structure, (doubts, errors) in found.items()}


def table(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Markdown: Spearman's rank correlation of each sign with the error, and its p value."""
    rows = [("correlation with the error", *found)]
    for n, sign in enumerate(SIGNS):
        cells = [spearmanr(doubts[:, n], errors) for doubts, errors in found.values()]
        rows.append((sign, *(f"{c.statistic:+.2f} (p {c.pvalue:.2f})" for c in cells)))
    return markdown(rows)


def draw(doubts: np.ndarray, errors: np.ndarray, path: Path) -> None:
    """A panel for each of SIGNS, a point for each volume: doubts [volume, sign], errors [volume] in %."""
    figure = Figure(figsize=(15, 3.6))
    panels = figure.subplots(1, len(SIGNS), sharey=True)
    for panel, sign, doubt in zip(panels, SIGNS, doubts.T, strict=True):
        panel.scatter(doubt, errors, s=12, color="0.3", alpha=0.7)
        panel.set_xlabel(sign, fontsize=9)
    panels[0].set_ylabel("|volume error| of the whole, %")
    figure.tight_layout()
    save(figure, path)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="finished runs on the same data and folds")
    add_data_root(parser)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw the whole's, PNG or SVG")
    return parser


def report(args: argparse.Namespace) -> None:
    """What is asked for, printed and drawn."""
    found = doubts_and_errors(args.runs, args.data_root)
    print(f"{len(found['whole'][1])} volumes\n\n{table(found)}")
    if args.figure:
        draw(*found["whole"], args.figure)


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return told(lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
