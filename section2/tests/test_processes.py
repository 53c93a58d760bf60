"""Two processes on the CPU, started by torchrun: the same split and weights, one set of files, no hang."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run_ml_pipeline

SOURCES = Path(run_ml_pipeline.__file__).parent
# The pipeline, with what each process has after training and its random state before each augmentation kept aside.
WITNESS = """
import sys, torch
import processes, run_ml_pipeline, unet_experiment

class Slices(unet_experiment.SlicesDataset):
    random = []
    def augment(self):
        self.random.append(torch.get_rng_state())
        super().augment()

class Experiment(unet_experiment.UNetExperiment):
    def train(self):
        super().train()
        seen = {"weights": dict(self.segmenter.named_parameters()), "kept": dict(self.averaged.named_parameters())}
        seen |= {"volumes": len(self.slices.images), "batch": self.batches.batch_size, "steps": len(self.batches)}
        seen |= {"history": self.history, "random": Slices.random}
        torch.save(seen, f"{sys.argv[1]}/{processes.rank()}.pt")

unet_experiment.SlicesDataset, run_ml_pipeline.UNetExperiment = Slices, Experiment
sys.exit(run_ml_pipeline.main(sys.argv[2:]))
"""

# The pipeline, whose second process dies at the start of the second epoch.
DYING = """
import os, signal, sys
import processes, run_ml_pipeline

class Experiment(run_ml_pipeline.UNetExperiment):
    def train_epoch(self, epoch):
        if epoch == 1 and processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_epoch(epoch)

run_ml_pipeline.UNetExperiment = Experiment
sys.exit(run_ml_pipeline.main(sys.argv[1:]))
"""


def torchrun(*words: str | Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def options(tiny, phantom_set) -> list[str]:
    """Those of `tiny_run`."""
    return ["--data-root", str(phantom_set), "--validation-share", "0.2", *tiny]


@pytest.fixture(scope="module")
def pair(options, hang_limit, tmp_path_factory) -> tuple[Path, list[dict], str]:
    """A finished run of two processes: its folder, what each process saw, what was printed."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "witness.py").write_text(WITNESS)
    process = torchrun(folder / "witness.py", folder, "--out", folder / "out", *options)
    printed, errors = process.communicate(timeout=hang_limit)
    assert process.returncode == 0, errors
    (run,) = (folder / "out").iterdir()
    return run, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)], printed


def test_two_processes_end_with_the_same_weights_and_history(pair):
    _, (first, second), _ = pair
    assert first["history"] == second["history"]
    for kind in ("weights", "kept"):
        assert all(torch.equal(value, second[kind][name]) for name, value in first[kind].items())


def test_two_processes_share_volumes_and_batches_and_draw_their_own_random_numbers(pair, tiny_run):
    run, (first, second), _ = pair
    assert (run / "split.json").read_text() == (tiny_run / "split.json").read_text()
    assert first["volumes"] == second["volumes"] == 3  # of the six trained on
    assert first["batch"] == second["batch"] == 16  # of --batch-size 32
    alone = torch.load(tiny_run / "last.pt")["schedule"]["total_steps"]
    assert 2 * first["steps"] == 2 * second["steps"] == alone  # two epochs
    states = {bytes(state.numpy()) for seen in (first, second) for state in seen["random"]}
    assert len(states) == 4


def test_one_process_writes_and_prints(pair, tiny_run):
    run, _, printed = pair
    assert {p.name for p in run.iterdir()} == {p.name for p in tiny_run.iterdir()}
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert printed.count("epoch 1/2") == printed.count("model: ") == 1


def test_two_processes_learn_what_one_does(pair, tiny_run):
    alone, together = (list(csv.DictReader((run / "history.csv").open())) for run in (tiny_run, pair[0]))
    for column in ("train_loss", "validation_loss"):
        assert float(together[-1][column]) == pytest.approx(float(alone[-1][column]), rel=0.05)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_which_can_be_resumed(options, pair, tmp_path, hang_limit):
    (tmp_path / "dying.py").write_text(DYING)
    process = torchrun(tmp_path / "dying.py", "--out", tmp_path / "out", *options)
    process.communicate(timeout=hang_limit)
    assert process.returncode > 0
    (run,) = (tmp_path / "out").iterdir()
    assert (run / "last.pt").exists() and not (run / "model.onnx").exists()

    process = torchrun(SOURCES / "run_ml_pipeline.py", "--data-root", options[1], "--resume", run)
    _, errors = process.communicate(timeout=hang_limit)
    assert process.returncode == 0, errors
    resumed, uninterrupted = (torch.load(folder / "last.pt")["averaged"] for folder in (run, pair[0]))
    assert all(torch.equal(resumed[name], value) for name, value in uninterrupted.items())
    assert (run / "model.onnx").exists()


def test_a_batch_that_cannot_be_divided_is_refused(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_ml_pipeline, "world_size", lambda: 3)
    assert run_ml_pipeline.main(["--out", str(tmp_path), *options]) == 1
    assert "batch_size 32 cannot be divided among 3 processes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
