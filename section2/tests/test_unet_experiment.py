"""Training that is followed, stopped and gone on with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run_ml_pipeline
from config import Config
from hippocampus_data import LoadHippocampusData, Split
from run_ml_pipeline import main
from unet_experiment import UNetExperiment

SOURCES = Path(run_ml_pipeline.__file__).parent
# The pipeline, stopped by the signal of that number in its third epoch: after a step, with more to come.
STOPPED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import run_ml_pipeline

class Experiment(run_ml_pipeline.UNetExperiment):
    def step(self, loss):
        super().step(loss)
        if len(self.history) == 2:
            os.kill(os.getpid(), int(sys.argv[2]))

run_ml_pipeline.UNetExperiment = Experiment
sys.exit(run_ml_pipeline.main(sys.argv[3:]))
"""


def test_tensorboard_has_scalars_and_the_same_pictures_at_each_epoch(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tiny_run / "tensorboard"))
    events.Reload()
    assert {"train/loss", "validation/loss", "learning/rate", "dice/anterior", "dice/posterior"} <= set(
        events.Tags()["scalars"]
    )
    pictures = events.Tags()["images"]
    assert len(pictures) == 2
    assert all([image.step for image in events.Images(tag)] == [0, 1] for tag in pictures)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_schedule_of_any_number_of_steps_starts(phantom_set, tmp_path, epochs):
    cases = LoadHippocampusData(phantom_set, max_workers=0)
    config = Config(dims=3, filters=2, depth=1, batch_size=2, epochs=epochs)
    run = UNetExperiment(config, cases, Split([case.name for case in cases], [], []), tmp_path)
    run.prepare()
    assert run.schedule.total_steps == 5 * epochs
    assert 0 < run.schedule.get_last_lr()[0] <= config.learning_rate


@pytest.fixture(scope="module")
def uninterrupted(tiny, phantom_set, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert main(["--data-root", str(phantom_set), "--out", str(out), *tiny, "--epochs", "4"]) == 0
    return torch.load(next(out.glob("*/last.pt")))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_was_stopped_goes_on_to_the_same_result(
    tiny, phantom_set, tmp_path, uninterrupted, hang_limit, how, code
):
    options = ["--data-root", phantom_set, "--out", tmp_path, *tiny, "--epochs", "4"]
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, SOURCES, str(int(how)), *options],
        capture_output=True,
        text=True,
        timeout=hang_limit,
        # As many threads as here, where it goes on: with another number sums come out otherwise.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        # A shell that runs the tests in the background has switched Ctrl-C off for all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert stopped.returncode == code, stopped.stderr
    (run,) = tmp_path.iterdir()
    assert len((run / "history.csv").read_text().splitlines()) == 3 and not (run / "model.onnx").exists()
    if how == signal.SIGINT:
        assert stopped.stderr.strip().endswith(f"--resume {run} goes on") and "Traceback" not in stopped.stderr

    assert main(["--data-root", str(phantom_set), "--resume", str(run)]) == 0
    resumed = torch.load(run / "last.pt")
    for a, b in zip(resumed["averaged"].values(), uninterrupted["averaged"].values(), strict=True):
        assert torch.equal(a, b)
    assert (run / "model.onnx").exists()
