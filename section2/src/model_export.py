"""The trained model as one file: ONNX with its card, checked against torch, and the same file run again.

The card says what the model is, what it was trained on, and how well it was measured to do.
"""

import hashlib
import json
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from config import Config
from hippocampus_data import Case
from volume_stats import STRUCTURES

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else the runtime tells its maker of its use, from its import on
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
)

# Sizes no multiple of what the poolings halve; in each axis at least one smaller and one larger than 64.
CHECKED_SIZES = [(35, 51, 36), (31, 40, 24), (70, 45, 33), (33, 71, 41), (37, 43, 67), (9, 7, 11)]
TOLERANCE = 1e-4  # of a probability, between torch and ONNX Runtime, both float32
NOT_A_MODEL = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile)  # the runtime has no common base

LABELS = {"0": "background", "1": "anterior", "2": "posterior"}
INTENDED_USE = (
    "Research use only. Volume of the hippocampus, anterior (head) and posterior (body and tail), in T1-weighted MRI "
    "crops around one hippocampus of an adult, seen as a left one in RAS. Not for diagnosis; not for whole heads, "
    "children, other contrasts, or crops whose orientation is unknown."
)
CARD_MEASURES = ("dice", "hd95_mm", "absolute_volume_error_percent", "volume_error_percent")


class ExportError(RuntimeError):
    """The exported model does not give what torch gives."""


def export_model(segmenter: nn.Module, path: Path, card: dict, tolerance: float = TOLERANCE) -> None:
    """Writes the segmenter as ONNX: input `volume` [X, Y, Z], output `probabilities` [3, X, Y, Z], all sizes free.

    Raises ExportError, and leaves no file, if its probabilities differ from torch's by more than `tolerance`.
    """
    segmenter = segmenter.cpu().float().eval()
    dynamic = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports missing libraries that we do not use
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        program = torch.onnx.export(
            segmenter,
            (torch.rand(CHECKED_SIZES[0]),),
            dynamo=True,
            verbose=False,
            input_names=["volume"],
            output_names=["probabilities"],
            dynamic_shapes={"volume": dynamic},
        )
    unchecked = path.with_suffix(".unchecked")
    program.save(unchecked)
    try:
        compare_with_torch(segmenter, unchecked, tolerance)
        write_card(unchecked, card)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)


def compare_with_torch(segmenter: nn.Module, path: Path, tolerance: float) -> None:
    """Every voxel of random volumes of CHECKED_SIZES, on different intensity scales."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n, size in enumerate(CHECKED_SIZES):
        volume = torch.rand(size, generator=torch.Generator().manual_seed(n)) * 10.0**n
        with torch.no_grad():
            expected = segmenter(volume).numpy()
        found = session.run(None, {"volume": volume.numpy()})[0]
        worst = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
        if not worst <= tolerance:
            raise ExportError(f"ONNX differs from torch by {worst} at size {size}, allowed is {tolerance}")


def write_card(path: Path, card: dict) -> None:
    """Puts the card into the file's metadata, replacing the one it had; what the exporter noted of its machine goes."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.ClearField("metadata_props")
    onnx.helper.set_model_props(
        model, {"name": card["name"], "version": card["version"], "card": json.dumps(card, sort_keys=True)}
    )
    complete = path.with_name(path.name + ".new")
    onnx.save(model, complete)
    complete.replace(path)


class ExportedModel:
    """An exported model and its card; calling it turns a raw volume [X, Y, Z] into probabilities [3, X, Y, Z].

    Raises ValueError where the file is no such model.
    """

    def __init__(self, path: Path):
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            self.card = json.loads(self.session.get_modelmeta().custom_metadata_map["card"])
        except (*NOT_A_MODEL, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no model exported by this project ({error})") from error
        ends = [end.name for end in (*self.session.get_inputs(), *self.session.get_outputs())]
        if ends != ["volume", "probabilities"]:
            raise ValueError(f"{path} is no model exported by this project (its ends are {ends})")

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"volume": volume.astype(np.float32)})[0]


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
    means = {s: {m: report["summary"][s][m].get("mean") for m in CARD_MEASURES} for s in STRUCTURES}
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
