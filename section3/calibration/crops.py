"""Crops that limits are fitted on, and which model may be asked about each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

Segment = Callable[[np.ndarray], np.ndarray]  # a raw volume [X, Y, Z] -> probabilities [3, X, Y, Z]
SegmentOf = Callable[["Crop"], Segment]  # which model may be asked about a crop and what is made of it


@dataclass(frozen=True)
class Crop:
    """An image of one hippocampus: raw volume [X, Y, Z] in RAS at 1 mm."""

    name: str
    person: str
    volume: np.ndarray


@dataclass(frozen=True)
class Judged:
    """A crop, and what `measure_output` says of the model's answer."""

    crop: Crop
    output: dict[str, float]


def read_crops(folder: Path) -> list[Crop]:
    """All NIfTI images of a folder. Files 2k-1 and 2k show one person. Raises ValueError where there are none."""
    crops = []
    for path in tqdm(sorted(folder.glob("[!.]*.nii*")), desc="reading", unit="crop", disable=None):
        number = re.search(r"(\d+)\.nii", path.name)
        volume = np.asanyarray(nib.as_closest_canonical(nib.load(path)).dataobj).astype(np.float32)
        crops.append(Crop(path.name, str((int(number[1]) + 1) // 2) if number else path.name, volume))
    if not crops:
        raise ValueError(f"{folder} holds no NIfTI image; expected what section1/curation.py kept: see --images")
    return crops


def held_out(runs: Sequence[Path], crops: Sequence[Crop], load: Callable[[Path], Segment]) -> SegmentOf:
    """For each crop, the mean answer of the folds, one of each run, that held it out; `load` opens their models.

    Raises ValueError where a run has none that did.
    """
    folds = {crop.name: [] for crop in crops}
    for run in runs:
        for path in sorted(run.glob("fold_*/model.onnx")):
            segment = load(path)
            for name in json.loads((path.parent / "split.json").read_text())["test"]:
                folds.get(name, []).append(segment)
    for name, segments in folds.items():
        if len(segments) != len(runs):
            raise ValueError(f"{len(segments)} folds of {len(runs)} runs held {name} out; expected one fold of each")
    return lambda crop: lambda volume: np.mean([segment(volume) for segment in folds[crop.name]], axis=0)
