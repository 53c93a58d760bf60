"""Known atrophy: a volume whose hippocampus is made smaller by a smooth deformation, with fluid where it was.

The labelled set holds no hippocampus as small as many patients'. What is taken away here is known to the voxel: each
axis shrinks towards a point that stays where it is, the tissue around follows, less with distance, and where there
was hippocampus and is none any more the image turns towards its own darkest tissue: fluid, in a T1.
"""

import torch
from torch import Tensor
from torch.nn import functional

Place = tuple[float, float, float]  # along x, y, z

DARK = 0.02  # quantile of a volume's intensities that is taken for fluid
SMALLEST = 0.3  # of `kept`: about 0.42 of a hippocampus is left; below 0.25 the deformation begins to fold
STAYS = (0.3, 0.5, 0.1)  # of its extent along x, y, z: where it is attached, near its lower edge
UNEVEN = (1.2, 0.6, 1.2)  # powers by axis, 3 in all: it thins more than it shortens


def voxels(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """[X, Y, Z, 3]: each voxel's own coordinates."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def sample(volumes: Tensor, at: Tensor) -> Tensor:
    """Linear interpolation of [N, C, X, Y, Z] at voxel coordinates [N, *S, 3] -> [N, C, *S]; 0 outside."""
    last = torch.tensor(volumes.shape[2:], device=volumes.device) - 1
    return functional.grid_sample(volumes, (2 * at / last - 1).flip(-1), align_corners=True)


def extents(mask: Tensor) -> tuple[Tensor, Tensor]:
    """First and last voxel of masks [N, X, Y, Z] along each axis: [N, 3] each; the whole axis where nothing is."""
    first, last = [], []
    for axis in (1, 2, 3):
        seen = mask.amax(dim=[other for other in (1, 2, 3) if other != axis])
        first.append(seen.argmax(dim=1))
        last.append(seen.shape[1] - 1 - seen.flip(1).argmax(dim=1))
    return torch.stack(first, dim=1).float(), torch.stack(last, dim=1).float()


def shrinking(labels: Tensor, kept: Tensor, stays: Tensor, uneven: Tensor) -> Tensor:
    """The field that shrinks: [N, 4, X, Y, Z], how many voxels away along x, y, z the content of each voxel comes
    from, and what share of hippocampus it has lost.

    labels [N, X, Y, Z] with 0, 1, 2; kept [N], what would be left of the volume if all of it followed (a little more
    is: count the moved labels); stays and uneven [N, 3] or [3] as STAYS and UNEVEN.
    """
    mask = (labels > 0).float()[:, None]
    near = functional.max_pool3d(mask, 4, stride=2, padding=1)  # at half the resolution, for speed
    for _ in range(2):
        near = functional.avg_pool3d(near, 5, stride=1, padding=2)
    follows = functional.interpolate(near, size=labels.shape[1:], mode="trilinear", align_corners=False)
    first, last = extents(mask[:, 0])
    still = first + (last - first) * stays
    stretch = kept[:, None] ** (-uneven / 3) - 1
    here = voxels(labels.shape[1:], labels.device)
    away = follows[:, 0, ..., None] * stretch[:, None, None, None] * (here - still[:, None, None, None])
    lost = (mask - sample(mask, here + away)).clamp_min(0)
    return torch.cat([away.movedim(-1, 1), functional.avg_pool3d(lost, 3, stride=1, padding=1)], dim=1)


def random_shrinking(labels: Tensor, share: float) -> Tensor:
    """`shrinking` by random amounts for about `share` of the labels [N, X, Y, Z], none for the others."""
    count, device = labels.shape[0], labels.device
    drawn = torch.rand((count, 9))  # on the CPU whatever the device, so that one saved random state repeats a run
    kept = torch.where(drawn[:, 0] < share, SMALLEST + (1 - SMALLEST) * drawn[:, 1], 1.0)
    stays = torch.tensor(STAYS) + (drawn[:, 2:5] - 0.5) * 0.6
    uneven = torch.tensor(UNEVEN) * (0.7 + 0.6 * drawn[:, 5:8])
    field = shrinking(labels, kept.to(device), stays.to(device), uneven.to(device))
    field[:, 3] *= (0.3 + 0.7 * drawn[:, 8]).to(device)[:, None, None, None]  # not all that is lost becomes fluid
    return field


def filled(images: Tensor, sources: Tensor, lost: Tensor) -> Tensor:
    """Images [N, *S] that turn towards the darkest tissue of their sources [N, X, Y, Z] by the share `lost`."""
    fluid = sources.flatten(1).quantile(DARK, dim=1)[:, None, None, None]
    return images + lost * (fluid - images)


def hippocampus(anterior: Tensor, posterior: Tensor) -> Tensor:
    """Labels 0, 1, 2, of the same shape, from the shares of both structures in each voxel."""
    structure = torch.where(posterior > anterior, 2, 1)
    return torch.where(anterior + posterior > 0.5, structure, 0).to(torch.uint8)


def stacked(images: Tensor, labels: Tensor) -> Tensor:
    """[N, 3, X, Y, Z]: image, anterior, posterior, to be moved together."""
    return torch.stack([images, (labels == 1).to(images.dtype), (labels == 2).to(images.dtype)], dim=1)


def shrunken(
    image: Tensor, labels: Tensor, kept: float, stays: Place = STAYS, uneven: Place = UNEVEN, wet: float = 1.0
) -> tuple[Tensor, Tensor]:
    """An image [X, Y, Z] and its labels with the hippocampus smaller.

    `kept`, `stays`, `uneven` as in `shrinking`; wet: how much of what is lost becomes fluid.
    """
    field = shrinking(labels[None], torch.tensor([kept]), torch.tensor(stays), torch.tensor(uneven))
    at = voxels(image.shape, image.device) + field[:, :3].movedim(1, -1)
    moved, anterior, posterior = sample(stacked(image[None], labels[None]), at).unbind(dim=1)
    return filled(moved, image[None], wet * field[:, 3])[0], hippocampus(anterior, posterior)[0]
