"""The model on the CPU, and what is no model."""

import hashlib

import numpy as np
import onnx
import pytest

from refusal import Refusal
from unet_inference_agent import UNetInferenceAgent


@pytest.mark.parametrize("shape", [(7, 5, 3), (35, 51, 32), (70, 66, 65)])
def test_any_size_goes_in_and_comes_out(threshold_model, shape):
    volume = np.random.default_rng(0).uniform(0, 600, shape).astype(np.float32)
    agent = UNetInferenceAgent(threshold_model)
    probabilities = agent.single_volume_inference(volume)
    labels = agent.single_volume_inference_unpadded(volume)
    assert probabilities.shape == (3, *shape)
    np.testing.assert_array_equal(labels, np.select([volume >= 400, volume < 200], [1, 2]))
    assert labels.dtype == np.uint8


def test_the_agent_says_which_model_it_is(threshold_model, card):
    agent = UNetInferenceAgent(threshold_model)
    sha256 = hashlib.sha256(threshold_model.read_bytes()).hexdigest()
    assert agent.identity == {"name": "threshold", "version": "0.1", "sha256": sha256}
    assert agent.card == card


def test_the_number_of_threads_does_not_change_the_answer(threshold_model):
    volume = np.random.default_rng(0).uniform(0, 600, (20, 30, 25)).astype(np.float32)
    answers = [UNetInferenceAgent(threshold_model, threads).single_volume_inference(volume) for threads in (1, 2)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("content", [None, b"", b"no model", bytes(range(256)) * 40])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    _assert_refused(path)


def test_a_truncated_model_is_refused(tmp_path, threshold_model):
    path = tmp_path / "model.onnx"
    content = threshold_model.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    _assert_refused(path)


@pytest.mark.parametrize(
    "change",
    [{"orientation": "LPS"}, {"spacing_mm": 2.0}, {"labels": {"0": "background", "1": "hippocampus"}}, {"version": ""}],
)
def test_a_card_that_promises_something_else_is_refused(tmp_path, save_threshold_model, card, change):
    _assert_refused(save_threshold_model(tmp_path / "model.onnx", {**card, **change}))


def test_a_model_without_a_card_is_refused(tmp_path, save_threshold_model):
    _assert_refused(save_threshold_model(tmp_path / "model.onnx", None))


def test_a_model_with_other_inputs_is_refused(tmp_path, threshold_model):
    model = onnx.load(threshold_model)
    model.graph.input[0].name = model.graph.node[0].input[0] = model.graph.node[1].input[0] = "slice"
    onnx.save(model, tmp_path / "model.onnx")
    _assert_refused(tmp_path / "model.onnx")


def _assert_refused(path):
    with pytest.raises(Refusal) as refused:
        UNetInferenceAgent(path)
    assert refused.value.code == "bad-model"
    assert "\n" not in str(refused.value)
