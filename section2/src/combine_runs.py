"""Averages the models of several runs into one file, tested on what none of them was trained on.

    python combine_runs.py ../out/RUN ../out/RUN

The runs share data, split and folds (the same --seed, --folds and shares); their networks may differ.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import environment  # noqa: F401  # isort: skip

from config import Config
from ending import told
from held_out_test import HELD_OUT, run_test, write_report
from hippocampus_data import Case, LoadHippocampusData
from model_export import ExportedModel, data_facts, export_model, make_card
from runs import add_folders, load_best, made, tested_parts
from volume_segmenter import AveragedSegmenter


def combine(runs: list[Path], root: Path, cases: list[Case], folder: Path) -> None:
    """Tests the average on each fold (or the one split), then exports that of the runs' final models."""
    configs = [Config.load(run / "config.json") for run in runs]
    folds = configs[0].folds
    tested = [run_test(models, held_out) for held_out, models in tested_parts(runs, cases)]
    data = data_facts(root, cases)
    facts = {
        "protocol": f"{f'{folds} folds' if folds else 'one split'} {HELD_OUT}, {len(runs)} networks averaged",
        "configs": [dataclasses.asdict(config) for config in configs],
        "data": data,
    }
    report = write_report(made(folder), tested, facts)

    final = [run / "all" if folds else run for run in runs]
    training = {**data, "networks": [ExportedModel(run / "model.onnx").card["training"] for run in final]}
    averaged = AveragedSegmenter([load_best(run)[1] for run in final])
    named = dataclasses.replace(configs[0], name=f"{configs[0].name}-ensemble")
    export_model(averaged, folder / "model.onnx", make_card(named, training, report))
    print(f"model: {folder / 'model.onnx'}")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    add_folders(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    folder = args.out / time.strftime("%Y%m%d-%H%M%S-combined")
    return told(lambda: combine(args.runs, args.data_root, LoadHippocampusData(args.data_root), folder))


if __name__ == "__main__":
    sys.exit(main())
