"""The exported model on the CPU: a volume in, probabilities or labels out.

The file keeps the volume contract: raw intensities [X, Y, Z] in RAS at 1 mm, any size. The graph itself normalises,
pads and crops.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from common.refusal import Failure

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else the runtime tells its maker of its use, from its import on
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors

LOAD_ERRORS = (
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.InvalidProtobuf,
    onnxruntime_errors.NoModel,
    onnxruntime_errors.NoSuchFile,
    onnxruntime_errors.NotImplemented,
    onnxruntime_errors.RuntimeException,
)
_EXPECTED_ENDS = [("volume", "tensor(float)", 3), ("probabilities", "tensor(float)", 4)]  # name, type, axes
_EXPECTED_CARD = {
    "orientation": "RAS",
    "spacing_mm": 1.0,
    "labels": {"0": "background", "1": "anterior", "2": "posterior"},
}


class UNetInferenceAgent:
    """One loaded model.

    card: the model card in it as a dict; identity: its name and version, and the sha256 of the file.
    Raises Failure: bad-model.
    """

    def __init__(self, model_path: Path, threads: int = 1):
        try:
            content = Path(model_path).read_bytes()
            self._session = open_session(content, threads)
        except OSError as error:
            raise Failure("bad-model", f"model {model_path} cannot be read: {error.strerror}") from error
        except LOAD_ERRORS as error:
            raise Failure("bad-model", f"{model_path} is no ONNX model; expected the exported model.onnx") from error
        self.card = self._checked_card(model_path)
        self.identity = {
            "name": str(self.card["name"]),
            "version": str(self.card["version"]),
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    def _checked_card(self, model_path: Path) -> dict:
        ends = [*self._session.get_inputs(), *self._session.get_outputs()]
        found = [(end.name, end.type, len(end.shape)) for end in ends]
        if found != _EXPECTED_ENDS:
            raise Failure("bad-model", f"{model_path} has inputs and outputs {found}, expected {_EXPECTED_ENDS}")
        try:
            card = json.loads(self._session.get_modelmeta().custom_metadata_map.get("card", ""))
        except ValueError as error:
            raise Failure("bad-model", f"{model_path} has no model card in its metadata") from error
        if not isinstance(card, dict):
            raise Failure("bad-model", f"the card of {model_path} is no JSON object")
        for key, value in _EXPECTED_CARD.items():
            if card.get(key) != value:
                raise Failure("bad-model", f"the card of {model_path} says {key} {card.get(key)}, expected {value}")
        if not (card.get("name") and card.get("version")):
            raise Failure("bad-model", f"the card of {model_path} lacks a name or a version")
        return card

    def volume_intervals(self, volumes_mm3: dict[str, float]) -> dict[str, list[float]] | None:
        """[low, high] in mm3 of each volume, calibrated as the card says; None where the card has no calibration."""
        widths = (self.card.get("volume_interval") or {}).get("half_width", {})
        named = {"anterior": "anterior", "posterior": "posterior", "total": "whole"}
        if not set(named.values()) <= widths.keys():
            return None
        return {
            name: [round(volume * (1 - widths[named[name]]), 1), round(volume * (1 + widths[named[name]]), 1)]
            for name, volume in volumes_mm3.items()
        }

    def single_volume_inference(self, volume: np.ndarray) -> np.ndarray:
        """Probabilities [3, X, Y, Z] float32 (background, anterior, posterior) of a raw volume [X, Y, Z], RAS, 1 mm."""
        try:
            (probabilities,) = self._session.run(
                ["probabilities"], {"volume": np.ascontiguousarray(volume, np.float32)}
            )
        except onnxruntime_errors.RuntimeException as error:
            if "alloc" in str(error):  # onnxruntime has no other word for it
                raise MemoryError from error
            raise
        return probabilities


def open_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Raises LOAD_ERRORS."""
    return onnxruntime.InferenceSession(content, session_options(threads), ["CPUExecutionProvider"])


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """How the agent opens its session; the benchmark of runtimes varies it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it keeps memory for further volumes that hardly saves them time
    # Threads that spin while they wait steal the core from the other workers of a batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised, and reported in one line
    return options
