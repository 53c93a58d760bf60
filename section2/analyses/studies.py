"""Studies: one thing of the recipe changed at a time, on the same persons; does it matter?

    python studies.py [--study NAME ...] [--workers 2]

Each variant trains a small network of slices (BASE) for the first of five folds and is compared, as compare_runs.py
does, with BASE itself on the persons held out. Small and short, so that all of them take half an hour on a core: what
matters little here may matter more, or less, in longer training. One variant is BASE from another random start: what
changes no more than that may be chance. A study that was stopped goes on where it was.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

from ending import told
from paired_differences import Difference, common_volumes, compare, forest, read_scores
from variants import GOES_ON, Variant, add_options, folder_of, run_missing
from volume_stats import markdown

BASE = {"filters": 8, "epochs": 4, "batch_size": 16, "validation_share": 0.0, "folds": 5, "only_fold": 1}


def without(*limits: str) -> Variant:
    return Variant(dict.fromkeys(limits, 0.0))


BASES = {"base": Variant(), "another start": Variant({"draw": 1})}
STUDIES = {
    "augmentation": {
        "none": Variant({"augment": False}),
        "no rotation": without("rotation"),
        "no scaling, shift": without("scale", "shift"),
        "no elastic": without("elastic"),
        "no gamma, contrast": without("gamma", "contrast", "brightness"),
        "all interpolated": without("unresampled"),
    },
    "slices": {
        "sagittal": Variant({"plane": "sagittal"}),
        "axial": Variant({"plane": "axial"}),
        "1 slice": Variant({"context": 1}),
        "7 slices": Variant({"context": 7}),
    },
    "size": {
        "16 filters": Variant({"filters": 16}),
        "3 poolings": Variant({"depth": 3}),
    },
    "labels": {
        "one class": Variant(one_class=True),
        "shifted labels left out": Variant(left_out="label_shifted"),
    },
}
VARIANTS = BASES | {name: variant for study in STUDIES.values() for name, variant in study.items()}


def compare_study(names: list[str], out: Path) -> list[Difference]:
    """Each variant against "base"; of one class, the whole alone."""
    runs = {name: read_scores(folder_of(out, name)) for name in ["base", *names]}
    volumes = common_volumes(runs)
    found = [d for name in names for d in compare(name, runs[name], runs["base"], volumes)]
    return [d for d in found if d.structure == "whole" or not VARIANTS[d.run].one_class]


def table(names: list[str], differences: list[Difference], out: Path) -> str:
    """Markdown: Dice against BASE, an asterisk where the interval leaves out 0, and what the training cost."""
    structures = list(dict.fromkeys(d.structure for d in differences))
    rows = [("", *structures, "parameters", "processor s", "peak MB")]
    for name in ["base", *names]:
        cost = json.loads((folder_of(out, name) / "results.json").read_text())["cost"]
        cells = []
        for s in structures:
            of_structure = [d for d in differences if (d.structure, d.measure) == (s, "dice")]
            if name == "base":
                cells.append(f"{of_structure[0].before:.4f}")
            else:
                of_run = [f"{d.mean:+.4f}{'' if d.low <= 0 <= d.high else ' *'}" for d in of_structure if d.run == name]
                cells.append("".join(of_run))
        rows.append((name, *cells, *(f"{value:,}" for value in cost.values())))
    return markdown(rows)


def report(study: str, out: Path) -> str:
    """The study's table; draws its figure."""
    names = ["another start", *STUDIES[study]]
    found = compare_study(names, out)
    forest(found, f"{study}: difference from base, {found[0].volumes} volumes", out / f"{study}.png")
    return f"{study}\n\n{table(names, found, out)}\n"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", choices=STUDIES, nargs="+", default=list(STUDIES), help="which (all)")
    add_options(parser, "studies")
    return parser


def main(argv: list[str] | None = None, base: dict = BASE) -> int:
    """`base`: another small recipe, for tests."""
    args = arguments().parse_args(argv)
    names = [*BASES, *(name for study in args.study for name in STUDIES[study])]

    def work() -> None:
        jobs = [(VARIANTS[name], base, folder_of(args.out, name)) for name in names]
        run_missing(jobs, args.data_root, args.workers)
        print("\n".join(report(study, args.out) for study in args.study))

    return told(work, GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
