"""Several trained networks as teachers of one: it starts from the first's weights and learns what all say together.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", NIPS workshop 2014, without
their temperature: the border voxels that matter here are soft already.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from config import NETWORK, Config
from hippocampus_data import DataError, Split
from runs import load_best
from volume_segmenter import AveragedSegmenter


def load_teachers(config: Config, folder: Path, split: Split) -> AveragedSegmenter | None:
    """The models of `config.teachers` averaged, of the same fold as `folder` if there are folds; None without any.

    Raises DataError if one of them has seen volumes that are held out here, ValueError if the first one's network is
    another than that of `config`.
    """
    folders = [Path(run) / folder.name if config.folds else Path(run) for run in config.teachers]
    for teacher in folders:
        seen = json.loads((teacher / "split.json").read_text())
        if not set(split.test).isdisjoint(seen["train"] + seen["validation"]):
            raise DataError(f"{teacher} has learned from volumes held out here: give its --seed, --folds and shares")
    if not folders:
        return None
    loaded = [load_best(teacher) for teacher in folders]
    first, _ = loaded[0]
    for name in sorted(NETWORK):
        if getattr(first, name) != getattr(config, name):
            raise ValueError(
                f"setting {name} is {getattr(config, name)}, but {getattr(first, name)} in {folders[0]}, the start"
            )
    return AveragedSegmenter([segmenter for _, segmenter in loaded])


@torch.no_grad()
def taught(teachers: AveragedSegmenter, inputs: Tensor) -> Tensor:
    """The teachers' probabilities [B, 3, X, Y, Z] for a batch of normalised volumes [B, 1, X, Y, Z]."""
    return torch.stack([teachers.of_normalised(volume) for volume in inputs[:, 0]])
