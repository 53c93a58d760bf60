"""Do volumes come out too large, and which factor on the background's odds undoes that?

    python volume_bias.py RUN [--figure FILE.png]

RUN is a finished cross-validation. Every volume is segmented by the model that did not see its person, with each of
FACTORS in place of the setting `background`. The last line says what choosing the factor on the other folds gives.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from config import Config
from ending import told
from figures import COLOURS, save
from hippocampus_data import DataError, LoadHippocampusData, add_data_root
from runs import tested_parts
from volume_stats import STRUCTURES, Dice3d, markdown, structure_mask

FACTORS = (1.0, 1.1, 1.2, 1.25, 1.3, 1.4, 1.5)


def measured(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[structure, 2]: Dice and volume error in %; probabilities [3, X, Y, Z], labels [X, Y, Z]."""
    found = probabilities.argmax(axis=0)
    rows = []
    for structure in STRUCTURES:
        mask, true = structure_mask(found, structure), structure_mask(labels, structure)
        rows.append((Dice3d(mask, true), 100 * (mask.sum() / true.sum() - 1)))
    return np.array(rows)


def by_factor(run: Path, root: Path) -> list[np.ndarray]:
    """For each fold [volume, factor, structure, 2], as `measured` says."""
    trained_with = Config.load(run / "config.json").background
    folds = []
    for held_out, (model,) in tested_parts([run], LoadHippocampusData(root)):
        rows = []
        for case in tqdm(held_out, "volumes", disable=None, leave=False):
            probabilities = model(case.image)
            factors = [np.reshape([factor / trained_with, 1, 1], (3, 1, 1, 1)) for factor in FACTORS]
            rows.append([measured(probabilities * factor, case.labels) for factor in factors])
        folds.append(np.array(rows))
    return folds


def chosen_elsewhere(folds: list[np.ndarray]) -> np.ndarray:
    """[volume, structure, 2]: each fold with the factor that made the whole's mean error smallest in the others."""
    parts = []
    for n, fold in enumerate(folds):
        others = np.concatenate(folds[:n] + folds[n + 1 :])
        errors = np.abs(others[:, :, list(STRUCTURES).index("whole"), 1].mean(axis=0))
        parts.append(fold[:, errors.argmin()])
    return np.concatenate(parts)


def row(name: str, values: np.ndarray) -> tuple[str, ...]:
    """The cells of a line of the table from values [volume, structure, 2]."""
    dice, error = values[..., 0].mean(axis=0), values[..., 1]
    cells = [[f"{v:.4f}" for v in dice], [f"{v:+.1f}" for v in error.mean(axis=0)]]
    cells.append([f"{v:.1f}" for v in np.abs(error).mean(axis=0)])
    return (name, *(" / ".join(cell) for cell in cells))


def draw(values: np.ndarray, path: Path) -> None:
    """Mean volume error and Dice against the background's factor; values [volume, factor, structure, (Dice, error)]."""
    figure = Figure(figsize=(10, 4))
    panels = figure.subplots(1, 2)
    titles = ("mean Dice", "mean volume error, %")
    for n, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        for k, structure in enumerate(STRUCTURES):
            curve = values[:, :, k, n].mean(axis=0)
            panel.plot(FACTORS, curve, "o-", color=COLOURS.get(structure, "0.3"), label=structure)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("factor on the background's odds")
    panels[1].axhline(0, color="0.4", linewidth=1, zorder=0)
    panels[1].legend(frameon=False)
    figure.tight_layout()
    save(figure, path)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run with --folds")
    add_data_root(parser)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw it, PNG or SVG")
    return parser


def report(args: argparse.Namespace) -> None:
    """What is asked for, printed and drawn."""
    folds = by_factor(args.run, args.data_root)
    if len(folds) < 2:
        raise DataError(f"{args.run} has {len(folds)} fold, expected two or more to choose on the others")
    together = np.concatenate(folds)
    print(f"{len(together)} volumes; {' / '.join(STRUCTURES)}\n")
    rows = [("factor", "Dice", "bias of the volume, %", "absolute error, %")]
    rows += [row(f"{factor:g}", together[:, n]) for n, factor in enumerate(FACTORS)]
    print(markdown([*rows, row("chosen on the other folds", chosen_elsewhere(folds))]))
    if args.figure:
        draw(together, args.figure)


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return told(lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
