"""Training and testing of one network on one split, in one folder that survives interruption."""

import dataclasses
import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from config import Config
from distillation import load_teachers, taught
from figures import case_strip
from hippocampus_data import Case, SlicesDataset, Split
from processes import agreed, mean_of_all, rank, world_size
from runs import load_best, write_whole
from volume_segmenter import VolumeSegmenter
from volume_stats import Dice3d, write_rows

DRAW_STEP = 1000  # seeds between two draws; epochs and processes count up from each
PICTURED = 3  # cases followed in TensorBoard
STATEFUL = ("segmenter", "averaged", "optimizer", "schedule", "scaler")  # what a run needs to go on


def choose_device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def mixed_precision(device: torch.device, wanted: bool) -> AbstractContextManager:
    """The autocast context of a step: float16 on CUDA, bfloat16 on CPUs with instructions for it, else none."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.float16, enabled=wanted)
    has = torch.cpu.get_capabilities()
    fast = has.get("avx512_bf16") or has.get("amx_bf16")
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(wanted and fast))


def segmentation_loss(scores: Tensor, labels: Tensor, dice_weight: float, taught: Tensor | None = None) -> Tensor:
    """Cross entropy plus `dice_weight` times (1 - soft Dice of each structure over the batch).

    scores [B, 3, *S] before softmax, labels [B, *S] int64. With teachers, plus the cross entropy to their probabilities
    `taught` [B, 3, *S].
    """
    scores = scores.float()
    loss = functional.cross_entropy(scores, labels)
    if dice_weight:
        found = scores.softmax(dim=1).movedim(1, 0)[1:].flatten(1)
        true = torch.stack([labels == 1, labels == 2]).flatten(1).to(found.dtype)
        dice = (2 * (found * true).sum(1) + 1) / (found.sum(1) + true.sum(1) + 1)
        loss = loss + dice_weight * (1 - dice.mean())
    if taught is not None:
        loss = loss + functional.cross_entropy(scores, taught.float())
    return loss


class UNetExperiment:
    """One run: trains on `split.train`, keeps the epoch that is best on `split.validation`, tests on `split.test`.

    Its folder holds `last.pt` (everything needed to continue), `best.pt` (weights of the epoch kept), `history.csv` and
    the TensorBoard events. Where `last.pt` is there already, training goes on from it.

    Under torchrun each process trains on its share of the volumes and of `batch_size`, with gradients averaged at each
    step; the first one validates and writes, and all keep its history.
    """

    def __init__(self, config: Config, cases: list[Case], split: Split, folder: Path):
        self.config, self.folder = config, folder
        by_name = {case.name: case for case in cases}
        self.train_cases, self.validation_cases, self.test_cases = (
            [by_name[name] for name in names] for names in (split.train, split.validation, split.test)
        )
        torch.manual_seed(self.random_start())
        self.device = choose_device(config.device)
        self.segmenter = VolumeSegmenter(config).to(self.device)
        if config.fine_tune:
            self.segmenter.load_state_dict(load_best(Path(config.fine_tune).parent)[1].state_dict())
        self.teachers = load_teachers(config, folder, split)
        if self.teachers:
            self.teachers.to(self.device)
            self.segmenter.load_state_dict(self.teachers.members[0].state_dict())
        self.segmenter.to(memory_format=torch.channels_last if config.dims == 2 else torch.channels_last_3d)
        average = get_ema_multi_avg_fn(config.ema_decay)
        self.averaged = AveragedModel(self.segmenter, multi_avg_fn=average, use_buffers=True)
        self.history: list[dict] = []

    def random_start(self) -> int:
        return self.config.seed + DRAW_STEP * self.config.draw

    def prepare(self) -> None:
        """Makes the training slices, the optimizer and its schedule, and continues from `last.pt` if there is one."""
        config = self.config
        self.network = self.distribute(self.segmenter.network)
        share = self.train_cases[rank() :: world_size()]  # by volume, so that each is augmented in one process only
        self.slices = SlicesDataset(share, config, self.segmenter.multiple, self.device)
        # As many slices in each process, so that none waits for another's step: the few above the mean sit out.
        count = math.ceil(mean_of_all(len(self.slices), self.device))
        sampler = RandomSampler(self.slices, num_samples=count)
        self.batches = DataLoader(
            self.slices, config.batch_size // world_size(), sampler=sampler, collate_fn=lambda batch: batch
        )
        self.optimizer = torch.optim.AdamW(
            self.segmenter.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        steps = config.epochs * len(self.batches)
        warm_up = 0.1 if steps != 10 else 0.11  # torch divides by zero where warming up is exactly one step
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, total_steps=steps, pct_start=warm_up
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp and self.device.type == "cuda")
        if (self.folder / "last.pt").exists():
            self.load_last()

    def distribute(self, network: nn.Module) -> nn.Module:
        """The network as it is trained: under torchrun, with the gradients' mean over the processes.

        Batch norm is over the whole batch on CUDA; on the CPU, where torch cannot, over each process's share of it.
        """
        if world_size() == 1:
            return network
        if self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network)

    def train(self) -> None:
        """Runs the epochs that are still to do; each ends with validation, TensorBoard and both checkpoints."""
        self.prepare()
        done = len(self.history)
        writer = SummaryWriter(self.folder / "tensorboard", purge_step=done) if rank() == 0 else nullcontext()
        with writer as board:
            for epoch in range(done, self.config.epochs):
                started = time.perf_counter()
                loss = self.train_epoch(epoch)
                if rank() == 0:
                    row = {"epoch": epoch, "learning_rate": self.schedule.get_last_lr()[0], "train_loss": loss}
                    row |= self.validate() | {"seconds": round(time.perf_counter() - started, 2)}
                    self.history.append(row)
                    self.log(row, board)
                    self.picture(epoch, board)
                    self.save()
                self.history = agreed(self.history)

    def train_epoch(self, epoch: int) -> float:
        """One pass over all slices, freshly augmented; returns the mean loss."""
        self.segmenter.train()
        if rank() > 0:  # each draws its own numbers, by epoch; rank 0 goes on with those that `last.pt` keeps
            torch.manual_seed(self.random_start() + epoch * world_size() + rank())
        if self.config.augment:
            self.slices.augment()
        total = 0.0
        title = f"epoch {epoch + 1}/{self.config.epochs}"
        with tqdm(self.batches, title, disable=rank() > 0 or None, leave=False) as bar:
            for inputs, labels in bar:
                with mixed_precision(self.device, self.config.amp):
                    scores = self.network(inputs)
                    examples = taught(self.teachers, inputs) if self.teachers else None
                loss = segmentation_loss(scores, labels, self.config.dice_weight, examples)
                self.step(loss)
                total += loss.detach()
                if not bar.disable:
                    bar.set_postfix(loss=f"{loss.item():.3f}")
        return mean_of_all(total, self.device) / len(self.batches)

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.segmenter.parameters(), 5.0)  # one bad batch shall not undo an epoch
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.averaged.update_parameters(self.segmenter)

    @torch.no_grad()
    def probabilities(self, case: Case) -> Tensor:
        """[3, X, Y, Z] by the averaged weights, on the CPU."""
        return self.averaged.module.eval()(torch.from_numpy(case.image).to(self.device)).cpu()

    def validate(self) -> dict[str, float]:
        """Loss and Dice on whole validation volumes; empty where there are none."""
        if not self.validation_cases:
            return {}
        losses, anterior, posterior = [], [], []
        for case in self.validation_cases:
            probabilities, true = self.probabilities(case), torch.from_numpy(case.labels).long()
            losses.append(functional.nll_loss(probabilities.clamp_min(1e-6).log()[None], true[None]).item())
            found = probabilities.argmax(dim=0).numpy()
            anterior.append(Dice3d(found == 1, case.labels == 1))
            posterior.append(Dice3d(found == 2, case.labels == 2))
        dice = {"dice_anterior": float(np.mean(anterior)), "dice_posterior": float(np.mean(posterior))}
        return {"validation_loss": float(np.mean(losses)), **dice, "dice": float(np.mean(list(dice.values())))}

    def picture(self, epoch: int, board: SummaryWriter) -> None:
        """Image, truth, prediction and probability of a few cases, the same at each epoch."""
        for case in (self.validation_cases or self.train_cases)[:PICTURED]:
            strip = case_strip(case.image, case.labels, self.probabilities(case).numpy())
            board.add_image(f"cases/{case.name}", strip, epoch, dataformats="HWC")

    def log(self, row: dict, board: SummaryWriter) -> None:
        for key, value in row.items():
            if key != "epoch":
                board.add_scalar(key.replace("_", "/", 1), value, row["epoch"])
        told = ", ".join(f"{key} {value:.4f}" for key, value in row.items() if key.startswith(("train", "val", "dice")))
        print(f"epoch {row['epoch'] + 1}/{self.config.epochs}: {told}, {row['seconds']:.0f} s", flush=True)

    def save(self) -> None:
        """`best.pt` if this epoch is the best yet (without validation: in any case), `last.pt` and `history.csv`."""
        if self.best_epoch() == len(self.history) - 1:
            weights = self.averaged.module.state_dict()
            write_whole({"config": dataclasses.asdict(self.config), "weights": weights}, self.folder / "best.pt")
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        write_whole({**state, "history": self.history, "random": random}, self.folder / "last.pt")
        write_rows(self.history, self.folder / "history.csv")

    def best_epoch(self) -> int:
        """Index of the epoch with the best validation Dice; the last one where nothing was validated."""
        scores = [row.get("dice", math.inf) for row in self.history]
        return max(range(len(scores)), key=lambda n: (scores[n], n))

    def seconds(self) -> float:
        """Wall time of all epochs."""
        return round(sum(row["seconds"] for row in self.history), 1)

    def load_last(self) -> None:
        state = torch.load(self.folder / "last.pt", map_location=self.device, weights_only=True)
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history = state["history"]
        torch.set_rng_state(state["random"]["cpu"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"].cpu())
