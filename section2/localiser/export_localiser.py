"""The trained localiser as one ONNX file with its card, checked against torch.

    python export_localiser.py RUN --label-maps DIR [--out FILE]

RUN is a folder of train_localiser.py. The file takes `window` [64, 64, 64] (4 mm, RAS, grey as `normalised` has it) and
returns `answer` [10, 32, 32, 32] (see localiser_net.py); the card says where the template has its hippocampi.
"""

import argparse
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

from head_template import LEFT_HIPPOCAMPUS, RIGHT_HIPPOCAMPUS, Template
from localiser_net import SCALE, LocaliserNet
from synthetic_heads import VOXEL, WINDOW, load_heads

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else the runtime tells its maker of its use, from its import on
import onnxruntime

TOLERANCE = 0.02  # of a logit, or of SCALE mm: a millimetre, of one vote among hundreds
LARGE = 1000  # numbers: weights of more are kept in 16 bits, which halves the file


class ExportError(RuntimeError):
    """The exported network does not give what torch gives."""


class _OneWindow(nn.Module):
    """The network on one window, without the batch."""

    def __init__(self, net: LocaliserNet):
        super().__init__()
        self.net = net

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.net(window[None, None])[0]


def averaged_net(run: Path) -> tuple[LocaliserNet, int]:
    """The moving average of the weights, and the steps that were done."""
    kept = torch.load(run / "localiser.pt", weights_only=True)
    weights = {name.removeprefix("module."): value for name, value in kept["average"].items() if name != "n_averaged"}
    net = LocaliserNet(weights["head.weight"].shape[1])
    net.load_state_dict(weights)
    return net.eval(), kept["step"]


def export(net: LocaliserNet, path: Path, card: dict) -> None:
    """Raises ExportError, and leaves no file, where ONNX differs from torch."""
    module = _OneWindow(net)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports missing libraries that we do not use
    window = torch.rand((WINDOW,) * 3, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        program = torch.onnx.export(
            module, (window,), dynamo=True, verbose=False, input_names=["window"], output_names=["answer"]
        )
        expected = module(window).numpy()
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # places in the files of this machine
    del model.graph.value_info[:]
    _halve(model.graph)
    onnx.helper.set_model_props(model, {"card": json.dumps(card, sort_keys=True)})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"window": window.numpy()})
    if not np.abs(found - expected).max() <= TOLERANCE:
        raise ExportError(f"ONNX differs from torch by {np.abs(found - expected).max()}")
    unfinished = path.with_name(path.name + ".unfinished")
    onnx.save(model, unfinished)
    unfinished.replace(path)


def _halve(graph: onnx.GraphProto) -> None:
    """Large weights in 16 bits, made 32 again when the file is loaded."""
    casts = []
    for weights in graph.initializer:
        array = onnx.numpy_helper.to_array(weights)
        if array.dtype == np.float32 and array.size > LARGE:
            name = weights.name
            weights.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def make_card(template: Template, label_maps: Path, steps: int) -> dict:
    names = hashlib.sha256()
    for path in sorted(label_maps.glob("*.nii.gz")):
        names.update(path.read_bytes())
    return {
        "name": "hippolocaliser",
        "version": "1.0.0",
        "window_voxels": WINDOW,
        "voxel_mm": VOXEL,
        "scale_mm": SCALE,
        "hippocampi_mm": {
            "left": template.middle(LEFT_HIPPOCAMPUS).round(2).tolist(),
            "right": template.middle(RIGHT_HIPPOCAMPUS).round(2).tolist(),
        },
        "training": {
            "data": "images made from label maps of heads (SynthSeg's, Apache 2.0), and no real image",
            "label_maps_sha256": names.hexdigest(),
            "steps": steps,
        },
        "intended_use": "Research use only. Where the hippocampi lie in an adult's head. Not for diagnosis.",
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The trained localiser as one ONNX file with its card.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder of train_localiser.py")
    parser.add_argument("--label-maps", type=Path, required=True, metavar="DIR", help="that it was trained on")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/localiser.onnx")
    args = parser.parse_args(argv)
    net, steps = averaged_net(args.run)
    _, template = load_heads(args.label_maps)
    export(net, args.out or args.run / "localiser.onnx", make_card(template, args.label_maps, steps))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
