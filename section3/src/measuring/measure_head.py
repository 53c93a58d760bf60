"""A whole head to the measurement of both its hippocampi."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from common.refusal import Refusal
from common.stopwatch import Stopwatch
from common.structures import PARTS, SIDES
from common.verdicts import Check, failed
from common.volume import Grid, Volume
from measuring.head_quality import assess_border, assess_head, assess_side
from measuring.hippocrop import Localiser, Place, box_around, crop_grid
from measuring.measure_crop import get_predicted_volumes
from measuring.measurement import Hippocampus, Measurement
from measuring.resampling import resampled, to_source_grid, without_short_waves
from measuring.unet_inference_agent import UNetInferenceAgent

FINE = 0.95  # mm
NEAR = 3  # voxels around a hippocampus within which its border may lie
CUT = ("margin", "image_border")  # checks that say that a part of it is not seen


@dataclass(frozen=True, eq=False)
class MeasuredHead:
    """What was found in a head.

    place: where it lies. checks: of the head as a whole. hippocampi: left and right, on the boxes of the head's own
    grid that hold them; none where they were not looked at. refusal: why there is no number at all. No volume has an
    interval: that of the model was calibrated on crops of one centre.
    """

    place: Place
    checks: tuple[Check, ...]
    hippocampi: tuple[Hippocampus, ...] = ()
    refusal: Refusal | None = None


def measure_head(head: Volume, localiser: Localiser, agent: UNetInferenceAgent, stopwatch: Stopwatch) -> MeasuredHead:
    """Raises Refusal: nothing-found, where the localiser sees no brain."""
    with stopwatch.timed("localise"):
        place = localiser.find(head)
    checks = assess_head(place, head.grid.spacing)
    if bad := failed(checks):
        return MeasuredHead(place, tuple(checks), refusal=Refusal("unfit-input", bad[0].sentence))
    with stopwatch.timed("model"):
        hippocampi = tuple(_side(head, place, side, agent) for side in SIDES)
    refusals = [one.refusal for one in hippocampi]
    return MeasuredHead(place, tuple(checks), hippocampi, refusals[0] if all(refusals) else None)


def with_head(
    measurement: Measurement, localiser: Localiser, agent: UNetInferenceAgent, stopwatch: Stopwatch
) -> tuple[Measurement, MeasuredHead | None]:
    """The measurement with what its source shows, be it a refusal; and the head, None where there is no brain."""
    try:
        head = measure_head(measurement.source, localiser, agent, stopwatch)
    except Refusal as refusal:
        return replace(measurement, refusal=refusal), None
    checks = (*measurement.checks, *head.checks)
    return replace(measurement, hippocampi=head.hippocampi, checks=checks, refusal=head.refusal), head


def _side(head: Volume, place: Place, side: str, agent: UNetInferenceAgent) -> Hippocampus:
    """One may lie outside of the image, and the other be shown."""
    try:
        return _measure_side(head, place, side, agent)
    except Refusal as refusal:
        return Hippocampus(head.grid, refusal=refusal, side=side)


def _measure_side(head: Volume, place: Place, side: str, agent: UNetInferenceAgent) -> Hippocampus:
    grid = crop_grid(place, side)
    own, box = box_around(grid, head.grid)
    crop = cut(head, grid)
    probabilities = _in_one_piece(agent.single_volume_inference(crop))
    mirrored = agent.single_volume_inference(crop[::-1])
    labels, chance = to_source_grid(probabilities, grid, own)
    checks = (*assess_side(probabilities, mirrored), assess_border(labels, box, head.grid))
    if not all((labels == part.labels[0]).any() for part in PARTS):
        nothing = Refusal("nothing-found", "the model finds no hippocampus with both parts")
        return Hippocampus(own, checks, refusal=nothing, side=side, box=box)
    if bad := failed(checks):
        code = "structure-cut" if bad[0].name in CUT else "implausible-result"
        return Hippocampus(own, checks, refusal=Refusal(code, bad[0].sentence), cause=bad[0], side=side, box=box)
    return Hippocampus(own, checks, labels, get_predicted_volumes(labels, own), side=side, box=box, chance=chance)


def cut(head: Volume, grid: Grid) -> np.ndarray:
    """The head's voxels on a crop's grid; of finer ones without what that cannot hold. Raises Refusal."""
    own, box = box_around(grid, head.grid)
    around = Volume(head.voxels[box], own)
    voxels = without_short_waves(around) if max(own.spacing) < FINE else around.voxels
    return resampled(voxels, grid.indices_to(own), grid.shape)


def _in_one_piece(probabilities: np.ndarray) -> np.ndarray:
    """Without what lies away from the largest piece: in a wide crop it is another structure, or a shade of one."""
    from scipy import ndimage

    pieces, count = ndimage.label(probabilities.argmax(axis=0))
    if not count:
        return probabilities
    largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    away = ~ndimage.binary_dilation(largest, iterations=NEAR)
    away |= (pieces > 0) & ~largest
    kept = probabilities.copy()
    kept[:, away] = np.array([1, 0, 0], probabilities.dtype)[:, None]
    return kept
