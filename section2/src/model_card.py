"""The card that travels in the model file: what it is, what it was trained on, how well it was measured to do."""

import hashlib
from pathlib import Path

from config import Config
from hippocampus_data import Case
from volume_stats import STRUCTURES

LABELS = {"0": "background", "1": "anterior", "2": "posterior"}
INTENDED_USE = (
    "Research use only. Volume of the hippocampus, anterior (head) and posterior (body and tail), in T1-weighted MRI "
    "crops around one hippocampus of an adult, seen as a left one in RAS. Not for diagnosis; not for whole heads, "
    "children, other contrasts, or crops whose orientation is unknown."
)
MEASURES = ("dice", "hd95_mm", "absolute_volume_error_percent", "volume_error_percent")


def make_card(config: Config, training: dict, report: dict | None) -> dict:
    """`training` says on what and how long; `report` is that of the held-out volumes, if there were any."""
    return {
        "name": config.name,
        "version": config.version,
        "labels": LABELS,
        "orientation": "RAS",
        "spacing_mm": 1.0,
        "training": training,
        "accuracy": accuracy(report) if report else {"protocol": "not measured"},
        "volume_interval": report["volume_interval"] if report else None,
        "intended_use": INTENDED_USE,
    }


def accuracy(report: dict) -> dict:
    """The means of a report's main measures, and how they were measured."""
    means = {s: {m: report["summary"][s][m].get("mean") for m in MEASURES} for s in STRUCTURES}
    return {"protocol": report["protocol"], "volumes": report["volumes"], **means}


def data_facts(root: Path, cases: list[Case]) -> dict:
    """What identifies the data: the hash of the curation table, or of the voxels where there is no table."""
    curation = root / "curation.csv"
    if curation.is_file():
        return {"curation_sha256": hashlib.sha256(curation.read_bytes()).hexdigest()}
    voxels = hashlib.sha256()
    for case in cases:
        voxels.update(case.image.tobytes() + case.labels.tobytes())
    return {"data_sha256": voxels.hexdigest()}
