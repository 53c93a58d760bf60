"""Fit the limits of measuring/quality.py on curated crops, and count what they get wrong.

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

No crop of the set shows a hippocampus as small as many patients'. With `--shrunken`, the folder that section 2's
known_atrophy.py --save left, refusal begins where these crops end too; doubt begins where it would without them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import clinic_environment  # noqa: F401  before anything that may be missing

# isort: split
import numpy as np
from tqdm import tqdm

from common.refusal import Stop
from common.shipped import DEFAULT_MODEL
from common.verdicts import FAIL, PASS, WARN, Check, worst
from measuring.quality import assess_input, assess_output
from measuring.quality_catalogue import INPUT_MEASURES, OUTPUT_MEASURES, Measure
from measuring.quality_limits import Limits, Range
from measuring.quality_measures import around_centre, measure_image, measure_output, measure_size, normalise
from measuring.unet_inference_agent import UNetInferenceAgent
from nonsense import NONSENSE, random_crops, read_brains, squeezed

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

Segment = Callable[[np.ndarray], np.ndarray]  # a raw volume [X, Y, Z] -> probabilities [3, X, Y, Z]
SegmentOf = Callable[["Crop"], Segment]  # which model may be asked about a crop and what is made of it


@dataclass(frozen=True)
class Crop:
    """A curated image: raw volume [X, Y, Z] in RAS at 1 mm."""

    name: str
    person: str
    volume: np.ndarray


@dataclass(frozen=True)
class Judged:
    """A crop, and what `measure_output` says of the model's answer."""

    crop: Crop
    output: dict[str, float]


