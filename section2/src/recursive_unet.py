"""The recursive U-Net: one definition for two and three dimensions.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, with normalisation after each convolution and padding that keeps the size.
"""

from functools import partial

import torch
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
NORM = {
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
    "instance": {2: partial(nn.InstanceNorm2d, affine=True), 3: partial(nn.InstanceNorm3d, affine=True)},
    "none": {2: nn.Identity, 3: nn.Identity},
}


def two_convolutions(in_channels: int, channels: int, dims: int, kernel_size: int, norm: str) -> nn.Sequential:
    """Convolution, norm, ReLU, twice; the size stays."""

    def once(inputs: int) -> list[nn.Module]:
        conv = CONV[dims](inputs, channels, kernel_size, padding=kernel_size // 2)
        return [conv, NORM[norm][dims](channels), nn.ReLU(inplace=True)]

    return nn.Sequential(*once(in_channels), *once(channels))


class UnetSkipConnectionBlock(nn.Module):
    """One level of the U: two convolutions, the same again at half the size, and two convolutions over both.

    The level below is a block of the same kind with twice the channels; the lowest (`depth` 0) has none.
    (N, in_channels, *S) -> (N, channels, *S), every size in S divisible by 2**depth.
    """

    def __init__(self, in_channels: int, channels: int, depth: int, dims: int, kernel_size: int, norm: str):
        super().__init__()
        self.contract = two_convolutions(in_channels, channels, dims, kernel_size, norm)
        self.depth = depth
        if depth:
            self.pool = POOL[dims](2)
            self.below = UnetSkipConnectionBlock(channels, 2 * channels, depth - 1, dims, kernel_size, norm)
            self.up = UP[dims](2 * channels, channels, kernel_size=2, stride=2)
            self.expand = two_convolutions(2 * channels, channels, dims, kernel_size, norm)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.contract(x)
        if not self.depth:
            return skip
        return self.expand(torch.cat([skip, self.up(self.below(self.pool(skip)))], dim=1))


class UNet(nn.Module):
    """(N, in_channels, *S) -> scores before softmax (N, num_classes, *S); S: `dims` sizes divisible by 2**depth."""

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 3,
        filters: int = 16,
        depth: int = 4,
        dims: int = 2,
        kernel_size: int = 3,
        norm: str = "batch",
    ):
        super().__init__()
        self.levels = UnetSkipConnectionBlock(in_channels, filters, depth, dims, kernel_size, norm)
        self.classify = CONV[dims](filters, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.levels(x))
