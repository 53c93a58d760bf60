"""Fit the limits of checks/quality.py on curated crops, and count what they get wrong.

    python section3/calibration/fit_quality_limits.py --folds RUN
        writes quality_limits.json and quality_template.npz beside the model
    python section3/calibration/fit_quality_limits.py --folds RUN --evaluate
        prints how often good crops fail and nonsense passes

To be run again whenever the model or the curated set changes. --images is the folder of images that section 1 kept
(NIfTI, 1 mm). Labels are not needed: the limits are about what the model makes of an image.

One rule for every measure: between the 1 % and the 99 % quantile of the crops, widened by a share of their distance.
Evaluation fits on one half of the persons and judges the other half, and the other way round; nonsense is made of the
crops that are judged, and of the brain series of DICOM studies.

A model is surer of the crops that it learned from than of new ones. With `--folds`, the model's cross-validation (the
folder of section 2's run; those of all runs that an ensemble averages), each crop is answered by the fold that held its
person out. Without it, limits are tighter than they should be and the rates too good.

No crop of the set shows a hippocampus as small as many patients', and all are of one centre. With `--shrunken`, the
folder that section 2's known_atrophy.py --save left, and with `--heads`, a folder of folders of T1-weighted heads that
other scanners took, refusal begins where these crops end too; doubt begins where it would without them. Evaluation
judges the heads of a folder by limits fitted without them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import clinic_environment  # noqa: F401  before anything that may be missing

# isort: split
import numpy as np
from tqdm import tqdm

from checks.quality_catalogue import INPUT_MEASURES, OUTPUT_MEASURES, Measure
from checks.quality_limits import Limits, Range
from checks.quality_measures import around_centre, measure_image, measure_output, measure_size, normalise
from common.refusal import Stop
from common.shipped import DEFAULT_LOCALISER, DEFAULT_MODEL
from crops import Crop, Judged, Segment, SegmentOf, held_out, read_crops
from crops_of_heads import crops_of_heads
from measuring.hippocrop import Localiser
from measuring.unet_inference_agent import UNetInferenceAgent
from nonsense import read_brains
from tallies import Tally, as_table, tally_brains, tally_crops, tally_nonsense

SECTION = Path(__file__).resolve().parents[1]
DEFAULT_IMAGES = SECTION.parent / "section1" / "out" / "images"

QUANTILES = (0.01, 0.99)
WARN_MARGIN, FAIL_MARGIN = 0.15, 0.5  # of the distance between the quantiles
# These are sizes and ratios: their margins are factors.
LOGARITHMIC = {"size_x", "size_y", "size_z", "grey_levels", "anterior", "posterior", "total", "ratio"}
# Nearly the same in all crops that a model was trained on: less of a distance would refuse new ones for a trifle.
LEAST_DISTANCE = {"one_piece": 0.2, "confidence": 0.1, "doubt": 0.1}
# What fails by its meaning, whatever is usual.
FAIL_BELOW = {
    "margin": (2.0, "by its meaning: with 0 it touches the edge, and its border may be off by a voxel"),
    "orientation": (0.0, "by its meaning: below 0 a mirror image fits better"),
}

# Crops that should get a number beside those of the set, in the words of the limits' source.
SHRUNKEN, OTHER_SCANNERS = "whose hippocampus was made smaller", "of other scanners"
GREY_VALUES = {"brightness", "asymmetry"}
Others = Mapping[str, Sequence[Judged]]  # by one of these

# --- fitting ----------------------------------------------------------------------------------------------------------


def fit_limits(crops: Sequence[Judged], model_sha256: str, answered: str = "", others: Others | None = None) -> Limits:
    """Limits from the crops of the set and, for what is refused, from others too.

    answered: by whom, in words, where not by the model itself.
    """
    template = mean_crop([one.crop.volume for one in crops])

    def measured(judged: Sequence[Judged]) -> list[dict[str, float]]:
        return [measure_size(one.crop.volume) | measure_image(one.crop.volume, template) | one.output for one in judged]

    usual, rows = measured(crops), {kind: measured(judged) for kind, judged in (others or {}).items()}
    ranges = {
        measure.name: fit_range(
            measure,
            [values[measure.name] for values in usual],
            {kind: [values[measure.name] for values in several] for kind, several in rows.items()},
        )
        for measure in (*INPUT_MEASURES, *OUTPUT_MEASURES)
    }
    also = "".join(f", {len(several)} {kind}" for kind, several in rows.items())
    return Limits(ranges, template, model_sha256, fitted_on=f"{len(crops)} crops{also}{answered}")


def mean_crop(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the normalised crops, laid over each other at their middles; as large as the median crop."""
    shape = tuple(int(size) for size in np.median([volume.shape for volume in volumes], axis=0))
    mean = np.mean([around_centre(normalise(volume), shape) for volume in volumes], axis=0)
    return (mean - mean.mean()) / mean.std()


