"""What is taken away is known, nothing folds, and what lies far from the hippocampus stays as it was."""

import pytest
import torch

import augmentation
from atrophy import SMALLEST, random_shrinking, shrinking, shrunken, voxels
from config import Config

SIZE = (36, 52, 34)


def hippocampus() -> tuple[torch.Tensor, torch.Tensor]:
    """An ellipsoid, head in front, brighter than fluid (0) and darker than what is around it."""
    place = (voxels(SIZE, torch.device("cpu")) - torch.tensor([17.0, 26, 16])) / torch.tensor([7.0, 18, 6])
    inside = place.square().sum(dim=-1) < 1
    labels = torch.where(inside, torch.where(place[..., 1] > 0, 1, 2), 0).to(torch.uint8)
    image = torch.where(inside, 60.0, 100.0)
    image[:2] = 0
    return image, labels


def left(labels: torch.Tensor, smaller: torch.Tensor) -> float:
    return ((smaller > 0).sum() / (labels > 0).sum()).item()


@pytest.mark.parametrize("kept", [1.0, 0.6, SMALLEST])
def test_less_is_left_and_both_parts_shrink(kept):
    image, labels = hippocampus()
    moved, smaller = shrunken(image, labels, kept)
    assert kept <= left(labels, smaller) <= kept + 0.15
    assert all((smaller == part).sum() <= (labels == part).sum() for part in (1, 2))
    assert moved.shape == image.shape and smaller.dtype == torch.uint8
    if kept == 1:
        assert torch.equal(smaller, labels) and torch.allclose(moved, image, atol=1e-2)


def test_fluid_takes_the_place_and_what_is_far_stays():
    image, labels = hippocampus()
    moved, smaller = shrunken(image, labels, 0.5)
    lost = (labels > 0) & (smaller == 0)
    dry, _ = shrunken(image, labels, 0.5, wet=0)
    assert moved[lost].mean() < 50 < 60 < dry[lost].mean()
    torch.testing.assert_close(moved[-4:], image[-4:], atol=1e-2, rtol=0)


def test_it_thins_towards_its_lower_edge():
    image, labels = hippocampus()
    z = torch.arange(SIZE[2])[None, None]
    _, smaller = shrunken(image, labels, 0.4)
    lowest, highest = (torch.nonzero(smaller)[:, 2].min(), torch.nonzero(smaller)[:, 2].max())
    before = z.expand(SIZE)[labels > 0]
    assert lowest - before.min() < before.max() - highest


def test_nothing_folds():
    """The Jacobian of where contents come from stays positive, at most random strengths too."""
    labels = hippocampus()[1].expand(8, *SIZE)
    field = random_shrinking(labels, share=1.0)
    at = voxels(SIZE, labels.device) + field[:, :3].movedim(1, -1)
    slopes = torch.stack(torch.gradient(at, dim=(1, 2, 3)), dim=-1)
    assert torch.linalg.det(slopes).min() > 0
    assert field[:, 3].min() >= 0 and field[:, 3].max() <= 1


def test_a_share_of_volumes_is_shrunk():
    labels = hippocampus()[1].expand(64, *SIZE)
    moved = random_shrinking(labels, share=0.5)[:, :3].abs().amax(dim=(1, 2, 3, 4)) > 1e-3
    assert 0.25 < moved.float().mean() < 0.75
    assert not random_shrinking(labels, share=0.0)[:, :3].any()


def test_where_nothing_is_nothing_moves():
    empty = torch.zeros((1, *SIZE), dtype=torch.uint8)
    assert not shrinking(empty, torch.tensor([0.5]), torch.tensor([0.5] * 3), torch.ones(3)).any()


def test_training_sees_smaller_ones_but_for_those_left_unresampled():
    image, labels = (part.expand(32, *SIZE) for part in hippocampus())
    still = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "elastic": 0.0, "atrophy": 1.0}
    _, moved = augmentation.random_geometry(image, labels, SIZE, Config(**still, unresampled=0.0))
    _, whole = augmentation.random_geometry(image, labels, SIZE, Config(**still, unresampled=1.0))
    assert torch.equal(whole, labels)
    shares = [left(one, other) for one, other in zip(labels, moved, strict=True)]
    assert min(shares) < 0.65 and max(shares) <= 1.02
