"""The weights of a run on disk."""

import pickle
from pathlib import Path

import torch

from config import Config
from volume_segmenter import VolumeSegmenter


def write_whole(state: dict, path: Path) -> None:
    """Through another name, so that a kill in the middle leaves the checkpoint of the epoch before."""
    unfinished = path.with_name(f"{path.name}.new")
    torch.save(state, unfinished)
    unfinished.replace(path)


def load_best(folder: Path) -> tuple[Config, VolumeSegmenter]:
    """The settings and the model of a run's best epoch, both as `best.pt` in its folder has them.

    Raises ValueError where there is no such file.
    """
    path = folder / "best.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        config = Config(**state["config"])
    except (OSError, pickle.UnpicklingError, RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} holds no weights of a run ({error})") from error
    segmenter = VolumeSegmenter(config)
    segmenter.load_state_dict(state["weights"])
    return config, segmenter.eval()