def read_crops(folder: Path) -> list[Crop]:
    """All NIfTI images of a folder. Files 2k-1 and 2k show one person. Raises ValueError where there are none."""
    import nibabel as nib  # here, as the clinical host has none

    crops = []
    for path in tqdm(sorted(folder.glob("[!.]*.nii*")), desc="reading", unit="crop", disable=None):
        number = re.search(r"(\d+)\.nii", path.name)
        volume = np.asanyarray(nib.as_closest_canonical(nib.load(path)).dataobj).astype(np.float32)
        crops.append(Crop(path.name, str((int(number[1]) + 1) // 2) if number else path.name, volume))
    if not crops:
        raise ValueError(f"{folder} holds no NIfTI image; expected what section1/curation.py kept: see --images")
    return crops


def held_out(runs: Sequence[Path], crops: Sequence[Crop], load: Callable[[Path], Segment]) -> SegmentOf:
    """For each crop, the mean answer of the folds, one of each run, that held it out; `load` opens their models.

    Raises ValueError where a run has none that did.
    """
    folds = {crop.name: [] for crop in crops}
    for run in runs:
        for path in sorted(run.glob("fold_*/model.onnx")):
            segment = load(path)
            for name in json.loads((path.parent / "split.json").read_text())["test"]:
                folds.get(name, []).append(segment)
    for name, segments in folds.items():
        if len(segments) != len(runs):
            raise ValueError(f"{len(segments)} folds of {len(runs)} runs held {name} out; expected one fold of each")
    return lambda crop: lambda volume: np.mean([segment(volume) for segment in folds[crop.name]], axis=0)


# --- fitting ----------------------------------------------------------------------------------------------------------


def fit_limits(
    crops: Sequence[Judged], model_sha256: str, answered: str = "", shrunken: Sequence[Judged] = ()
) -> Limits:
    """Limits from crops as they are and, for what is refused, from those whose hippocampus was made smaller.

    answered: by whom, in words, where not by the model itself.
    """
    template = mean_crop([one.crop.volume for one in crops])
    usual, smaller = (
        [measure_size(one.crop.volume) | measure_image(one.crop.volume, template) | one.output for one in judged]
        for judged in (crops, shrunken)
    )
    ranges = {
        measure.name: fit_range(measure, *([values[measure.name] for values in rows] for rows in (usual, smaller)))
        for measure in (*INPUT_MEASURES, *OUTPUT_MEASURES)
    }
    also = f", and {len(shrunken)} whose hippocampus was made smaller" if shrunken else ""
    return Limits(ranges, template, model_sha256, fitted_on=f"{len(crops)} crops{also}{answered}")


def mean_crop(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the normalised crops, laid over each other at their middles; as large as the median crop."""
    shape = tuple(int(size) for size in np.median([volume.shape for volume in volumes], axis=0))
    mean = np.mean([around_centre(normalise(volume), shape) for volume in volumes], axis=0)
    return (mean - mean.mean()) / mean.std()


def fit_range(measure: Measure, values: Sequence[float], smaller: Sequence[float] = ()) -> Range:
    """The limits of one measure, by the crops in which it could be measured. Raises ValueError where there are none.

    smaller: of crops whose hippocampus was made smaller. What is usual among these is doubted, but not refused.
    """
    factors = measure.name in LOGARITHMIC
    usable = _usable(values, factors)
    if not usable.size:
        raise ValueError(f"in none of the crops does the model find what {measure.name} needs: is it the right model?")
    low, high = np.quantile(usable, QUANTILES)
    distance = max(high - low, LEAST_DISTANCE.get(measure.name, 0))

    def ends(first: float, last: float) -> tuple[float | None, float | None]:
        first, last = (float(f"{np.exp(end) if factors else end:.4g}") for end in (first, last))
        return (first if measure.too_low else None, last if measure.too_high else None)

    source = f"{QUANTILES[0]:.0%} to {QUANTILES[1]:.0%} of {len(usable)} crops, widened by {FAIL_MARGIN:.0%} each way"
    warn = ends(low - WARN_MARGIN * distance, high + WARN_MARGIN * distance)
    widest = np.array([low - FAIL_MARGIN * distance, high + FAIL_MARGIN * distance])
    small = _usable(smaller, factors)
    if small.size:
        first, last = np.quantile(small, QUANTILES)
        if first < widest[0] or last > widest[1]:
            source += f", and of {len(small)} whose hippocampus was made smaller"
        widest = np.array([min(widest[0], first), max(widest[1], last)])
    fail = ends(*widest)
    if measure.name in FAIL_BELOW:
        least, source = FAIL_BELOW[measure.name]
        warn, fail = (max(warn[0], least), warn[1]), (least, fail[1])
    return Range(warn, fail, source)


def _usable(values: Sequence[float], factors: bool) -> np.ndarray:
    """Those that could be measured; their logarithms where margins are factors."""
    usable = np.array([value for value in values if np.isfinite(value) and (value > 0 or not factors)])
    return np.log(usable) if factors else usable


# --- evaluation -------------------------------------------------------------------------------------------------------

BRAIN_CROPS = 10  # from each brain series


@dataclass
class Tally:
    """How the checks judged the cases of one kind."""

    kind: str
    verdicts: Counter = field(default_factory=Counter)
    before_model: int = 0  # failed by the input checks already
    failed: Counter = field(default_factory=Counter)  # cases by check

    def add(self, checks: list[Check], before_model: bool) -> None:
        self.verdicts[worst(checks)] += 1
        self.before_model += before_model
        self.failed.update(check.name for check in checks if check.verdict == FAIL)

    @property
    def count(self) -> int:
        return sum(self.verdicts.values())

    def share(self, wanted: str) -> float:
        """Of the cases, how many got this verdict."""
        return self.verdicts[wanted] / self.count


def judge(volume: np.ndarray, segment: Segment, limits: Limits) -> tuple[list[Check], bool]:
    """The checks of one volume as the program makes them, and whether those before the model were enough to fail it."""
    checks = assess_input(volume, limits)
    if worst(checks) == FAIL:
        return checks, True
    return checks + assess_output(segment(volume), limits.model_sha256, limits), False


def limits_of_other_half(
    crops: Sequence[Judged], model_sha256: str, shrunken: Sequence[Judged] = ()
) -> Callable[[Crop], Limits]:
    """For each crop the limits fitted on the half of the persons that its person does not belong to."""
    persons = sorted({one.crop.person for one in crops})
    side = {person: number % 2 for number, person in enumerate(persons)}
    limits = []
    for half in (0, 1):
        usual, smaller = ([one for one in both if side[one.crop.person] != half] for both in (crops, shrunken))
        limits.append(fit_limits(usual, model_sha256, shrunken=smaller))
    return lambda crop: limits[side[crop.person]]


def tally_crops(
    crops: Sequence[Crop], segment_of: SegmentOf, limits_of: Callable[[Crop], Limits], kind: str = "as they are"
) -> Tally:
    """Judge crops that should get a number."""
    tally = Tally(kind)
    for crop in tqdm(crops, desc="judging", unit="crop", disable=None):
        tally.add(*judge(crop.volume, segment_of(crop), limits_of(crop)))
    return tally


def tally_nonsense(crops: Sequence[Crop], segment_of: SegmentOf, limits_of: Callable[[Crop], Limits]) -> list[Tally]:
    """Judge every kind of nonsense that can be made of crops."""
    tallies = []
    for kind, change in tqdm(NONSENSE.items(), desc="nonsense", unit="kind", disable=None):
        rng = np.random.default_rng(0)
        tally = Tally(kind)
        for crop in crops:
            volume = np.ascontiguousarray(change(crop.volume, rng), dtype=np.float32)
            tally.add(*judge(volume, segment_of(crop), limits_of(crop)))
        tallies.append(tally)
    return tallies


def tally_brains(brains: dict[str, list[np.ndarray]], segment: Segment, limits: Limits) -> list[Tally]:
    """Judge other anatomy, by the description of its series, and whole brains."""
    tallies = []
    for kind, volumes in _brain_cases(brains, limits.template.shape):
        tally = Tally(kind)
        for volume in volumes:
            tally.add(*judge(volume, segment, limits))
        tallies.append(tally)
    return tallies


def _brain_cases(
    brains: dict[str, list[np.ndarray]], shape: tuple[int, ...]
) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
    rng = np.random.default_rng(0)
    for description, volumes in brains.items():
        crops = (crop for brain in volumes for crop in islice(random_crops(brain, shape, rng), BRAIN_CROPS))
        yield f"{description}, anywhere", crops
    everything = [brain for volumes in brains.values() for brain in volumes]
    yield "whole brain series", iter(everything)
    yield "whole brain series, squeezed", (squeezed(brain, shape) for brain in everything)


def as_table(tallies: Sequence[Tally]) -> str:
    """A line for each kind: how many were refused, doubted and passed, and the checks that refused most of them."""
    lines = [f"{'kind':<30}{'n':>5}{'fail':>7}{'warn':>7}{'pass':>7}{'before':>9}   failed most often by"]
    for tally in tallies:
        shares = "".join(f"{tally.share(wanted):>7.1%}" for wanted in (FAIL, WARN, PASS))
        by = ", ".join(f"{name} {count}" for name, count in tally.failed.most_common(3))
        lines.append(f"{tally.kind:<30}{tally.count:>5}{shares}{tally.before_model / tally.count:>9.1%}   {by}")
    return "\n".join([*lines, "before: refused by the input checks, so that the model did not run"])


# --- command line -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description="Fit the limits of the quality checks on curated crops.")
    result.add_argument("--images", type=Path, default=DEFAULT_IMAGES, metavar="DIR", help="default: %(default)s")
    result.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="default: %(default)s")
    result.add_argument("--folds", type=Path, nargs="+", metavar="RUN", help="cross-validations of the model")
    result.add_argument("--shrunken", type=Path, metavar="DIR", help="of section 2's known_atrophy.py --save")
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


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        crops = read_crops(args.images)
        kinds = {kind.name: read_crops(kind) for kind in sorted(args.shrunken.iterdir())} if args.shrunken else {}
        agent = _load(args.model_path)
        segment, model = agent.single_volume_inference, agent.identity["sha256"]
        segment_of = held_out(args.folds, crops, _load_segment) if args.folds else lambda crop: segment

        def judged(several: Sequence[Crop]) -> list[Judged]:
            progress = tqdm(several, desc="segmenting", unit="crop", disable=None)
            return [Judged(crop, measure_output(segment_of(crop)(crop.volume))) for crop in progress]

        usual, shrunken = judged(crops), judged([crop for several in kinds.values() for crop in several])
        limits = fit_limits(usual, model, ", answered by models that had not seen them" if args.folds else "", shrunken)
        if args.evaluate:
            limits_of = limits_of_other_half(usual, model, shrunken)
            tallies = [tally_crops(crops, segment_of, limits_of)]
            tallies += [tally_crops(several, segment_of, limits_of, kind) for kind, several in kinds.items()]
            tallies += tally_nonsense(crops[:: args.every], segment_of, limits_of)
            if args.studies.is_dir():
                tallies += tally_brains(read_brains(args.studies), segment, limits)
            print(as_table(tallies))
        else:
            limits.save(args.model_path.parent)
            print(f"{len(limits.ranges)} limits fitted on {limits.fitted_on}, beside {args.model_path}")
    except (OSError, ValueError, Stop) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
