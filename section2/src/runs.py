"""The folder of a run: where it is made, the weights in it, and the cases that its models have not seen."""

import argparse
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch

from config import Config
from hippocampus_data import Case, DataError, add_data_root
from model_export import ExportedModel
from volume_segmenter import VolumeSegmenter

SECTION = Path(__file__).resolve().parents[1]


def add_folders(parser: argparse.ArgumentParser) -> None:
    """The options that say where the data come from and where results go."""
    add_data_root(parser)
    parser.add_argument(
        "--out", type=Path, default=SECTION / "out", help="where the run's folder is made (section2/out)"
    )


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_whole(state: dict, path: Path) -> None:
    """Through another name, so that a kill in the middle leaves the file that was there before."""
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


def tested_parts(runs: list[Path], cases: list[Case]) -> Iterator[tuple[list[Case], list[ExportedModel]]]:
    """The test cases of each fold (or of the one split), and the model of each run that did not see them.

    Raises DataError where the runs were not tested on the same.
    """
    config = Config.load(runs[0] / "config.json")
    folds = [config.only_fold] if config.only_fold else range(1, config.folds + 1)
    for part in [f"fold_{n}" for n in folds] or ["."]:
        folders = [run / part for run in runs]
        yield common_test(folders, cases), [ExportedModel(folder / "model.onnx") for folder in folders]


def common_test(runs: list[Path], cases: list[Case]) -> list[Case]:
    """The test cases of all runs. Raises DataError if they differ, or if nothing was held out."""
    splits = [json.loads((run / "split.json").read_text()) for run in runs]
    if any(split["test"] != splits[0]["test"] for split in splits):
        raise DataError(
            f"{', '.join(map(str, runs))} were tested on different volumes; give them the same seed and folds"
        )
    if not splits[0]["test"]:
        raise DataError(f"{runs[0]} held nothing out, so its average with others cannot be tested")
    by_name = {case.name: case for case in cases}
    return [by_name[name] for name in splits[0]["test"]]
