"""The localiser: its template, the images it learns from, a few steps of training, and the file that is made of it."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import export_localiser
import train_localiser
from export_localiser import averaged_net, export, make_card, onnxruntime
from head_template import LABELS, MNI, PAIRS, HeadLabels, affine_onto, move, similarity_onto
from localiser_net import SCALE, LocaliserNet, coarse_mm
from synthetic_heads import COARSE, VOXEL, WINDOW, load_heads, normalised, samples
from train_localiser import as_tensors, losses

LEFT, RIGHT = 17, 53


def label_map(seed: int) -> nib.Nifti1Image:
    """A head of balls: scalp, brain, and each structure where MNI has it or somewhere of its own, in 4 mm voxels."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(1)
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -112 + rng.normal(0, 3, 3)
    mm = np.stack(np.meshgrid(*[np.arange(56)] * 3, indexing="ij"), -1) * 4 + affine[:3, 3]
    size = rng.uniform(0.95, 1.05, 3)
    labels = np.zeros((56,) * 3, np.int16)
    labels[np.linalg.norm(mm / (size * (80, 95, 85)), axis=-1) < 1] = 515
    labels[np.linalg.norm(mm / (size * (68, 82, 72)), axis=-1) < 1] = 3
    for left, right in PAIRS:
        x, y, z = MNI.get(left, (-places.uniform(30, 50), *places.uniform(-40, 40, 2)))
        for label, side in ((left, 1), (right, -1)):
            if label not in (3, 42):
                labels[np.linalg.norm(mm - size * (side * x, y, z), axis=-1) < 7] = label
    return nib.Nifti1Image(labels, affine)


