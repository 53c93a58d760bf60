"""What does a model say of hippocampi smaller than any it was shown? Is the sum of its probabilities the better volume?

    python known_atrophy.py RUN [--figure FILE.png] [--save DIR]

RUN is a finished run that held persons out. The hippocampus of each volume held out is shrunk by known amounts
(src/atrophy.py) and measured by the model that did not see its person, in two ways: by the mask, as everywhere, and by
the sum of the probabilities. Once as in training, if that had any: thinner, above all from above, with fluid in its
place; once as no training has it: evenly towards its middle, without fluid. The slope is that of measured on true
volume, fitted for each hippocampus over its sizes: 1 where a change is measured in full. --save keeps the images of the
first kind, a folder for each amount: what the clinic's limits need.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from atrophy import SMALLEST, shrunken
from ending import told
from figures import COLOURS, save
from hippocampus_data import Case, LoadHippocampusData, add_data_root
from model_export import ExportedModel
from paired_differences import interval
from runs import made, tested_parts
from volume_stats import Dice3d, markdown

AMOUNTS = (1.0, 0.8, 0.6, 0.45, SMALLEST)  # of `kept`: 1 is the volume as it is, the last leaves about 0.42
WAYS = {"mask": 1, "sum": 2}  # where `measured` gives the volume of each
AS_TRAINED = "thinner, with fluid"
KINDS = {
    AS_TRAINED: {},
    "evenly, without fluid": {"stays": (0.5, 0.5, 0.5), "uneven": (1.0, 1.0, 1.0), "wet": 0.0},
}


def measured(model: ExportedModel, image: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """True volume, that of the mask, that of the sum of probabilities, all mm³; Dice of the whole."""
    probabilities = model(image)
    found, true = probabilities.argmax(axis=0) > 0, labels > 0
    return true.sum(), found.sum(), (1 - probabilities[0]).sum(), Dice3d(found, true)


def by_kind(run: Path, cases: list[Case], keep: Path | None) -> tuple[dict[str, np.ndarray], list[str]]:
    """By KINDS [volume, amount, 4] as `measured` says, and the person of each volume; `keep`: where images go."""
    rows, persons = {kind: [] for kind in KINDS}, []
    for held_out, (model,) in tested_parts([run], cases):
        for case in tqdm(held_out, "volumes", disable=None, leave=False):
            pairs = {kind: smaller(case, how) for kind, how in KINDS.items()}
            for kind, several in pairs.items():
                rows[kind].append([measured(model, *pair) for pair in several])
            persons.append(case.person)
            if keep:
                for amount, (image, _) in zip(AMOUNTS[1:], pairs[AS_TRAINED][1:], strict=True):
                    nib.save(nib.Nifti1Image(image, np.eye(4)), made(keep / f"kept_{amount:g}") / case.name)
    return {kind: np.array(several) for kind, several in rows.items()}, persons


def smaller(case: Case, how: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """Image and labels, shrunk by each of AMOUNTS."""
    image, labels = torch.from_numpy(case.image), torch.from_numpy(case.labels)
    return [tuple(part.numpy() for part in shrunken(image, labels, amount, **how)) for amount in AMOUNTS]


def slopes(values: np.ndarray) -> np.ndarray:
    """[volume, way]: of measured on true volume over the amounts; values [volume, amount, 4] as `measured` says."""
    return np.array([[np.polyfit(one[:, 0], one[:, way], 1)[0] for way in WAYS.values()] for one in values])


def table(values: np.ndarray) -> str:
    """A line for each amount: what is left, its true volume, and the errors of both ways."""
    rows = [("left, %", "true mm³", "Dice", *(f"error by the {way}, %: mean, SD" for way in WAYS))]
    for column in values.swapaxes(0, 1):
        left = 100 * (column[:, 0] / values[:, 0, 0]).mean()
        spread = [f"{one.mean():+.1f}, {one.std(ddof=1):.1f}" for one in (errors(column, way) for way in WAYS)]
        rows.append((f"{left:.0f}", f"{column[:, 0].mean():.0f}", f"{column[:, 3].mean():.3f}", *spread))
    return markdown(rows)


def draw(kinds: dict[str, np.ndarray], path: Path) -> None:
    """Error by the mask against the true volume, a panel for each kind and a line for each hippocampus."""
    figure = Figure(figsize=(11, 4.5))
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True)
    for panel, (kind, values) in zip(panels, kinds.items(), strict=True):
        for one in values:
            panel.plot(one[:, 0], errors(one), color=COLOURS["anterior"], linewidth=0.5, alpha=0.4)
        panel.plot(values[..., 0].mean(axis=0), errors(values).mean(axis=0), "o-", color="0.1", label="mean")
        panel.axhline(0, color="0.4", linewidth=1, zorder=0)
        least = values[:, 0, 0].min()
        panel.axvline(least, color="0.4", linewidth=1, linestyle=":", label="smallest that an expert outlined")
        panel.set(title=kind, xlabel="true volume of the whole, mm³", ylabel="error of the measured volume, %")
        panel.label_outer()
    panel.legend(frameon=False)
    figure.tight_layout()
    save(figure, path)


def errors(values: np.ndarray, way: str = "mask") -> np.ndarray:
    """[...]: of the volume found in this way, in %; values [..., 4] as `measured` says."""
    return 100 * (values[..., WAYS[way]] / values[..., 0] - 1)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run that held persons out")
    add_data_root(parser)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw it, PNG or SVG")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep the shrunken images there, as NIfTI")
    return parser


def report(args: argparse.Namespace) -> None:
    """What is asked for, printed and drawn."""
    kinds, persons = by_kind(args.run, LoadHippocampusData(args.data_root), args.save)
    print(f"{len(persons)} volumes of {len(set(persons))} persons")
    for kind, values in kinds.items():
        print(f"\n{kind}\n\n{table(values)}\n")
        for way, found in zip(WAYS, slopes(values).T, strict=True):
            low, high = interval(found, persons)
            print(f"slope by the {way}: {found.mean():.3f} ({low:.3f} to {high:.3f}), SD {found.std(ddof=1):.3f}")
    if args.figure:
        draw(kinds, args.figure)


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return told(lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
