import pytest
import torch
from torch.nn import functional

from recursive_unet import UNet, UnetSkipConnectionBlock


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_classic_network_is_reachable():
    assert 30e6 < parameters(UNet(filters=64)) < 32e6
    assert 1.9e6 < parameters(UNet(in_channels=5)) < 2.0e6


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize(("dims", "size"), [(2, (32, 16)), (3, (16, 8, 24))])
def test_size_in_is_size_out(dims, size, norm):
    network = UNet(in_channels=2, filters=4, depth=3, dims=dims, norm=norm)
    assert network(torch.rand(2, 2, *size)).shape == (2, 3, *size)


def test_recursion_makes_a_block_for_each_level():
    blocks = [m for m in UNet(filters=4, depth=3).modules() if isinstance(m, UnetSkipConnectionBlock)]
    assert [block.depth for block in blocks] == [3, 2, 1, 0]


def test_every_weight_learns():
    network = UNet(filters=4, depth=2)
    functional.cross_entropy(network(torch.rand(2, 1, 16, 16)), torch.randint(0, 3, (2, 16, 16))).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for name, p in network.named_parameters() if "weight" in name
    )