@pytest.fixture(autouse=True)
def threads():
    """As many as before: the program takes one, and with another number sums come out otherwise in later tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label_maps")
    for seed in range(3):
        nib.save(label_map(seed), folder / f"head{seed}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def heads(label_maps):
    return load_heads(label_maps)


# --- the template -----------------------------------------------------------------------------------------------------


def test_middles_are_those_of_the_labels(label_maps):
    head = HeadLabels.load(label_maps / "head0.nii.gz")
    found = dict(zip(LABELS, head.middles(), strict=True))
    for label in (LEFT, RIGHT, 10):
        index = np.argwhere(head.labels == label).mean(0)
        np.testing.assert_allclose(found[label], move(head.affine, index))
    assert np.isnan(found[42]).all()  # it has none


def test_the_template_is_symmetric_and_lies_as_mni_does(heads):
    _, template = heads
    np.testing.assert_allclose(template.middle(LEFT) * (-1, 1, 1), template.middle(RIGHT), atol=1e-9)
    for label, place in MNI.items():
        assert np.linalg.norm(template.middle(label) - place) < 6


def test_every_head_is_moved_near_to_the_template_and_never_mirrored(heads, label_maps):
    _, template = heads
    for path in label_maps.iterdir():
        middles = HeadLabels.load(path).middles()
        affine = template.affine_of(middles)
        assert np.linalg.det(affine[:3, :3]) > 0.5
        assert np.nanmax(np.linalg.norm(move(affine, middles) - template.points, axis=1)) < 8


def test_a_similarity_is_found_again_and_never_mirrors():
    points = np.random.default_rng(0).normal(0, 30, (10, 3))
    turn = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix()
    found = similarity_onto(points, 1.2 * points @ turn.T + (1, 2, 3))
    np.testing.assert_allclose(found[:3], np.c_[1.2 * turn, (1, 2, 3)], atol=1e-9)
    assert np.linalg.det(similarity_onto(points, points * (-1, 1, 1))[:3, :3]) > 0


def test_an_affine_is_found_again_without_what_is_not_known():
    points = np.random.default_rng(0).normal(0, 30, (10, 3))
    matrix = np.array([[1.1, 0.1, 0], [0, 0.9, 0.2], [0, 0, 1]])
    targets = points @ matrix.T + 5
    targets[3] = np.nan
    np.testing.assert_allclose(affine_onto(points, targets)[:3], np.c_[matrix, [5] * 3], atol=1e-9)


# --- images -----------------------------------------------------------------------------------------------------------


def test_the_answer_belongs_to_the_image(heads):
    """Where the pose puts the hippocampi, the template has them, whatever pose, cut and contrast."""
    all_heads, template = heads
    drawn = samples(all_heads, seed=0)
    for _ in range(8):
        one = next(drawn)
        assert one.image.shape == (WINDOW,) * 3 and one.brain.shape == (WINDOW // COARSE,) * 3
        assert np.isfinite(one.image).all() and one.image.min() >= 0 and one.image.max() <= 1.5
        assert np.linalg.det(one.pose[:3, :3]) > 0
        for middle, label in zip(one.hippocampi, (LEFT, RIGHT), strict=True):
            if np.isfinite(middle).all():
                assert np.linalg.norm(move(one.pose, middle) - template.middle(label)) < 15
        index = np.argwhere(one.brain > 0.5).mean(0)
        middle = (index + 0.5) * VOXEL * COARSE - WINDOW * VOXEL / 2
        assert np.linalg.norm(move(one.pose, middle)) < 30


def test_no_two_images_are_the_same_and_a_seed_repeats_them(heads):
    first, again = samples(heads[0], seed=3), samples(heads[0], seed=3)
    images = [next(first).image for _ in range(3)]
    assert all(not np.array_equal(images[0], one) for one in images[1:])
    np.testing.assert_array_equal(images[0], next(again).image)


@pytest.mark.parametrize("scale", [1, 1000])
def test_the_scale_of_grey_does_not_matter(scale):
    image = np.random.default_rng(0).random((8, 8, 8))
    np.testing.assert_allclose(normalised(image * scale), normalised(image), rtol=1e-5)
    assert normalised(np.zeros((4, 4, 4))).max() == 0


# --- the network, its training and its file ---------------------------------------------------------------------------


def test_a_perfect_answer_has_no_loss(heads):
    batch = [one[None] for one in as_tensors(next(samples(heads[0], seed=1)))]
    mm = coarse_mm()
    _, brain, pose, hippocampi = batch
    answer = torch.zeros(1, 10, *mm.shape[1:])
    answer[:, :1] = torch.logit(brain.clamp(1e-6, 1 - 1e-6))
    answer[:, 1:4] = (torch.einsum("bij,jxyz->bixyz", pose[:, :, :3], mm) + pose[:, :, 3, None, None, None]) / SCALE
    for side in range(2):
        answer[:, 4 + 3 * side : 7 + 3 * side] = (hippocampi[:, side, :, None, None, None] - mm) / SCALE
    whole = torch.cat([pose[:, :, :3], pose[:, :, 3:] / SCALE], 2)

    class Perfect:
        def with_pose(self, image):
            return answer, whole

    found = losses(Perfect(), batch, mm)
    for name in ("point", "whole", "way"):
        assert float(found[name]) == pytest.approx(0, abs=1e-4)


@pytest.mark.slow
def test_training_goes_on_where_it_was_stopped_and_learns(label_maps, tmp_path):
    run = tmp_path / "run"
    options = [
        "--label-maps",
        str(label_maps),
        "--out",
        str(run),
        "--batch-size",
        "2",
        "--filters",
        "8",
        "--workers",
        "0",
    ]
    assert train_localiser.main([*options, "--steps", "50"]) == 0
    assert averaged_net(run)[1] == 50
    assert train_localiser.main([*options, "--steps", "50"]) == 0  # nothing is left to do
    with (run / "losses.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "50" and 0 < float(row["point"]) < 60

    assert export_localiser.main([str(run), "--label-maps", str(label_maps)]) == 0
    session = onnxruntime.InferenceSession(run / "localiser.onnx", providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
    assert card["training"]["steps"] == 50
    left, right = (np.array(card["hippocampi_mm"][side]) for side in ("left", "right"))
    np.testing.assert_allclose(left * (-1, 1, 1), right)
    assert str(tmp_path).encode() not in (run / "localiser.onnx").read_bytes()


@pytest.mark.slow
def test_the_file_gives_what_the_network_gives(heads, label_maps, tmp_path):
    net = LocaliserNet(8).eval()
    export(net, tmp_path / "localiser.onnx", make_card(heads[1], label_maps, 0))
    session = onnxruntime.InferenceSession(tmp_path / "localiser.onnx", providers=["CPUExecutionProvider"])
    window = next(samples(heads[0], seed=5)).image
    (found,) = session.run(None, {"window": window})
    with torch.no_grad():
        np.testing.assert_allclose(
            found, net(torch.from_numpy(window)[None, None])[0].numpy(), atol=export_localiser.TOLERANCE
        )


def test_a_folder_without_label_maps_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no label maps"):
        load_heads(tmp_path)
