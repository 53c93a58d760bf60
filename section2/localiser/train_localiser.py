"""Train the network that finds the hippocampi in a head, on images made from label maps and on nothing else.

    python train_localiser.py --label-maps DIR [--out RUN] [--steps N]

Writes RUN/localiser.pt every two minutes, from which the same command goes on, and RUN/losses.csv. The defaults are the
recipe of the shipped one: an hour on two cores. export_localiser.py makes the file for section 3.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

from localiser_net import SCALE, LocaliserNet, coarse_mm
from synthetic_heads import Head, Sample, load_heads, samples
from unet_experiment import mixed_precision

KEEP_SECONDS = 120
NEAR = 45.0  # mm: whose votes on the way to a hippocampus matter


class Samples(IterableDataset):
    """Endless; each worker has its own."""

    def __init__(self, heads: list[Head], seed: int):
        self.heads, self.seed = heads, seed

    def __iter__(self) -> Iterator[tuple]:
        worker = torch.utils.data.get_worker_info()
        for one in samples(self.heads, self.seed + (worker.id if worker else 0)):
            yield as_tensors(one)


def as_tensors(one: Sample) -> tuple[torch.Tensor, ...]:
    arrays = (one.image[None], one.brain[None], one.pose[:3].astype(np.float32), one.hippocampi.astype(np.float32))
    return tuple(torch.from_numpy(array) for array in arrays)


def losses(net: LocaliserNet, batch: tuple[torch.Tensor, ...], mm: torch.Tensor) -> dict[str, torch.Tensor]:
    """brain: cross entropy. The others are mean distances in units of SCALE mm: point and whole over the brain, of the
    point that a voxel is told to be and of where the whole pose puts it; way near a hippocampus.
    """
    image, brain, pose, hippocampi = batch
    with mixed_precision(image.device, wanted=True):
        answer, whole = net.with_pose(image)
    answer, whole = answer.float(), whole.float()
    inside = (brain > 0.5).float()
    count = inside.sum().clamp(min=1)
    truth = torch.einsum("bij,jxyz->bixyz", pose[:, :, :3], mm) + pose[:, :, 3, None, None, None]
    distance = (answer[:, 1:4] - truth / SCALE).norm(dim=1, keepdim=True)
    by_whole = torch.einsum("bij,jxyz->bixyz", whole[:, :, :3], mm / SCALE) + whole[:, :, 3, None, None, None]
    far = (by_whole - truth / SCALE).norm(dim=1, keepdim=True)
    way = torch.zeros(())
    for side in range(2):
        seen = hippocampi[:, side].isfinite().all(1).float()
        middle = torch.nan_to_num(hippocampi[:, side])[:, :, None, None, None]
        true_way = middle - mm
        weight = (
            inside * torch.exp(-((true_way.norm(dim=1, keepdim=True) / NEAR) ** 2)) * seen[:, None, None, None, None]
        )
        found = (answer[:, 4 + 3 * side : 7 + 3 * side] - true_way / SCALE).norm(dim=1, keepdim=True)
        way = way + (weight * found).sum() / weight.sum().clamp(min=1)
    return {
        "brain": functional.binary_cross_entropy_with_logits(answer[:, :1], brain),
        "point": (distance * inside).sum() / count,
        "whole": (far * inside).sum() / count,
        "way": way / 2,
    }


def train(run: Path, heads: list[Head], steps: int, batch_size: int, rate: float, filters: int, workers: int) -> None:
    """Goes on from RUN/localiser.pt where it is."""
    net, mm = LocaliserNet(filters), coarse_mm()
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    parts = {"net": net, "average": average, "optimizer": optimizer, "schedule": schedule}
    done = _load(run / "localiser.pt", parts)
    loader = iter(DataLoader(Samples(heads, seed=1000 * done), batch_size, num_workers=workers))
    sums: dict[str, float] = {}
    kept_at = time.monotonic()
    for step, batch in enumerate(islice(loader, steps - done), start=done + 1):
        found = losses(net, batch, mm)
        optimizer.zero_grad()
        sum(found.values()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(net)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / 50
        if step % 50 == 0:
            _note(run / "losses.csv", step, sums)
            sums = {}
        if step == steps or time.monotonic() > kept_at + KEEP_SECONDS:
            _keep(run / "localiser.pt", parts, step)
            kept_at = time.monotonic()


def _load(path: Path, parts: dict) -> int:
    """The steps that were done."""
    if not path.exists():
        return 0
    kept = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    return kept["step"]


def _keep(path: Path, parts: dict, step: int) -> None:
    unfinished = path.with_suffix(".unfinished")
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": step}, unfinished)
    unfinished.replace(path)


def _note(path: Path, step: int, sums: dict[str, float]) -> None:
    """mm, but for brain."""
    row = {"step": step, **{name: round(value * (1 if name == "brain" else SCALE), 3) for name, value in sums.items()}}
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the network that finds the hippocampi in a head.")
    parser.add_argument("--label-maps", type=Path, required=True, metavar="DIR", help="of whole heads, NIfTI")
    parser.add_argument(
        "--out", type=Path, default=Path("../out/localiser"), metavar="RUN", help="default: %(default)s"
    )
    parser.add_argument("--steps", type=int, default=6000, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rate", type=float, default=8e-4, metavar="R", help="peak of a one-cycle schedule (%(default)s)"
    )
    parser.add_argument("--filters", type=int, default=24, metavar="N", help="of the first level (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="that make images (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    heads, _ = load_heads(args.label_maps)
    train(args.out, heads, args.steps, args.batch_size, args.rate, args.filters, args.workers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
