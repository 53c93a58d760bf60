"""The trained model as one file: ONNX with its card, checked against torch, and the same file run again."""

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile
from torch import nn

# Sizes no multiple of what the poolings halve; in each axis at least one smaller and one larger than 64.
CHECKED_SIZES = [(35, 51, 36), (31, 40, 24), (70, 45, 33), (33, 71, 41), (37, 43, 67), (9, 7, 11)]
TOLERANCE = 1e-4  # of a probability, between torch and ONNX Runtime, both float32


NOT_A_MODEL = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile)  # the runtime has no common base


class ExportError(RuntimeError):
    """The exported model does not give what torch gives."""


def export_model(segmenter: nn.Module, path: Path, card: dict) -> None:
    """Writes the segmenter as ONNX: input `volume` [X, Y, Z], output `probabilities` [3, X, Y, Z], all sizes free.

    Raises ExportError, and leaves no file, if its probabilities differ from torch's by more than TOLERANCE.
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
        compare_with_torch(segmenter, unchecked)
        write_card(unchecked, card)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)


def compare_with_torch(segmenter: nn.Module, path: Path) -> None:
    """Every voxel of random volumes of CHECKED_SIZES, on different intensity scales."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n, size in enumerate(CHECKED_SIZES):
        volume = torch.rand(size, generator=torch.Generator().manual_seed(n)) * 10.0**n
        with torch.no_grad():
            expected = segmenter(volume).numpy()
        found = session.run(None, {"volume": volume.numpy()})[0]
        worst = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
        if not worst <= TOLERANCE:
            raise ExportError(f"ONNX differs from torch by {worst} at size {size}, allowed is {TOLERANCE}")


def write_card(path: Path, card: dict) -> None:
    """Puts the card into the file's metadata, replacing the one it had."""
    model = onnx.load(path)
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

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"volume": volume.astype(np.float32)})[0]
