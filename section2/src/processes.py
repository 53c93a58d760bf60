"""One process, or the several that torchrun started: what they share. Without torchrun nothing here does anything.

    torchrun --standalone --nproc-per-node 2 run_ml_pipeline.py ...

Only the first process writes and prints. On several machines all must see the same data and run folders.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# The others wait while the first one tests, exports and draws; that a process died is noticed at once.
LONGEST_WAIT = timedelta(minutes=30)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started: by NCCL with a GPU each, or gloo on the CPU. Only the first prints."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    with contextlib.nullcontext() if rank() == 0 else contextlib.redirect_stdout(None):
        yield
    dist.destroy_process_group()  # not after an error: it could wait for processes that wait for this one


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def agreed(value: T) -> T:
    """The first process's value, on all of them; the others wait for it."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box)
    return box[0]


def mean_of_all(value: float, device: torch.device) -> float:
    """The mean of the processes' values, on all of them."""
    total = torch.tensor(float(value), dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(total)
    return total.item() / world_size()
