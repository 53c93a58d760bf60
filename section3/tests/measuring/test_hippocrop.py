"""Where a head and its hippocampi lie, whatever its pose and grid; left stays left. The head is a painted one."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform, zoom
from scipy.spatial.transform import Rotation

from common.refusal import Failure, Refusal
from common.shipped import DEFAULT_LOCALISER, DEFAULT_MODEL
from common.stopwatch import Stopwatch
from common.volume import Grid, Volume
from measuring.hippocrop import CROP, LEFT, RIGHT, SIDES, Localiser, box_around, crop_grid
from measuring.measure_head import measure_head
from measuring.unet_inference_agent import UNetInferenceAgent

DEMO = Path(__file__).resolve().parents[3] / "data" / "demo_head.nii.gz"
# As data/make_demo_head.py tells them, of the label map that the head was painted from.
MIDDLES = {LEFT: (-16.4, 12.9, 4.2), RIGHT: (32.0, 15.7, 5.3)}


@pytest.fixture(scope="module")
def localiser() -> Localiser:
    return Localiser(DEFAULT_LOCALISER, 2)


@pytest.fixture(scope="module")
def agent() -> UNetInferenceAgent:
    return UNetInferenceAgent(DEFAULT_MODEL, 2)


@pytest.fixture(scope="module")
def head() -> Volume:
    image = nib.as_closest_canonical(nib.load(DEMO))
    return Volume(np.asarray(image.dataobj, np.float32), Grid(image.shape, image.affine))


@pytest.fixture
def volumes(localiser, agent):
    """volumes(head): the total of each side in mm3, of those that have one."""

    def measure(head: Volume) -> dict[str, float]:
        measured = measure_head(head, localiser, agent, Stopwatch())
        assert measured.refusal is None, measured.refusal
        return {one.side: one.volumes_mm3["total"] for one in measured.hippocampi if one.volumes_mm3}

    return measure


@pytest.fixture(scope="module")
def own(localiser, agent, head) -> dict[str, float]:
    measured = measure_head(head, localiser, agent, Stopwatch())
    return {one.side: one.volumes_mm3["total"] for one in measured.hippocampi}


def turned(head: Volume, axis: str, degrees: float) -> Volume:
    """As if the head had been turned about its middle before it was scanned."""
    size = np.array(head.grid.shape) + 30
    middle = head.grid.affine @ [*(np.array(head.grid.shape) - 1) / 2, 1]
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    turn[:3, 3] = middle[:3] - turn[:3, :3] @ middle[:3]
    affine = np.eye(4)
    affine[:3, 3] = middle[:3] - (size - 1) / 2
    to_head = np.linalg.inv(head.grid.affine) @ np.linalg.inv(turn) @ affine
    return Volume(affine_transform(head.voxels, to_head, output_shape=tuple(size), order=3), Grid(tuple(size), affine))


def mirrored(head: Volume) -> Volume:
    """The mirror image of a person, on a grid of the same directions."""
    affine = head.grid.affine.copy()
    affine[0, 3] = -(affine[0, 0] * (head.grid.shape[0] - 1) + affine[0, 3])
    return Volume(head.voxels[::-1].copy(), Grid(head.grid.shape, affine))


def test_both_hippocampi_are_found_where_they_are(localiser, head):
    place = localiser.find(head)
    for side, middle in MIDDLES.items():
        assert np.linalg.norm(place.middles[side] - middle) < 8
    assert np.linalg.det(place.rotation) == pytest.approx(1)
    assert 1000 < place.brain_ml < 2000


@pytest.mark.parametrize("side", SIDES)
def test_a_crop_is_of_1_mm_and_the_right_one_is_mirrored(localiser, head, side):
    grid = crop_grid(localiser.find(head), side)
    assert grid.shape == CROP and grid.spacing == pytest.approx((1, 1, 1))
    assert np.linalg.det(grid.affine[:3, :3]) == pytest.approx(-1 if side == RIGHT else 1)
    own, box = box_around(grid, head.grid)
    assert head.voxels[box].shape == own.shape
    np.testing.assert_allclose(own.affine[:3, 3], head.grid.affine @ [*(one.start for one in box), 1] @ np.eye(4, 3))


def test_a_mirror_image_changes_sides(own, head, volumes):
    found = volumes(mirrored(head))
    assert found[LEFT] == pytest.approx(own[RIGHT], rel=0.02)
    assert found[RIGHT] == pytest.approx(own[LEFT], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "degrees"), [("x", 10), ("y", -10), ("z", 10), ("x", -25)])
def test_a_head_that_is_turned_has_the_same_volumes(own, head, volumes, axis, degrees):
    for side, volume in volumes(turned(head, axis, degrees)).items():
        assert volume == pytest.approx(own[side], rel=0.025)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axis", "degrees"), [("x", 45), ("y", 45), ("z", -45), ("x", 90), ("y", 90), ("z", 90), ("y", 180)]
)
def test_a_head_that_lies_anyhow_is_measured_or_refused_and_never_wrong(own, head, localiser, agent, axis, degrees):
    try:
        measured = measure_head(turned(head, axis, degrees), localiser, agent, Stopwatch())
    except Refusal:
        return
    for one in measured.hippocampi:
        assert one.refusal or one.volumes_mm3["total"] == pytest.approx(own[one.side], rel=0.1)


@pytest.mark.slow
def test_a_finer_grid_gives_the_same_volumes(own, head, volumes):
    voxels = zoom(head.voxels, 1.25, order=3, grid_mode=True, mode="nearest")
    fine = Volume(voxels, Grid(voxels.shape, _finer(head.grid, 1.25)))
    for side, volume in volumes(fine).items():
        assert volume == pytest.approx(own[side], rel=0.015)


def _finer(grid: Grid, factor: float) -> np.ndarray:
    """The affine of a grid of so much smaller voxels that fills the same space."""
    affine = grid.affine.copy()
    affine[:3, :3] /= factor
    affine[:3, 3] += (affine[:3, :3] - grid.affine[:3, :3]) @ np.full(3, 0.5)
    return affine


def test_half_a_head_gets_no_number_where_nothing_is(head, localiser, agent):
    half = head.voxels.copy()
    half[half.shape[0] // 2 :] = 0
    try:
        measured = measure_head(Volume(half, head.grid), localiser, agent, Stopwatch())
    except Refusal:
        return
    assert measured.refusal or measured.hippocampi[1].refusal


@pytest.mark.parametrize("make", [np.zeros_like, lambda one: np.random.default_rng(0).random(one.shape, np.float32)])
def test_what_is_no_head_gets_no_number(head, localiser, agent, make):
    try:
        measured = measure_head(Volume(make(head.voxels), head.grid), localiser, agent, Stopwatch())
    except Refusal as refusal:
        assert refusal.code == "nothing-found"
        return
    assert measured.refusal or all(one.refusal for one in measured.hippocampi)


def test_a_head_of_another_contrast_gets_no_number(head, localiser, agent):
    dark = np.where(head.voxels > 3, 140 - head.voxels, 0).clip(0)
    try:
        measured = measure_head(Volume(dark, head.grid), localiser, agent, Stopwatch())
    except Refusal:
        return
    assert measured.refusal or all(one.refusal for one in measured.hippocampi)


def test_a_file_that_is_no_localiser_is_told(tmp_path):
    (tmp_path / "localiser.onnx").write_bytes(b"no model")
    for path in (tmp_path / "localiser.onnx", tmp_path / "none.onnx", DEFAULT_MODEL):
        with pytest.raises(Failure) as failure:
            Localiser(path)
        assert failure.value.code == "bad-model"
