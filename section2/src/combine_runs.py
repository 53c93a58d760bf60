"""Averages the models of several runs into one file, tested on what none of them was trained on.

    python combine_runs.py ../out/RUN ../out/RUN

The runs share data, split and folds (the same --seed, --folds and shares); their networks may differ.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from checkpoint import load_best
from config import Config
from held_out_test import run_test, write_report
from hippocampus_data import Case, DataError, LoadHippocampusData
from model_card import data_facts, make_card
from model_export import ExportedModel, export_model
from run_ml_pipeline import HELD_OUT, add_folders, made
from volume_segmenter import AveragedSegmenter


def combine(runs: list[Path], root: Path, cases: list[Case], folder: Path) -> None:
    """Tests the average on each fold (or the one split), then exports that of the runs' final models."""
    configs = [Config.load(run / "config.json") for run in runs]
    folds = configs[0].folds
    tested, scores, labels = [], [], []
    for held_out, models in tested_parts(runs, cases):
        of_part, found = run_test(models, held_out)
        tested, labels = tested + held_out, labels + found
        scores.append(of_part)
    data = data_facts(root, cases)
    facts = {
        "protocol": f"{f'{folds} folds' if folds else 'one split'} {HELD_OUT}, {len(runs)} networks averaged",
        "configs": [dataclasses.asdict(config) for config in configs],
        "data": data,
    }
    report = write_report(made(folder), tested, scores, labels, facts)

    final = [run / "all" if folds else run for run in runs]
    training = {**data, "networks": [ExportedModel(run / "model.onnx").card["training"] for run in final]}
    averaged = AveragedSegmenter([load_best(run)[1] for run in final])
    named = dataclasses.replace(configs[0], name=f"{configs[0].name}-ensemble")
    export_model(averaged, folder / "model.onnx", make_card(named, training, report))
    print(f"model: {folder / 'model.onnx'}")


def tested_parts(runs: list[Path], cases: list[Case]) -> Iterator[tuple[list[Case], list[ExportedModel]]]:
    """The test cases of each fold (or of the one split), and the model of each run that did not see them.

    Raises DataError where the runs were not tested on the same.
    """
    config = Config.load(runs[0] / "config.json")
    folds = [config.only_fold] if config.only_fold else range(1, config.folds + 1)
    for part in [f"fold_{n}" for n in folds] or ["."]:
        folders = [run / part for run in runs]
        yield common_test(folders, cases), [ExportedModel(folder / "model.onnx") for folder in folders]


def common_test(runs: list[Path], cases: list[Case]) -> list[Case]:
    """The test cases of all runs. Raises DataError if they differ, or if one run trained on another's test."""
    splits = [json.loads((run / "split.json").read_text()) for run in runs]
    if any(split["test"] != splits[0]["test"] for split in splits):
        raise DataError(
            f"{', '.join(map(str, runs))} were tested on different volumes; give them the same seed and folds"
        )
    if not splits[0]["test"]:
        raise DataError(f"{runs[0]} held nothing out, so its average with others cannot be tested")
    by_name = {case.name: case for case in cases}
    return [by_name[name] for name in splits[0]["test"]]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    add_folders(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    try:
        folder = args.out / time.strftime("%Y%m%d-%H%M%S-combined")
        combine(args.runs, args.data_root, LoadHippocampusData(args.data_root), folder)
    except (DataError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
