"""The recipe of volumes, one thing changed at a time: which change is worth a thousandth of Dice?

    python recipe_bench.py [--variant NAME ...] [--workers 2]

Each variant trains a network of volumes for each of the five folds, on a schedule of 8 epochs in place of 20, and is
compared with BASE by all persons held out, paired by volume: an interval of .001 of Dice. Twelve minutes of one core a
variant. One variant is BASE from another random start: what changes no more than that may be chance. What was trained
before is not trained again.

    python recipe_bench.py --long

20 epochs, as quick.json has, on the first fold alone, compared with that recipe's own results: does a change that helps
a short schedule help a long one? Eight minutes of one core a variant.

    python recipe_bench.py --unlabelled DIR

Do images that nobody outlined help, with labels that the network of the same fold gives them? Of these, nobody is a
person held out in that fold. Both take as many steps: 14 epochs without them, 8 with them.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

import environment  # noqa: F401  # isort: skip

from ending import told
from nifti import DataError, nifti_files
from paired_differences import common_volumes, compare, forest, read_scores
from runs import SECTION
from variants import GOES_ON, Variant, add_options, folder_of, run_missing
from volume_stats import markdown

BASE = {"dims": 3, "depth": 3, "batch_size": 2, "epochs": 8, "validation_share": 0.0, "folds": 5}
VARIANTS = {
    "base": {},
    "another start": {"draw": 1},
    "elastic 0.6, half unresampled": {"elastic": 0.6, "unresampled": 0.5},
    "elastic 0.6, unresampled 0.8": {"elastic": 0.6, "unresampled": 0.8},
    "window 0.97": {"window": 0.97},
    "batch of 4": {"batch_size": 4},
    "batch of 1": {"batch_size": 1},
    "less change of intensity": {"gamma": 0.25, "noise": 0.08, "contrast": 0.1, "brightness": 0.1},
    "0.6, 0.8 and window 0.97": {"elastic": 0.6, "unresampled": 0.8, "window": 0.97},
}
LONG_BASE = BASE | {"epochs": 20, "validation_share": 0.05}  # of which QUICK has the results
LONG_VARIANTS = {
    "the same again": {},
    "0.6, 0.8 and window 0.97, 24 epochs": VARIANTS["0.6, 0.8 and window 0.97"] | {"epochs": 24},
    "less turning and scaling, window 0.97": {"rotation": 8.0, "scale": 0.08, "window": 0.97},
    "instance norm": {"norm": "instance"},
    "instance norm, rate 0.004, window 0.97": {"norm": "instance", "learning_rate": 0.004, "window": 0.97},
    "instance norm, 0.6, 0.6 and window 0.97": {"norm": "instance", "elastic": 0.6, "unresampled": 0.6, "window": 0.97},
}
ALONE, WITH_MORE = "14 epochs", "8 epochs, unlabelled images too"
QUICK = SECTION / "out" / "shipped" / "quick"


def _job(variant: Variant, base: dict, out: Path, name: str, fold: int) -> tuple[Variant, dict, Path]:
    return variant, base | {"only_fold": fold}, folder_of(out, name) / f"fold{fold}"


def _folds(base: dict) -> range:
    return range(1, base["folds"] + 1)


def _train_with_unlabelled(images: Path, base: dict, args: argparse.Namespace) -> None:
    """ALONE on each fold, then WITH_MORE, which ALONE has labelled. Raises DataError where there are no images."""
    if not nifti_files(images):
        raise DataError(f"no NIfTI files in {images}")
    out = args.out.absolute() / "unlabelled"
    alone = [_job(Variant({"epochs": 14}), base, out, ALONE, fold) for fold in _folds(base)]
    pupils = [Variant(unlabelled=str(images.absolute()), labelled_by=str(teacher)) for _, _, teacher in alone]
    more = [_job(pupil, base, out, WITH_MORE, fold) for fold, pupil in zip(_folds(base), pupils, strict=True)]
    run_missing(alone, args.data_root, args.workers)
    run_missing(more, args.data_root, args.workers)
    print(report([ALONE, WITH_MORE], base["folds"], out))


def report(names: list[str], folds: int, out: Path, reference: Path | None = None) -> str:
    """The table of Dice against the first, or what `reference` holds; draws the figure, of other measures too."""
    scores = {
        name: {
            k: v for fold in range(1, folds + 1) for k, v in read_scores(folder_of(out, name) / f"fold{fold}").items()
        }
        for name in names
    }
    if reference:
        scores, names = {"base": read_scores(reference), **scores}, ["base", *names]
    volumes = common_volumes(scores)
    first, *others = names
    found = [one for name in others for one in compare(name, scores[name], scores[first], volumes)]
    forest(found, f"recipe of volumes: difference from {first}, {len(volumes)} volumes", out / "recipe.png")
    dice = [one for one in found if one.measure == "dice"]
    structures = list(dict.fromkeys(one.structure for one in dice))
    rows = [("", *structures)]
    rows.append((first, *(f"{next(o.before for o in dice if o.structure == s):.4f}" for s in structures)))
    for name in others:
        cells = [one for one in dice if one.run == name]
        rows.append((name, *(f"{one.mean:+.4f} ({one.low:+.4f} to {one.high:+.4f})" for one in cells)))
    return markdown(rows)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, nargs="+", default=list(VARIANTS), help="which (all)")
    parser.add_argument("--long", action="store_true", help="the schedule of quick.json, on the first fold alone")
    parser.add_argument("--unlabelled", type=Path, metavar="DIR", help="are these images worth learning from?")
    add_options(parser, "recipe_bench")
    return parser


def main(argv: list[str] | None = None, base: dict = BASE) -> int:
    """`base`: another small recipe, for tests."""
    args = arguments().parse_args(argv)
    names = list(dict.fromkeys(["base", *args.variant]))

    def work() -> None:
        if args.unlabelled:
            _train_with_unlabelled(args.unlabelled, base, args)
            return
        if args.long:
            out = args.out / "long"
            jobs = [_job(Variant(settings), LONG_BASE, out, name, 1) for name, settings in LONG_VARIANTS.items()]
            run_missing(jobs, args.data_root, args.workers)
            print(report(list(LONG_VARIANTS), 1, out, QUICK))
            return
        jobs = [_job(Variant(VARIANTS[name]), base, args.out, name, fold) for name in names for fold in _folds(base)]
        run_missing(jobs, args.data_root, args.workers)
        print(report(names, base["folds"], args.out))

    return told(work, GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
