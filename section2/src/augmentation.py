"""Random geometry and intensity for whole batches of volumes, all with torch's own sampler and random numbers.

How much is drawn of each is a setting of the run: the part "augmentation" of config.py.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from atrophy import filled, hippocampus, random_shrinking, sample, stacked, voxels
from config import Config


def uniform(shape: tuple[int, ...], limit: float, device: torch.device) -> Tensor:
    # Drawn on the CPU whatever the device, so that one saved random state repeats a run.
    return (torch.rand(shape) * 2 - 1).mul(limit).to(device)


def rotations(count: int, degrees: float, device: torch.device) -> Tensor:
    """[count, 3, 3]: three turns of up to so many degrees about the axes."""
    matrix = torch.eye(3, device=device).repeat(count, 1, 1)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        angle = uniform((count,), math.radians(degrees), device)
        turn = torch.eye(3, device=device).repeat(count, 1, 1)
        turn[:, i, i] = turn[:, j, j] = angle.cos()
        turn[:, i, j], turn[:, j, i] = -angle.sin(), angle.sin()
        matrix = matrix @ turn
    return matrix


def elastic_field(count: int, sizes: tuple[int, ...], config: Config, device: torch.device) -> Tensor:
    """[count, X, Y, Z, 3]: a smooth displacement in voxels, control points interpolated linearly."""
    points = [max(2, size // config.elastic_spacing + 1) for size in sizes]
    coarse = torch.randn((count, 3, *points)).mul(config.elastic).to(device)
    return functional.interpolate(coarse, size=sizes, mode="trilinear", align_corners=True).permute(0, 2, 3, 4, 1)


def random_geometry(images: Tensor, labels: Tensor, window: tuple[int, ...], config: Config) -> tuple[Tensor, Tensor]:
    """The same random rotation, scaling, shift and elastic deformation for image and labels, seen through a window.

    images [N, X, Y, Z] float, labels [N, X, Y, Z] uint8 with 0, 1, 2 -> both [N, *window], around the middle; what
    comes from outside is 0 in both. Sizes differ from the window's by even numbers. The share `unresampled` is
    shifted by whole voxels alone; of the others, the share `atrophy` has its hippocampus shrunk. No flips: the set has
    one handedness, and the orientation is information.
    """
    count, *sizes = images.shape
    device = images.device
    middle = (torch.tensor(sizes, device=device) - 1) / 2
    around = voxels(window, device) - (torch.tensor(window, device=device) - 1) / 2
    matrix = rotations(count, config.rotation, device) * (1 + uniform((count, 1, 3), config.scale, device))
    shift = uniform((count, 1, 1, 1, 3), config.shift, device)
    bent = elastic_field(count, window, config, device)
    deformed = torch.einsum("xyzj,nij->nxyzi", around, matrix) + shift + bent
    unresampled = (torch.rand((count, 1, 1, 1, 1)) < config.unresampled).to(device)
    at = torch.where(unresampled, around + shift.round(), deformed) + middle
    lost = None
    if config.atrophy:
        field = sample(random_shrinking(labels, config.atrophy), at) * ~unresampled[..., 0][:, None]
        at, lost = at + field[:, :3].movedim(1, -1), field[:, 3]
    # The structures go through the same linear interpolation as the image: smoother borders than nearest voxels.
    image, anterior, posterior = sample(stacked(images, labels), at).unbind(dim=1)
    if lost is not None:
        image = filled(image, images, lost)
    return image, hippocampus(anterior, posterior)


def random_intensity(images: Tensor, config: Config) -> Tensor:
    """Random gamma, contrast, brightness and noise; images [N, X, Y, Z] of mean 0 and standard deviation 1."""
    count = images.shape[0]
    one = (count, 1, 1, 1)
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    gamma = uniform(one, config.gamma, images.device).exp()
    unit = (images - low) / (high - low + 1e-6)
    images = unit.pow(gamma) * (high - low) + low
    images = images * (1 + uniform(one, config.contrast, images.device)) + uniform(
        one, config.brightness, images.device
    )
    noise = torch.randn(images.shape).to(images.device)
    return images + noise * uniform(one, config.noise, images.device)


def augment(images: Tensor, labels: Tensor, window: tuple[int, ...], config: Config) -> tuple[Tensor, Tensor]:
    """Geometry and intensity, for images and labels [N, X, Y, Z]; new tensors [N, *window]."""
    images, labels = random_geometry(images, labels, window, config)
    return random_intensity(images, config), labels
