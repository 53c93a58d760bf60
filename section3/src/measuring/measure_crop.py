"""One crop around a hippocampus to its measurement."""

import numpy as np

from common.refusal import Refusal
from common.stopwatch import Stopwatch
from common.structures import PARTS, WHOLE
from common.verdicts import Check, failed
from common.volume import Grid, Volume
from measuring.measurement import Hippocampus
from measuring.quality import assess_input, assess_output, assess_spacing, cause, is_cut, nothing_checked
from measuring.quality_limits import Limits
from measuring.resampling import to_model_grid, to_source_grid
from measuring.unet_inference_agent import UNetInferenceAgent


def measure_crop(
    source: Volume, agent: UNetInferenceAgent, limits: Limits | None, stopwatch: Stopwatch, side: str | None = None
) -> Hippocampus:
    """Segment and measure a crop; refused where its number must not be shown."""
    crop = to_model_grid(source)
    with stopwatch.timed("quality"):
        checks = [
            assess_spacing(source.grid.spacing),
            *(assess_input(crop.voxels, limits, source.voxels) if limits else [nothing_checked()]),
        ]
    if failed(checks):
        return _refused(source.grid, side, checks, "unfit-input", limits)

    with stopwatch.timed("model"):
        probabilities = agent.single_volume_inference(crop.voxels)
        labels = to_source_grid(probabilities, crop.grid, source.grid)
    if not all((labels == part.labels[0]).any() for part in PARTS):
        nothing = Refusal("nothing-found", "the model finds no hippocampus with both parts")
        return Hippocampus(source.grid, tuple(checks), refusal=nothing, side=side)

    with stopwatch.timed("quality"):
        answers = assess_output(probabilities, agent.identity["sha256"], limits) if limits else []
    checks += answers
    if failed(answers):
        cut = is_cut(answers)
        return _refused(source.grid, side, checks, "structure-cut" if cut else "implausible-result", limits)
    volumes = get_predicted_volumes(labels, source.grid)
    return Hippocampus(source.grid, tuple(checks), labels, volumes, agent.volume_intervals(volumes), side=side)


def _refused(grid: Grid, side: str | None, checks: list[Check], code: str, limits: Limits) -> Hippocampus:
    why = cause(checks, limits)
    return Hippocampus(grid, tuple(checks), refusal=Refusal(code, why.sentence), cause=why, side=side)


def get_predicted_volumes(labels: np.ndarray, grid: Grid) -> dict[str, float]:
    """Volumes in mm3 by the key of the structure, from labels [X, Y, Z] on their grid."""
    volumes = {part.key: int((labels == part.labels[0]).sum()) * grid.voxel_mm3 for part in PARTS}
    return {**volumes, WHOLE.key: sum(volumes.values())}
