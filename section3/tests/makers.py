"""A model whose answer is known to the voxel, and images to feed it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pydicom
from onnx import TensorProto, helper
from pydicom.uid import EnhancedMRImageStorage

# What the threshold model sees as its classes. Each border lies halfway, where interpolation puts it.
BACKGROUND, ANTERIOR, POSTERIOR = 300, 500, 100
CARD = {
    "name": "threshold",
    "version": "0.1",
    "labels": {"0": "background", "1": "anterior", "2": "posterior"},
    "orientation": "RAS",
    "spacing_mm": 1.0,
}


def save_threshold_model(path: Path, card: dict | None) -> Path:
    """volume -> one-hot probabilities: anterior from 400, posterior below 200."""
    volume = helper.make_tensor_value_info("volume", TensorProto.FLOAT, ["X", "Y", "Z"])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [3, "X", "Y", "Z"])
    nodes = [
        helper.make_node("Less", ["volume", "low"], ["is_posterior"]),
        helper.make_node("GreaterOrEqual", ["volume", "high"], ["is_anterior"]),
        helper.make_node("Or", ["is_anterior", "is_posterior"], ["is_structure"]),
        helper.make_node("Not", ["is_structure"], ["is_background"]),
    ]
    for name in ("background", "anterior", "posterior"):
        nodes.append(helper.make_node("Cast", [f"is_{name}"], [name], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_4d"]))
    nodes.append(
        helper.make_node("Concat", ["background_4d", "anterior_4d", "posterior_4d"], ["probabilities"], axis=0)
    )
    constants = [
        helper.make_tensor("low", TensorProto.FLOAT, [], [200]),
        helper.make_tensor("high", TensorProto.FLOAT, [], [400]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
    ]
    graph = helper.make_graph(nodes, "threshold", [volume], [probabilities], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if card is not None:
        helper.set_model_props(model, {"name": "threshold", "version": "0.1", "card": json.dumps(card)})
    onnx.save(model, path)
    return path


def make_blocks(shape: tuple[int, int, int] = (20, 26, 17)) -> np.ndarray:
    """A volume [X, Y, Z], unlike its mirror images: 4 x 5 x 6 anterior voxels, behind them 4 x 7 x 6 posterior ones."""
    volume = np.full(shape, BACKGROUND, np.int16)
    volume[3:7, 14:19, 8:14] = ANTERIOR
    volume[3:7, 7:14, 8:14] = POSTERIOR
    return volume


def make_enhanced(paths: list[Path]) -> Path:
    """Replace single-frame images by one enhanced multi-frame image, and return its file."""
    sources = [pydicom.dcmread(path) for path in paths]
    image = sources[0]
    pixels = b"".join(source.PixelData for source in sources)
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [pydicom.Dataset()], []
    shared = image.SharedFunctionalGroupsSequence[0]
    for groups, source in [(shared, image), *((pydicom.Dataset(), source) for source in sources)]:
        for group, keyword in (
            ("PixelMeasuresSequence", "PixelSpacing"),
            ("PlaneOrientationSequence", "ImageOrientationPatient"),
            ("PlanePositionSequence", "ImagePositionPatient"),
        ):
            if (groups is shared) != (keyword == "ImagePositionPatient"):
                item = pydicom.Dataset()
                item[keyword] = source[keyword]
                setattr(groups, group, [item])
        if groups is not shared:
            image.PerFrameFunctionalGroupsSequence.append(groups)
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "ImagesInAcquisition"):
        del image[keyword]
    image.SOPClassUID = EnhancedMRImageStorage
    image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    image.NumberOfFrames, image.PixelData = len(sources), pixels
    for path in paths:
        path.unlink()
    image.save_as(paths[0])
    return paths[0]
