"""A recipe with one thing changed, trained and tested on one fold, in a process of its own."""

import argparse
import csv
import dataclasses
import multiprocessing
import os
import resource
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from config import Config
from hippocampus_data import (
    Case,
    DataError,
    LoadHippocampusData,
    Split,
    add_data_root,
    fold_splits,
    person_of,
    read_ras,
)
from nifti import nifti_files
from runs import SECTION, load_best, made
from unet_experiment import UNetExperiment
from volume_stats import score_volume, write_scores

GOES_ON = "stopped; the same command goes on"  # of programs that train by `run_missing`


@dataclass(frozen=True)
class Variant:
    """What differs from a base: settings, the labels, or the volumes to learn from."""

    settings: dict = field(default_factory=dict)
    one_class: bool = False  # both structures under label 1
    left_out: str = ""  # volumes with this flag in section 1's curation.csv
    unlabelled: str = ""  # folder of images to learn from besides,
    labelled_by: str = ""  # by what the network in this folder, which has not seen the test either, finds in them


def merged(case: Case) -> Case:
    """The same with both structures under label 1."""
    return dataclasses.replace(case, labels=(case.labels > 0).astype(case.labels.dtype))


def flagged(root: Path, flag: str) -> set[str]:
    """The volumes that section 1 has given this flag. Raises DataError where its table is missing."""
    table = root / "curation.csv"
    if not table.is_file():
        raise DataError(f"{table} does not exist; expected the table of section1/curation.py, which flags volumes")
    with table.open(newline="") as file:
        return {row["name"] for row in csv.DictReader(file) if flag in row["flags"].split()}


def fewer(split: Split, left_out: set[str]) -> Split:
    """The same test, and the others to train on."""
    return dataclasses.replace(split, train=[name for name in split.train if name not in left_out])


def pseudo_labelled(variant: Variant, split: Split) -> list[Case]:
    """The unlabelled images of persons who are not tested on, with what the network finds; none where it lacks a part.

    Raises DataError where there are none, ValueError where there is no network.
    """
    _, segmenter = load_best(Path(variant.labelled_by))
    tested, cases = {person_of(name) for name in split.test}, []
    for path in nifti_files(Path(variant.unlabelled)):
        if person_of(path.name) not in tested:
            image = read_ras(path).astype(np.float32)
            with torch.no_grad():
                labels = segmenter(torch.from_numpy(image)).argmax(dim=0).numpy().astype(np.uint8)
            if {1, 2} <= set(np.unique(labels)):
                cases.append(Case(f"unlabelled_{path.name}", image, labels))
    if not cases:
        raise DataError(f"{variant.unlabelled} has no image of a person who is not tested on")
    return cases


def run_variant(variant: Variant, base: dict, root: Path, folder: Path, threads: int) -> None:
    """Trains and tests one variant, in a process of its own; writes results.csv and results.json."""
    torch.set_num_threads(threads)
    cases = LoadHippocampusData(root, max_workers=0)
    learned = [merged(case) for case in cases] if variant.one_class else cases
    config = Config(**(base | variant.settings))
    splits = fold_splits([case.name for case in cases], config.folds, config.validation_share, config.seed)
    left_out = flagged(root, variant.left_out) if variant.left_out else set()
    split = fewer(splits[config.only_fold - 1], left_out)
    if variant.unlabelled:
        more = pseudo_labelled(variant, split)
        learned, split = learned + more, dataclasses.replace(split, train=split.train + [case.name for case in more])
    run = UNetExperiment(config, learned, split, made(folder))
    run.train()
    tested = [case for case in cases if case.name in split.test]
    scores = [score_volume(c.name, run.probabilities(c).argmax(dim=0).numpy(), c.labels) for c in tested]
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "parameters": sum(p.numel() for p in run.segmenter.parameters()),
        "processor_seconds": round(used.ru_utime + used.ru_stime),
        "peak_mb": round(used.ru_maxrss / 1024),
    }
    write_scores(folder, "results", scores, {"variant": dataclasses.asdict(variant), "cost": cost})


def run_missing(jobs: list[tuple[Variant, dict, Path]], root: Path, workers: int) -> None:
    """Variant, base and folder of each; those without results yet, `workers` at a time.

    Each has a fresh process, so that its memory can be told.
    """
    missing = [job for job in jobs if not (job[-1] / "results.json").exists()]
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool:
        runs = [pool.submit(run_variant, variant, base, root, folder, threads) for variant, base, folder in missing]
        for run in tqdm(as_completed(runs), "trainings", len(runs), disable=None):
            run.result()


def folder_of(out: Path, name: str) -> Path:
    """Where a variant of that name leaves its results."""
    return out / name.replace(" ", "_").replace(",", "")


def add_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """The data, where results go (in `folder` of section2/out), and how many trainings there are at a time."""
    add_data_root(parser)
    parser.add_argument("--out", type=Path, default=SECTION / "out" / folder, help="runs, tables, figures")
    parser.add_argument("--workers", type=int, default=1, help="variants trained at the same time")
