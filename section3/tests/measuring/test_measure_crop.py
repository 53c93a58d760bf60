"""From a volume to its numbers, or to why it has none, with a model whose answer is known."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import measuring
from checks.quality_catalogue import IMAGE_MEASURES, OUTPUT_MEASURES, SIZE_MEASURES
from common.stopwatch import Stopwatch
from common.structures import ANTERIOR, POSTERIOR
from common.verdicts import FAIL, PASS, WARN
from common.volume import Grid, Volume
from measuring.measure_crop import get_predicted_volumes, measure_crop
from measuring.measurement import Hippocampus
from measuring.unet_inference_agent import UNetInferenceAgent

ROOM = Path(measuring.__file__).parent
DEFAULT_MODEL = ROOM.parents[1] / "model" / "model.onnx"
SIZES, IMAGE = ([measure.name for measure in measures] for measures in (SIZE_MEASURES, IMAGE_MEASURES))
INPUT_CHECKS = ["voxel_size", *SIZES, "slices_alike", "blank_edges", *IMAGE]
OUTPUT_CHECKS = ["handedness", *(measure.name for measure in OUTPUT_MEASURES)]


class Agent:
    """Has one answer, counts how often it is asked, and takes a tenth of a volume for the width of its interval."""

    def __init__(self, probabilities: np.ndarray | None = None, sha256: str = "0" * 64):
        self.identity = {"name": "known", "version": "1", "sha256": sha256}
        self.probabilities, self.asked = probabilities, 0

    def single_volume_inference(self, volume: np.ndarray) -> np.ndarray:
        self.asked += 1
        assert volume.shape == self.probabilities.shape[1:]
        return self.probabilities

    def volume_intervals(self, volumes_mm3: dict[str, float]) -> dict[str, list[float]]:
        return {name: [0.9 * volume, 1.1 * volume] for name, volume in volumes_mm3.items()}


def _volume(voxels: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> Volume:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = 7, -20, 3
    return Volume(voxels.astype(np.float32), Grid(voxels.shape, affine))


def _assert_refused(found: Hippocampus, source: Volume, code: str) -> None:
    assert found.grid is source.grid
    assert (found.labels, found.volumes_mm3, found.intervals_mm3) == (None, None, None)
    assert found.refusal.code == code
    assert found.refusal.reason


def test_a_crop_is_measured(phantom, good_answer, limits):
    source, probabilities, stopwatch = _volume(phantom.image), good_answer(phantom.labels), Stopwatch()
    found = measure_crop(source, Agent(probabilities), limits, stopwatch)
    assert found.refusal is None
    assert found.grid is source.grid
    assert found.labels.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, probabilities.argmax(axis=0))
    counts = [int((found.labels == label).sum()) for label in (ANTERIOR, POSTERIOR)]
    assert found.volumes_mm3 == {"anterior": counts[0], "posterior": counts[1], "total": sum(counts)}
    assert found.intervals_mm3["total"] == pytest.approx([0.9 * sum(counts), 1.1 * sum(counts)])
    assert [check.name for check in found.checks] == INPUT_CHECKS + OUTPUT_CHECKS
    assert FAIL not in {check.verdict for check in found.checks}
    assert found.side is None
    assert set(stopwatch.seconds) == {"quality", "model"}


def test_a_crop_of_the_other_side_is_measured_as_its_mirror_image(phantom, limits):
    """By the shipped model, which is surer of a left hippocampus."""
    agent = UNetInferenceAgent(DEFAULT_MODEL)
    limits = replace(limits, model_sha256=agent.identity["sha256"])
    as_it_lies = measure_crop(_volume(phantom.image), agent, limits, Stopwatch())
    mirrored = measure_crop(_volume(phantom.image[::-1]), agent, limits, Stopwatch())
    assert as_it_lies.volumes_mm3 and mirrored.volumes_mm3 == as_it_lies.volumes_mm3
    np.testing.assert_array_equal(mirrored.labels, as_it_lies.labels[::-1])
    assert mirrored.checks == as_it_lies.checks
    without = measure_crop(_volume(phantom.image[::-1]), agent, None, Stopwatch())
    np.testing.assert_array_equal(without.labels, mirrored.labels)


def test_a_crop_that_fits_one_way_and_is_surer_the_other_is_refused(phantom, good_answer, limits):
    class Contrary(Agent):
        def single_volume_inference(self, volume: np.ndarray) -> np.ndarray:
            self.asked += 1
            unsure = 0.9 * self.probabilities + 0.1 / 3
            return unsure if self.asked == 1 else self.probabilities

    found = measure_crop(_volume(phantom.image), Contrary(good_answer(phantom.labels)), limits, Stopwatch())
    assert found.refusal.code == "implausible-result" and found.cause.name == "handedness"


def test_a_side_that_is_known_is_handed_on(phantom, good_answer, limits):
    measured = measure_crop(
        _volume(phantom.image), Agent(good_answer(phantom.labels)), limits, Stopwatch(), side="left"
    )
    refused = measure_crop(_volume(phantom.image[:, ::-1]), Agent(), limits, Stopwatch(), side="right")
    assert (measured.side, refused.side) == ("left", "right")


def _with_slice(change: Callable[[np.ndarray], object], axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """What replaces the middle slice across `axis` by what `change` makes of it."""

    def spoil(image: np.ndarray) -> np.ndarray:
        image = image.copy()
        planes = np.moveaxis(image, axis, 0)
        planes[len(planes) // 2] = change(planes[len(planes) // 2])
        return image

    return spoil


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda image: image[:, ::-1], "mirrored or turned"),
        (lambda image: image[:, ::-1, ::-1], "mirrored or turned"),
        (lambda image: image.max() - image, "dark and bright look reversed"),
        (np.zeros_like, "holds next to no information"),
        (lambda image: image[8:-8], "too tight"),
        *((_with_slice(np.mean, axis), "a slice is blank") for axis in range(3)),
        *((_with_slice(np.random.default_rng(0).permuted, axis), "a slice is blank") for axis in range(3)),
    ],
)
def test_what_is_no_crop_is_refused_for_its_one_cause_before_the_model_is_asked(spoil, cause, phantom, limits):
    source, agent = _volume(spoil(phantom.image)), Agent()
    found = measure_crop(source, agent, limits, Stopwatch())
    _assert_refused(found, source, "unfit-input")
    assert agent.asked == 0
    assert cause in found.refusal.reason[0].lower() + found.refusal.reason[1:]
    assert [check.name for check in found.checks] == INPUT_CHECKS[: len(found.checks)]
    assert found.refusal.reason in [check.sentence for check in found.checks if check.verdict == FAIL]


@pytest.mark.parametrize("axis", range(3))
def test_a_masked_edge_is_a_warning(axis, phantom, good_answer, limits):
    image = phantom.image.copy()
    np.moveaxis(image, axis, 0)[-2:] = 0
    found = measure_crop(_volume(image), Agent(good_answer(phantom.labels)), limits, Stopwatch())
    assert {check.name: check.verdict for check in found.checks}["blank_edges"] == WARN


def test_a_crop_of_the_wrong_size_is_looked_at_no_closer(limits):
    found = measure_crop(_volume(np.zeros((90, 90, 90))), Agent(), limits, Stopwatch())
    assert [check.name for check in found.checks] == ["voxel_size", *SIZES]


SPOILED: list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = [
    ("implausible-result", "forward", lambda labels: np.choose(labels, (0, POSTERIOR, ANTERIOR))),
    ("implausible-result", "total", lambda labels: ndimage.maximum_filter(labels, 3)),
    ("structure-cut", "margin", lambda labels: np.roll(labels, -np.flatnonzero(labels.any(axis=(1, 2)))[0], axis=0)),
]


@pytest.mark.parametrize(("code", "name", "spoil"), SPOILED)
def test_an_answer_that_is_no_hippocampus_is_refused(code, name, spoil, phantom, good_answer, limits):
    source, agent = _volume(phantom.image), Agent(good_answer(spoil(phantom.labels)))
    found = measure_crop(source, agent, limits, Stopwatch())
    _assert_refused(found, source, code)
    assert agent.asked == 2  # of the crop and of its mirror image
    assert [check.name for check in found.checks] == INPUT_CHECKS + OUTPUT_CHECKS
    failed = {check.name: check.sentence for check in found.checks if check.verdict == FAIL}
    assert found.refusal.reason == failed[name]
    assert (found.cause.name, found.cause.sentence) == (name, failed[name])


@pytest.mark.parametrize("present", [(), (ANTERIOR,), (POSTERIOR,)])
@pytest.mark.parametrize("has_limits", [True, False])
def test_without_both_parts_nothing_is_found(present, has_limits, phantom, good_answer, limits):
    labels = np.where(np.isin(phantom.labels, present), phantom.labels, 0)
    source = _volume(phantom.image)
    found = measure_crop(source, Agent(good_answer(labels)), limits if has_limits else None, Stopwatch())
    _assert_refused(found, source, "nothing-found")
    assert [check.name for check in found.checks] == (INPUT_CHECKS if has_limits else ["voxel_size", "model"])


def test_without_limits_the_number_comes_with_a_warning(blocks, threshold_model):
    found = measure_crop(_volume(blocks), UNetInferenceAgent(threshold_model), None, Stopwatch())
    assert found.volumes_mm3 == {"anterior": 120, "posterior": 168, "total": 288}
    assert found.intervals_mm3 is None
    assert [(check.name, check.verdict) for check in found.checks] == [("voxel_size", PASS), ("model", WARN)]


def test_the_limits_of_another_model_are_a_warning(phantom, good_answer, limits):
    agent = Agent(good_answer(phantom.labels), sha256="f" * 64)
    found = measure_crop(_volume(phantom.image), agent, limits, Stopwatch())
    assert found.volumes_mm3
    assert (found.checks[-1].name, found.checks[-1].verdict) == ("model", WARN)


def test_coarse_voxels_are_measured_in_mm3_and_doubted(threshold_model, blocks):
    source = _volume(blocks[:, :, ::2], (1, 1, 2))
    found = measure_crop(source, UNetInferenceAgent(threshold_model), None, Stopwatch())
    assert found.labels.shape == source.grid.shape
    assert found.volumes_mm3["total"] == 2 * np.count_nonzero(found.labels)
    assert found.volumes_mm3["total"] == pytest.approx(288, rel=0.15)
    assert (found.checks[0].name, found.checks[0].verdict) == ("voxel_size", WARN)


def test_volumes_are_counted_on_their_own_grid():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[0, 0, :3], labels[1, :, 1] = ANTERIOR, POSTERIOR
    turned = np.array([[0, -0.5, 0, 1], [2, 0, 0, 2], [0, 0, 1.5, 3], [0, 0, 0, 1]])  # voxels of 2 x 0.5 x 1.5 mm
    assert get_predicted_volumes(labels, Grid(labels.shape, turned)) == {
        "anterior": 3 * 1.5,
        "posterior": 5 * 1.5,
        "total": 8 * 1.5,
    }
    nothing = get_predicted_volumes(np.zeros_like(labels), Grid(labels.shape, turned))
    assert nothing == {"anterior": 0, "posterior": 0, "total": 0}


def test_measuring_knows_no_word_of_dicom():
    modules = sorted(f"measuring.{path.stem}" for path in ROOM.glob("*.py") if path.stem != "__init__")
    assert "measuring.measure_crop" in modules
    source = f"import sys; sys.path.insert(0, {str(ROOM.parent)!r}); import {', '.join(modules)}; "
    source += "assert not {'pydicom', 'reading', 'objects'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True)
