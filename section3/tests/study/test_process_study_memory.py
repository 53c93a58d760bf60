"""A study for which there is not enough memory: a failure of this machine, now, and no fault of the study."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from study.process_study import process_single_study

TIMES = 2**36  # makes of any crop more bytes than a process has addresses


@pytest.fixture
def hungry_model(tmp_path, card) -> Path:
    """A model that needs more memory for any crop than there is."""
    expand = helper.make_node("Expand", ["volume", "shape"], ["probabilities"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [TIMES, 1, 1, 1])
    volume = helper.make_tensor_value_info("volume", TensorProto.FLOAT, ["X", "Y", "Z"])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [TIMES, "X", "Y", "Z"])
    graph = helper.make_graph([expand], "hungry", [volume], [probabilities], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"card": json.dumps(card)})
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_too_little_memory_fails_the_study_and_may_be_tried_again(
    make_study, hungry_model, threshold_model, setup_of, tmp_path
):
    files = sorted(path for path in make_study().rglob("*") if path.is_file())
    result = process_single_study(files, setup_of(hungry_model), tmp_path / "out")
    assert (result.status, result.code, result.again) == ("failed", "out-of-memory", True)
    assert "\n" not in result.reason
    assert (result.volumes_mm3, result.outputs) == (None, [])
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (written["status"], written["code"], written["again"]) == ("failed", "out-of-memory", True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]

    again = process_single_study(files, setup_of(threshold_model), tmp_path / "out")
    assert (again.status, again.code) == ("success", None)


def test_what_was_measured_before_does_not_stay_beside_a_failure(
    make_study, hungry_model, threshold_model, setup_of, tmp_path
):
    files = sorted(path for path in make_study().rglob("*") if path.is_file())
    assert process_single_study(files, setup_of(threshold_model), tmp_path / "out").status == "success"
    assert process_single_study(files, setup_of(hungry_model), tmp_path / "out").code == "out-of-memory"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]