def fit_range(measure: Measure, values: Sequence[float], others: Mapping[str, Sequence[float]] | None = None) -> Range:
    """The limits of one measure, by the crops in which it could be measured. Raises ValueError where there are none.

    others: by their kind, of crops that are not of the set. What is usual among these is doubted, but not refused.
    """
    factors = measure.name in LOGARITHMIC
    usable = _usable(values, factors)
    if not usable.size:
        raise ValueError(f"in none of the crops does the model find what {measure.name} needs: is it the right model?")
    low, high = np.quantile(usable, QUANTILES)
    distance = max(high - low, LEAST_DISTANCE.get(measure.name, 0))
    usual = (low - WARN_MARGIN * distance, high + WARN_MARGIN * distance)
    widest = (low - FAIL_MARGIN * distance, high + FAIL_MARGIN * distance)
    source = f"{QUANTILES[0]:.0%} to {QUANTILES[1]:.0%} of {len(usable)} crops, widened by {FAIL_MARGIN:.0%} each way"
    for kind, several in (others or {}).items():
        known = _usable(several, factors)
        if not known.size:
            continue
        margin = margin_of(kind, measure.name) * np.ptp(known)
        first, last = np.quantile(known, QUANTILES) + margin * np.array([-1, 1])
        if (measure.too_low and first < widest[0]) or (measure.too_high and last > widest[1]):
            source += f", and of {len(known)} {kind}"
        widest = (min(widest[0], first), max(widest[1], last))

    def limits(ends: tuple[float, float]) -> tuple[float | None, float | None]:
        first, last = (float(f"{np.exp(end) if factors else end:.4g}") for end in ends)
        return (first if measure.too_low else None, last if measure.too_high else None)

    warn, fail = limits(usual), limits(widest)
    if measure.name in FAIL_BELOW:
        least, source = FAIL_BELOW[measure.name]
        warn, fail = (max(warn[0], least), warn[1]), (least, fail[1])
    return Range(warn, fail, source)


def margin_of(kind: str, measure: str) -> float:
    """By which share of their range the limits of crops that are not of the set are widened."""
    if kind == SHRUNKEN:
        return 0.0
    # The scanners at hand are few; grey values differ most between them, and tell no T1 from a FLAIR.
    return FAIL_MARGIN if measure in GREY_VALUES else WARN_MARGIN


def _usable(values: Sequence[float], factors: bool) -> np.ndarray:
    """Those that could be measured; their logarithms where margins are factors."""
    usable = np.array([value for value in values if np.isfinite(value) and (value > 0 or not factors)])
    return np.log(usable) if factors else usable


# --- limits to be evaluated -------------------------------------------------------------------------------------------


def limits_of_other_half(
    crops: Sequence[Judged], model_sha256: str, shrunken: Sequence[Judged] = (), heads: Sequence[Judged] = ()
) -> Callable[[Crop], Limits]:
    """For each crop the limits fitted on the half of the persons that its person does not belong to, and on heads."""
    persons = sorted({one.crop.person for one in crops})
    side = {person: number % 2 for number, person in enumerate(persons)}
    limits = []
    for half in (0, 1):
        usual, smaller = ([one for one in both if side[one.crop.person] != half] for both in (crops, shrunken))
        limits.append(fit_limits(usual, model_sha256, others=kinds(smaller, heads)))
    return lambda crop: limits[side[crop.person]]


