"""Where a model is unsure: how much of the volume, and how many of the errors, lie there? And is the whole any better
known by it?

    python where_unsure.py RUN

A finished run that held persons out. Unsure is a voxel whose probability of hippocampus lies between 0.25 and 0.75:
what the clinic's page dots. The Dice that probabilities promise is that of the expected overlap.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

import numpy as np
from tqdm import tqdm

from ending import told
from hippocampus_data import LoadHippocampusData, add_data_root
from runs import tested_parts
from volume_stats import Dice3d

EVEN = (0.25, 0.75)


def shares(chance: np.ndarray, true: np.ndarray) -> tuple[float, float, float, float]:
    """Of a volume, from the probability of hippocampus [X, Y, Z] and the true mask.

    Unsure voxels for each voxel that was found; the share of the errors among them; the Dice that the probabilities
    promise; and what it is.
    """
    found = chance > 0.5
    unsure, wrong = (chance >= EVEN[0]) & (chance <= EVEN[1]), found != true
    promised = 2 * chance[found].sum() / (found.sum() + chance.sum())
    return unsure.sum() / found.sum(), (wrong & unsure).sum() / wrong.sum(), promised, Dice3d(found, true)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run that held persons out")
    add_data_root(parser)
    return parser


def report(run: Path, data_root: Path) -> None:
    """What is asked for, printed."""
    rows = [
        shares(1 - model(case.image)[0], case.labels > 0)
        for held_out, (model,) in tested_parts([run], LoadHippocampusData(data_root))
        for case in tqdm(held_out, "volumes", disable=None, leave=False)
    ]
    unsure, wrong, promised, is_ = np.mean(rows, axis=0)
    print(f"{len(rows)} volumes: unsure {unsure:.0%} of what is found, with {wrong:.0%} of the errors")
    print(f"Dice of the whole: promised {promised:.3f}, is {is_:.3f}")


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return told(lambda: report(args.run, args.data_root))


if __name__ == "__main__":
    sys.exit(main())
