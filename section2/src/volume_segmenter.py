"""From a raw volume to probabilities: all that stands between an MRI crop and the network, in one exportable module."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from config import Config
from recursive_unet import UNet

CLIPPED = 200  # one voxel in 200 is clipped at either end: 0.5 % and 99.5 %


def normalise(volume: Tensor) -> Tensor:
    """Clips to the 0.5 and 99.5 percentile, then shifts and scales to mean 0 and standard deviation 1.

    Volumes come with maxima from 100 to a million, so only each one's own statistics can be used. 0 then means
    "average tissue", which is also what the volume is padded with.
    Any shape, any scale; a constant volume becomes all zeros.
    """
    values = volume.flatten()
    tail = values.shape[0] // CLIPPED + 1
    low = values.topk(tail, largest=False).values[-1]
    high = values.topk(tail).values[-1]
    clipped = volume.clamp(low, high)
    centred = clipped - clipped.mean()
    return centred / (centred.square().mean().sqrt() + 1e-6 * (high.abs() + 1e-6))


def slices_along(plane: str, volumes: Tensor) -> Tensor:
    """[..., X, Y, Z] with the axis that `plane` counts its slices along swapped into the middle; its own inverse."""
    return volumes.swapaxes({"sagittal": -3, "coronal": -2, "axial": -1}[plane], -2)


def neighbouring_slices(volume: Tensor, context: int) -> Tensor:
    """[A, S, B] -> [S, context, A, B]: each slice with its neighbours as channels, zeros beyond the ends."""
    count = volume.shape[1]
    padded = functional.pad(volume, (0, 0, context // 2, context // 2))
    return torch.stack([padded[:, k : k + count] for k in range(context)]).permute(2, 0, 1, 3)


class VolumeSegmenter(nn.Module):
    """The volume contract: raw volume [X, Y, Z] (RAS, 1 mm, any size, any scale) -> probabilities [3, X, Y, Z].

    The module that is trained is the one that is tested and exported.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.dims = config.dims
        self.context = config.context
        self.plane = config.plane
        self.multiple = 2**config.depth
        odds = torch.tensor([config.background, 1.0, 1.0]).log()
        self.register_buffer("odds", odds, persistent=False)  # a setting, not a weight
        self.network = UNet(
            in_channels=config.context if config.dims == 2 else 1,
            filters=config.filters,
            depth=config.depth,
            dims=config.dims,
            kernel_size=config.kernel_size,
            norm=config.norm,
        )

    def forward(self, volume: Tensor) -> Tensor:
        return self.of_normalised(normalise(volume))

    def of_normalised(self, volume: Tensor) -> Tensor:
        return self.by_slices(volume) if self.dims == 2 else self.at_once(volume)

    def by_slices(self, volume: Tensor) -> Tensor:
        slices = neighbouring_slices(slices_along(self.plane, volume), self.context)
        return slices_along(self.plane, self.padded_chances(slices).permute(1, 2, 0, 3))

    def at_once(self, volume: Tensor) -> Tensor:
        return self.padded_chances(volume[None, None])[0]

    def padded_chances(self, inputs: Tensor) -> Tensor:
        """`chances` of inputs of any size: zeros lie around them, as in training, while the poolings halve them."""
        sizes = inputs.shape[-self.dims :]
        missing = [-size % self.multiple for size in sizes]
        before = [count // 2 for count in missing]
        around = [(start, count - start) for start, count in zip(before, missing, strict=True)]
        found = self.chances(functional.pad(inputs, [n for pair in reversed(around) for n in pair]))
        return found[(..., *(slice(start, start + size) for start, size in zip(before, sizes, strict=True)))]

    def chances(self, inputs: Tensor) -> Tensor:
        """Probabilities [N, 3, *S] of what the network scores; the background's odds times the setting `background`."""
        return (self.network(inputs) + self.odds.view(-1, *[1] * self.dims)).softmax(dim=1)


class AveragedSegmenter(nn.Module):
    """The mean of several segmenters' probabilities, under the same contract: [X, Y, Z] -> [3, X, Y, Z]."""

    def __init__(self, members: list[VolumeSegmenter]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, volume: Tensor) -> Tensor:
        return self.of_normalised(normalise(volume))

    def of_normalised(self, volume: Tensor) -> Tensor:
        return torch.stack([member.of_normalised(volume) for member in self.members]).mean(dim=0)