def kinds(shrunken: Sequence[Judged], heads: Sequence[Judged]) -> Others:
    """Those that there are, by their kind."""
    return {kind: several for kind, several in ((SHRUNKEN, shrunken), (OTHER_SCANNERS, heads)) if several}


# --- command line -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description="Fit the limits of the quality checks on curated crops.")
    result.add_argument("--images", type=Path, default=DEFAULT_IMAGES, metavar="DIR", help="default: %(default)s")
    result.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="default: %(default)s")
    result.add_argument("--folds", type=Path, nargs="+", metavar="RUN", help="cross-validations of the model")
    result.add_argument("--shrunken", type=Path, metavar="DIR", help="of section 2's known_atrophy.py --save")
    result.add_argument("--heads", type=Path, metavar="DIR", help="folders of heads that other scanners took")
    result.add_argument("--evaluate", action="store_true", help="count the errors of limits fitted on half the persons")
    result.add_argument("--every", type=int, default=4, metavar="N", help="nonsense of every Nth crop (%(default)s)")
    result.add_argument("--studies", type=Path, default=_default_studies(), metavar="DIR", help="for brain series")
    return result


def _default_studies() -> Path:
    return Path(os.environ.get("HIPPO_DATA") or SECTION.parent / "data") / "TestVolumes"


def _load(model_path: Path) -> UNetInferenceAgent:
    return UNetInferenceAgent(model_path, threads=os.cpu_count() or 1)


def _load_segment(model_path: Path) -> Segment:
    return _load(model_path).single_volume_inference


def judged(crops: Sequence[Crop], segment_of: SegmentOf) -> list[Judged]:
    progress = tqdm(crops, desc="segmenting", unit="crop", disable=None)
    return [Judged(crop, measure_output(segment_of(crop)(crop.volume))) for crop in progress]


def read_heads(root: Path | None) -> dict[str, list[Crop]]:
    """Crops of the heads in each folder of `root`, by its name."""
    localiser = Localiser(DEFAULT_LOCALISER, os.cpu_count() or 1) if root else None
    return {
        folder.name: [Crop(name, folder.name, volume) for name, volume in crops_of_heads(folder, localiser)]
        for folder in (sorted(one for one in root.iterdir() if one.is_dir()) if root else ())
    }


def read_shrunken(root: Path | None) -> dict[str, list[Crop]]:
    """Crops of each folder of `root`, by its name."""
    return {folder.name: read_crops(folder) for folder in sorted(root.iterdir())} if root else {}


def fit_or_evaluate(args: argparse.Namespace) -> None:
    """What is asked for, written or printed. Raises OSError, ValueError, Stop."""
    crops, shrunken, heads = read_crops(args.images), read_shrunken(args.shrunken), read_heads(args.heads)
    agent = _load(args.model_path)
    segment, model = agent.single_volume_inference, agent.identity["sha256"]
    segment_of = held_out(args.folds, crops, _load_segment) if args.folds else lambda _: segment
    usual, smaller = judged(crops, segment_of), judged([*chain(*shrunken.values())], segment_of)
    elsewhere = judged([*chain(*heads.values())], lambda _: segment)
    answered = ", answered by models that had not seen them" if args.folds else ""
    limits = fit_limits(usual, model, answered, kinds(smaller, elsewhere))
    if not args.evaluate:
        limits.save(args.model_path.parent)
        print(f"{len(limits.ranges)} limits fitted on {limits.fitted_on}, beside {args.model_path}")
        return

    def tally_heads(source: str) -> Tally:
        others = [one for one in elsewhere if one.crop.person != source]
        without = fit_limits(usual, model, others=kinds(smaller, others))
        return tally_crops(heads[source], lambda _: segment, lambda _: without, source)

    limits_of = limits_of_other_half(usual, model, smaller, elsewhere)
    tallies = [tally_crops(crops, segment_of, limits_of)]
    tallies += [tally_crops(several, segment_of, limits_of, kind) for kind, several in shrunken.items()]
    tallies += [tally_heads(source) for source in heads]
    tallies += tally_nonsense(crops[:: args.every], segment_of, limits_of)
    if args.studies.is_dir():
        tallies += tally_brains(read_brains(args.studies), segment, limits)
    print(as_table(tallies))


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        fit_or_evaluate(args)
    except (OSError, ValueError, Stop) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
