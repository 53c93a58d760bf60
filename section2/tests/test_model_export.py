import json

import numpy as np
import onnx
import pytest
import torch

from config import Config
from model_export import CHECKED_SIZES, LABELS, ExportedModel, ExportError, export_model, write_card
from volume_segmenter import VolumeSegmenter

CARD = {"name": "tiny", "version": "0.0.1", "labels": LABELS}


@pytest.fixture(scope="module", params=[2, 3])
def exported(request, tmp_path_factory):
    segmenter = VolumeSegmenter(Config(dims=request.param, filters=2, depth=3)).eval()
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_model(segmenter, path, CARD)
    return segmenter, path


def test_sizes_checked_cover_both_sides_of_64_in_each_axis():
    sizes = np.array(CHECKED_SIZES)
    assert (sizes.min(axis=0) < 64).all() and (sizes.max(axis=0) > 64).all() and (sizes % 8 != 0).all(axis=1).any()


@pytest.mark.parametrize("size", [(34, 52, 37), (65, 66, 23), (5, 40, 90)])
def test_the_file_gives_what_torch_gives(exported, size):
    segmenter, path = exported
    volume = np.random.default_rng(0).gamma(2, 300, size)
    with torch.no_grad():
        expected = segmenter(torch.from_numpy(volume).float()).numpy()
    found = ExportedModel(path)(volume)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.array_equal(found.argmax(axis=0), expected.argmax(axis=0))


def test_the_contract_can_be_read_from_the_file(exported):
    model = onnx.load(exported[1])
    onnx.checker.check_model(model)
    (volume,), (probabilities,) = model.graph.input, model.graph.output
    assert (volume.name, probabilities.name) == ("volume", "probabilities")
    assert all(axis.dim_param for axis in volume.type.tensor_type.shape.dim)  # no size is fixed
    assert probabilities.type.tensor_type.shape.dim[0].dim_value == 3
    assert ExportedModel(exported[1]).card == CARD


def test_a_new_card_changes_nothing_else(exported, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(exported[1].read_bytes())
    write_card(path, {**CARD, "version": "0.0.2"})
    assert ExportedModel(path).card["version"] == "0.0.2"
    volume = np.random.default_rng(1).random((20, 30, 25))
    assert np.array_equal(ExportedModel(path)(volume), ExportedModel(exported[1])(volume))


def test_a_difference_from_torch_leaves_no_file(exported, tmp_path):
    with pytest.raises(ExportError, match="differs from torch by"):
        export_model(exported[0], tmp_path / "model.onnx", CARD, tolerance=-1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no model", json.dumps(CARD).encode()])
def test_what_is_no_model_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.onnx is no model exported by this project"):
        ExportedModel(path)


def test_another_model_with_a_card_is_none_of_ours(tmp_path):
    path = tmp_path / "model.onnx"
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    write_card(path, CARD)
    with pytest.raises(ValueError, match=r"no model exported by this project \(its ends"):
        ExportedModel(path)
