import pytest
import torch

from config import Config
from volume_segmenter import VolumeSegmenter, neighbouring_slices, normalise, slices_along


def test_normalisation_forgets_the_scanners_scale():
    volume = torch.rand(20, 30, 25)
    expected = normalise(volume)
    assert expected.mean().abs() < 1e-5 and (expected.std() - 1).abs() < 1e-3
    for changed in (volume * 1e6, volume * 1e-3, volume * 50 + 1000):
        torch.testing.assert_close(normalise(changed), expected, atol=2e-3, rtol=0)


def test_normalisation_clips_outliers():
    volume = torch.rand(20, 30, 25)
    volume[0, 0, 0] = 1e6
    assert normalise(volume).max() < 3


@pytest.mark.parametrize("value", [0.0, -5.0, 1e6])
def test_a_constant_volume_becomes_zeros(value):
    assert normalise(torch.full((9, 10, 11), value)).abs().max() < 1e-3


def test_each_slice_sees_its_neighbours():
    volume = torch.arange(4).float()[None, :, None].expand(2, 4, 3)  # the value is the slice's number
    slices = neighbouring_slices(volume, context=3)
    assert slices.shape == (4, 3, 2, 3)
    assert slices[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 0]]


@pytest.mark.parametrize("plane, shape", [("sagittal", (5, 4, 6)), ("coronal", (4, 5, 6)), ("axial", (4, 6, 5))])
def test_slices_lie_along_their_plane_and_back(plane, shape):
    volume = torch.rand(4, 5, 6)
    sliced = slices_along(plane, volume)
    assert sliced.shape == shape
    number = {"sagittal": volume[2], "coronal": volume[:, 2], "axial": volume[:, :, 2]}[plane]
    assert torch.equal(sliced[:, 2].flatten().sort().values, number.flatten().sort().values)
    assert torch.equal(slices_along(plane, sliced), volume)


@pytest.mark.parametrize("plane", ["sagittal", "axial"])
def test_other_planes_give_probabilities_of_the_same_volume(plane):
    segmenter = VolumeSegmenter(Config(plane=plane, filters=2, depth=2)).eval()
    coronal = VolumeSegmenter(Config(filters=2, depth=2)).eval()
    coronal.load_state_dict(segmenter.state_dict())
    volume = torch.rand(9, 11, 13)
    with torch.no_grad():
        torch.testing.assert_close(segmenter(volume), slices_along(plane, coronal(slices_along(plane, volume))))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", [(35, 51, 36), (17, 70, 33), (66, 9, 71)])
def test_volume_in_probabilities_out(dims, size):
    segmenter = VolumeSegmenter(Config(dims=dims, filters=2, depth=3)).eval()
    with torch.no_grad():
        probabilities = segmenter(torch.rand(size))
    assert probabilities.shape == (3, *size)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(size))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_backgrounds_odds_are_multiplied(dims):
    volume = torch.rand(12, 16, 8)
    plain, weighted = (VolumeSegmenter(Config(dims=dims, filters=2, depth=2, background=b)).eval() for b in (1.0, 3.0))
    weighted.load_state_dict(plain.state_dict())
    with torch.no_grad():
        p, q = plain(volume), weighted(volume)
    torch.testing.assert_close(q[0] / q[1], 3 * p[0] / p[1])
    torch.testing.assert_close(q[1] / q[2], p[1] / p[2])
