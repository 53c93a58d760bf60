import pytest
import torch

import augmentation

SIZE = (32, 40, 24)


def block() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros((4, *SIZE), dtype=torch.uint8)
    labels[:, 10:22, 20:30, 8:18] = 1
    labels[:, 10:22, 10:20, 8:18] = 2
    return labels.float(), labels  # the image shows the label itself


def test_labels_move_with_the_image():
    image, labels = augmentation.random_geometry(*block(), SIZE)
    inside = (labels > 0).float()
    seen = (image > 0.75).float()
    dice = 2 * (inside * seen).sum(dim=(1, 2, 3)) / (inside + seen).sum(dim=(1, 2, 3))
    assert dice.min() > 0.95
    assert not torch.equal(labels, block()[1])
    assert labels.unique().tolist() == [0, 1, 2]


def test_anterior_stays_in_front():
    _, labels = augmentation.random_geometry(*block(), SIZE)
    y = torch.arange(40.0)[:, None]
    for volume in labels:
        anterior, posterior = (((volume == s) * y).sum() / (volume == s).sum() for s in (1, 2))
        assert anterior > posterior + 5


def test_a_share_of_volumes_keeps_its_voxels():
    image = torch.randint(100, (64, *SIZE)).float()  # between whole numbers lies only what was interpolated
    moved, _ = augmentation.random_geometry(image, torch.zeros(64, *SIZE, dtype=torch.uint8), SIZE)
    off = (moved - moved.round()).abs().amax(dim=(1, 2, 3))
    assert 0.1 < (off < 1e-2).float().mean() < 0.45


def test_without_limits_nothing_moves(monkeypatch):
    for limit in ("ROTATION", "SCALE", "SHIFT", "ELASTIC"):
        monkeypatch.setattr(augmentation, limit, 0)
    image, labels = augmentation.random_geometry(*block(), SIZE)
    torch.testing.assert_close(image, block()[0], atol=1e-4, rtol=0)
    assert torch.equal(labels, block()[1])


def test_the_window_is_the_middle(monkeypatch):
    for limit in ("ROTATION", "SCALE", "SHIFT", "ELASTIC"):
        monkeypatch.setattr(augmentation, limit, 0)
    image, labels = augmentation.random_geometry(*block(), (28, 30, 24))
    torch.testing.assert_close(image, block()[0][:, 2:30, 5:35], atol=1e-4, rtol=0)
    assert torch.equal(labels, block()[1][:, 2:30, 5:35])


def test_a_shift_is_in_voxels_along_the_right_axis(monkeypatch):
    for limit in ("ROTATION", "SCALE", "ELASTIC"):
        monkeypatch.setattr(augmentation, limit, 0)
    monkeypatch.setattr(augmentation, "uniform", lambda shape, limit, device: shifted(shape, limit))

    def shifted(shape, limit):
        draw = torch.zeros(shape)
        if limit == augmentation.SHIFT:
            draw[..., 1] = 3  # samples from y + 3: the content moves back by three voxels
        return draw

    _, labels = augmentation.random_geometry(*block(), SIZE)
    assert torch.equal(labels, block()[1].roll(-3, dims=2))


def test_rotations_are_rotations():
    matrices = augmentation.rotations(16, torch.device("cpu"))
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).expand(16, 3, 3), atol=1e-5, rtol=0)
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(16))


@pytest.mark.parametrize("seed", [0, 1])
def test_intensity_keeps_order_of_tissue(seed):
    torch.manual_seed(seed)
    image = torch.where(block()[1] > 0, 1.0, -1.0)
    changed = augmentation.random_intensity(image)
    for before, after in zip(image, changed, strict=True):
        assert after[before > 0].mean() > after[before < 0].mean() + 0.5


def test_the_seed_decides():
    torch.manual_seed(5)
    first = augmentation.augment(*block(), SIZE)
    torch.manual_seed(5)
    second = augmentation.augment(*block(), SIZE)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
