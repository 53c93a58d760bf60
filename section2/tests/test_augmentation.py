import pytest
import torch

import augmentation
from config import Config

SIZE = (32, 40, 24)
STILL = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "elastic": 0.0}


def block() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros((4, *SIZE), dtype=torch.uint8)
    labels[:, 10:22, 20:30, 8:18] = 1
    labels[:, 10:22, 10:20, 8:18] = 2
    return labels.float(), labels  # the image shows the label itself


def test_labels_move_with_the_image():
    image, labels = augmentation.random_geometry(*block(), SIZE, Config())
    inside = (labels > 0).float()
    seen = (image > 0.75).float()
    dice = 2 * (inside * seen).sum(dim=(1, 2, 3)) / (inside + seen).sum(dim=(1, 2, 3))
    assert dice.min() > 0.95
    assert not torch.equal(labels, block()[1])
    assert labels.unique().tolist() == [0, 1, 2]


def test_anterior_stays_in_front():
    _, labels = augmentation.random_geometry(*block(), SIZE, Config())
    y = torch.arange(40.0)[:, None]
    for volume in labels:
        anterior, posterior = (((volume == s) * y).sum() / (volume == s).sum() for s in (1, 2))
        assert anterior > posterior + 5


def test_a_share_of_volumes_keeps_its_voxels():
    image = torch.randint(100, (64, *SIZE)).float()  # between whole numbers lies only what was interpolated
    moved, _ = augmentation.random_geometry(image, torch.zeros(64, *SIZE, dtype=torch.uint8), SIZE, Config())
    off = (moved - moved.round()).abs().amax(dim=(1, 2, 3))
    assert 0.1 < (off < 1e-2).float().mean() < 0.45


def test_without_limits_nothing_moves():
    image, labels = augmentation.random_geometry(*block(), SIZE, Config(**STILL))
    torch.testing.assert_close(image, block()[0], atol=1e-4, rtol=0)
    assert torch.equal(labels, block()[1])


def test_the_window_is_the_middle():
    image, labels = augmentation.random_geometry(*block(), (28, 30, 24), Config(**STILL))
    torch.testing.assert_close(image, block()[0][:, 2:30, 5:35], atol=1e-4, rtol=0)
    assert torch.equal(labels, block()[1][:, 2:30, 5:35])


def test_a_shift_is_in_voxels_along_each_axis():
    """Where only whole voxels are moved, each volume is the block rolled by three at most along x, y and z."""
    _, labels = augmentation.random_geometry(*block(), SIZE, Config(**STILL | {"shift": 3.0, "unresampled": 1.0}))
    moves = []
    for volume, original in zip(labels, block()[1], strict=True):
        corners = [torch.nonzero(one).amin(dim=0) for one in (volume, original)]
        moves.append((corners[0] - corners[1]).tolist())
        assert torch.equal(volume, original.roll(moves[-1], dims=(0, 1, 2)))
    assert 0 < max(abs(step) for move in moves for step in move) <= 3
    assert all(len(set(steps)) > 1 for steps in zip(*moves, strict=True))  # drawn anew for each volume, on each axis


@pytest.mark.parametrize("limit", ["rotation", "scale", "shift", "elastic"])
def test_each_limit_of_geometry_alone_moves(limit):
    _, labels = augmentation.random_geometry(
        *block(), SIZE, Config(**STILL | {limit: getattr(Config(), limit), "unresampled": 0.0})
    )
    assert not torch.equal(labels, block()[1])


@pytest.mark.parametrize("limit", ["gamma", "contrast", "brightness", "noise"])
def test_each_limit_of_intensity_alone_changes(limit):
    flat = dict.fromkeys(("gamma", "contrast", "brightness", "noise"), 0.0)
    image = torch.randn(2, *SIZE)
    torch.testing.assert_close(augmentation.random_intensity(image, Config(**flat)), image)
    changed = augmentation.random_intensity(image, Config(**flat | {limit: getattr(Config(), limit)}))
    assert (changed - image).abs().max() > 0.01


def test_rotations_are_rotations():
    matrices = augmentation.rotations(16, 15.0, torch.device("cpu"))
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).expand(16, 3, 3), atol=1e-5, rtol=0)
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(16))
    turns = torch.rad2deg(torch.acos((matrices.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2))
    assert 5 < turns.max() < 15 * 3**0.5 + 1e-3  # three turns of at most 15 degrees


@pytest.mark.parametrize("seed", [0, 1])
def test_intensity_keeps_order_of_tissue(seed):
    torch.manual_seed(seed)
    image = torch.where(block()[1] > 0, 1.0, -1.0)
    changed = augmentation.random_intensity(image, Config())
    for before, after in zip(image, changed, strict=True):
        assert after[before > 0].mean() > after[before < 0].mean() + 0.5


def test_the_seed_decides():
    torch.manual_seed(5)
    first = augmentation.augment(*block(), SIZE, Config())
    torch.manual_seed(5)
    second = augmentation.augment(*block(), SIZE, Config())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
