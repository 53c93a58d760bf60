"""The model on the CPU, and what is no model."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from common.refusal import Failure
from common.shipped import DEFAULT_MODEL
from measuring import unet_inference_agent
from measuring.unet_inference_agent import UNetInferenceAgent

SOURCE = Path(unet_inference_agent.__file__).parents[1]
# The volume is never written, so that it takes no memory but addresses, of which no more than a little are left for the
# answer. What the model then wants is as large as the volume, or a quarter of it.
OUT_OF_MEMORY = """
import re, resource, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from measuring.unet_inference_agent import UNetInferenceAgent
agent = UNetInferenceAgent(Path(sys.argv[2]), threads=int(sys.argv[3]))
for _ in range(10):  # what is loaded once is there, in each thread
    agent.single_volume_inference(np.zeros((64, 64, 64), np.float32))
volume = np.zeros((512, 512, 512), np.float32)
addresses = 1024 * int(re.search(r"VmSize:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (addresses + 64 * 2**20,) * 2)
try:
    agent.single_volume_inference(volume)
except MemoryError as error:
    print("MemoryError", type(error.__cause__).__name__)
"""


@pytest.mark.parametrize("shape", [(7, 5, 3), (35, 51, 32), (70, 66, 65)])
def test_any_size_goes_in_and_comes_out(threshold_model, shape):
    volume = np.random.default_rng(0).uniform(0, 600, shape).astype(np.float32)
    agent = UNetInferenceAgent(threshold_model)
    probabilities = agent.single_volume_inference(volume)
    labels = agent.single_volume_inference(volume).argmax(axis=0).astype(np.uint8)
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
def test_a_file_that_is_no_model_is_a_failure(tmp_path, content):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    _assert_fails(path)


def test_a_truncated_model_is_a_failure(tmp_path, threshold_model):
    path = tmp_path / "model.onnx"
    content = threshold_model.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    _assert_fails(path)


@pytest.mark.parametrize(
    "change",
    [{"orientation": "LPS"}, {"spacing_mm": 2.0}, {"labels": {"0": "background", "1": "hippocampus"}}, {"version": ""}],
)
def test_a_card_that_promises_something_else_is_a_failure(tmp_path, save_threshold_model, card, change):
    _assert_fails(save_threshold_model(tmp_path / "model.onnx", {**card, **change}))


@pytest.mark.parametrize("card", [None, [], "card", 7])
def test_a_model_without_a_card_is_a_failure(tmp_path, save_threshold_model, card):
    _assert_fails(save_threshold_model(tmp_path / "model.onnx", card))


def test_a_model_with_other_inputs_is_a_failure(tmp_path, threshold_model):
    model = onnx.load(threshold_model)
    model.graph.input[0].name = model.graph.node[0].input[0] = model.graph.node[1].input[0] = "slice"
    onnx.save(model, tmp_path / "model.onnx")
    _assert_fails(tmp_path / "model.onnx")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shipped", [True, False])
def test_too_large_a_volume_is_a_lack_of_memory(threshold_model, shipped, threads):
    model = DEFAULT_MODEL if shipped else threshold_model
    command = [sys.executable, "-c", OUT_OF_MEMORY, SOURCE, model, str(threads)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (found.returncode, found.stdout, found.stderr) == (0, "MemoryError RuntimeException\n", "")


def test_intervals_are_shares_of_the_volumes(tmp_path, save_threshold_model, card):
    widths = {"half_width": {"anterior": 0.1, "posterior": 0.2, "whole": 0.05}}
    path = save_threshold_model(tmp_path / "model.onnx", {**card, "volume_interval": widths})
    intervals = UNetInferenceAgent(path).volume_intervals({"anterior": 1000, "posterior": 2000, "total": 3000})
    assert intervals == {"anterior": [900, 1100], "posterior": [1600, 2400], "total": [2850, 3150]}


@pytest.mark.parametrize(
    "calibration", [{}, {"volume_interval": None}, {"volume_interval": {"half_width": {"anterior": 1}}}]
)
def test_without_calibration_there_are_no_intervals(tmp_path, save_threshold_model, card, calibration):
    path = save_threshold_model(tmp_path / "model.onnx", {**card, **calibration})
    assert UNetInferenceAgent(path).volume_intervals({"anterior": 1, "posterior": 2, "total": 3}) is None


def _assert_fails(path):
    with pytest.raises(Failure) as failed:
        UNetInferenceAgent(path)
    assert failed.value.code == "bad-model"
    assert "\n" not in str(failed.value)
