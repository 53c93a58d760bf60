"""One crop around a hippocampus to its measurement."""

import numpy as np

from checks.quality import (
    assess_handedness,
    assess_input,
    assess_output,
    assess_spacing,
    cause,
    is_cut,
    nothing_checked,
)
from checks.quality_limits import Limits
from checks.quality_measures import measure_output
from common.refusal import Refusal
from common.stopwatch import Stopwatch
from common.structures import PARTS, WHOLE
from common.verdicts import Check, failed
from common.volume import Grid, Volume
from measuring.measurement import Hippocampus
from measuring.resampling import to_model_grid, to_source_grid
from measuring.unet_inference_agent import UNetInferenceAgent

AS_IT_LIES, MIRRORED = 1, -1  # steps from side to side


def measure_crop(
    source: Volume, agent: UNetInferenceAgent, limits: Limits | None, stopwatch: Stopwatch, side: str | None = None
) -> Hippocampus:
    """Segment and measure a crop; refused where its number must not be shown.

    The model knows hippocampi that look like a left one in RAS. A crop that looks like a right one, be it that or
    written mirrored, is measured as its mirror image: that has the same volume.
    """
    crop = to_model_grid(source)
    with stopwatch.timed("quality"):
        hand, checks = _hand(crop, source, limits)
    if failed(checks):
        return _refused(source.grid, side, checks, "unfit-input", limits)

    with stopwatch.timed("model"):
        answers = {step: agent.single_volume_inference(crop.voxels[::step]) for step in (AS_IT_LIES, MIRRORED)}
    values = {step: measure_output(answer) for step, answer in answers.items()}
    if limits is None:
        hand = max(answers, key=lambda step: np.nan_to_num(values[step]["confidence"]))
    probabilities = answers[hand]
    labels, chance = to_source_grid(probabilities[:, ::hand], crop.grid, source.grid)
    if not all((labels == part.labels[0]).any() for part in PARTS):
        nothing = Refusal("nothing-found", "the model finds no hippocampus with both parts")
        return Hippocampus(source.grid, tuple(checks), refusal=nothing, side=side)

    with stopwatch.timed("quality"):
        found = _assess_answer(probabilities, values[hand], values[-hand], agent, limits) if limits else []
    checks += found
    if failed(found):
        cut = is_cut(found)
        return _refused(source.grid, side, checks, "structure-cut" if cut else "implausible-result", limits)
    volumes = get_predicted_volumes(labels, source.grid)
    intervals = agent.volume_intervals(volumes)
    return Hippocampus(source.grid, tuple(checks), labels, volumes, intervals, side=side, chance=chance)


def _hand(crop: Volume, source: Volume, limits: Limits | None) -> tuple[int, list[Check]]:
    """Which way round the crop fits, and its checks that way; as it lies where it fits neither way."""
    first = [assess_spacing(source.grid.spacing)]
    if limits is None:
        return AS_IT_LIES, [*first, nothing_checked()]
    checks = assess_input(crop.voxels, limits, source.voxels)
    if failed(checks):
        others = assess_input(crop.voxels[::MIRRORED], limits, source.voxels)
        if not failed(others):
            return MIRRORED, first + others
    return AS_IT_LIES, first + checks


def _assess_answer(
    probabilities: np.ndarray,
    values: dict[str, float],
    mirrored: dict[str, float],
    agent: UNetInferenceAgent,
    limits: Limits,
) -> list[Check]:
    return [assess_handedness(values, mirrored), *assess_output(probabilities, agent.identity["sha256"], limits)]


def _refused(grid: Grid, side: str | None, checks: list[Check], code: str, limits: Limits) -> Hippocampus:
    why = cause(checks, limits)
    return Hippocampus(grid, tuple(checks), refusal=Refusal(code, why.sentence), cause=why, side=side)


def get_predicted_volumes(labels: np.ndarray, grid: Grid) -> dict[str, float]:
    """Volumes in mm3 by the key of the structure, from labels [X, Y, Z] on their grid."""
    volumes = {part.key: int((labels == part.labels[0]).sum()) * grid.voxel_mm3 for part in PARTS}
    return {**volumes, WHOLE.key: sum(volumes.values())}
