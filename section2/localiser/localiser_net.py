"""The network that finds a head's place: from a window of 4 mm voxels to where each point of the brain lies.

Of every coarse voxel (8 mm) it says how surely it is brain, which point of the template it is, and how far away the
middles of the two hippocampi are. Each of these is a smooth function of the place, so that hundreds of voxels vote.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from synthetic_heads import VOXEL, WINDOW

COARSE = WINDOW // 2
SCALE = 50.0  # mm: of what the network gives for points and ways


def coarse_mm() -> torch.Tensor:
    """[3, w, w, w]: where the coarse voxels lie, mm around the window's middle."""
    along = (torch.arange(COARSE) + 0.5) * 2 * VOXEL - WINDOW * VOXEL / 2
    return torch.stack(torch.meshgrid(along, along, along, indexing="ij"))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for before in (inputs, outputs):
        layers += [nn.Conv3d(before, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class LocaliserNet(nn.Module):
    """image [B, 1, W, W, W], as `normalised` gives it, to [B, 10, w, w, w]: a logit of brain, the point in the template
    [3], and the ways to the left and the right hippocampus [2 x 3]; all but the first in units of SCALE mm.
    """

    def __init__(self, filters: int = 24, depth: int = 3):
        super().__init__()
        self.register_buffer("places", coarse_mm()[None] / 100)
        sizes = [filters * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([8 + 3, *sizes], sizes, strict=False))
        self.reduce = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(_block(2 * a, a) for a in sizes[:-1])
        self.head = nn.Conv3d(filters, 10, 1)
        self.pose = nn.Linear(sizes[-1] * (COARSE // 2**depth) ** 3, 12)  # only to learn from: the whole at once

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.with_pose(image)[0]

    def with_pose(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """And the affine [B, 3, 4] of the pose, by what the deepest level sees."""
        batch = image.shape[0]
        parts = image.reshape(batch, COARSE, 2, COARSE, 2, COARSE, 2).permute(0, 2, 4, 6, 1, 3, 5)
        x = torch.cat([parts.reshape(batch, 8, COARSE, COARSE, COARSE), self.places.expand(batch, -1, -1, -1, -1)], 1)
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool3d(x, 2))
            kept.append(x)
        pose = self.pose(kept.pop().flatten(1)).reshape(batch, 3, 4)
        for reduce, block in zip(reversed(self.reduce), reversed(self.up), strict=True):
            wider = functional.interpolate(reduce(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([kept.pop(), wider], 1))
        return self.head(x), pose
