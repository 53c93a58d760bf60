"""Trains, tests and exports the hippocampus network: configuration -> data -> split -> train -> export -> test.

python run_ml_pipeline.py                      # on section1/out
python run_ml_pipeline.py --folds 5            # cross-validation by person, then a model trained on all
python run_ml_pipeline.py --resume ../out/RUN  # goes on where a run was stopped
python run_ml_pipeline.py --fine-tune ../out/RUN/model.onnx --data-root DIR  # from its weights, on other data
torchrun --standalone --nproc-per-node 2 run_ml_pipeline.py ...  # on several GPUs, or processes without one
"""

import argparse
import dataclasses
import json
import sys
import time
from hashlib import sha256
from pathlib import Path

import environment  # noqa: F401  # isort: skip

import figures
from config import NETWORK, Config, add_options, given_settings
from held_out_test import HELD_OUT, HeldOut, run_test, write_report
from hippocampus_data import Case, DataError, LoadHippocampusData, Split, fold_splits, split_by_person
from model_export import ExportedModel, data_facts, export_model, make_card, write_card
from processes import agreed, process_group, rank, world_size
from runs import add_folders, load_best, made, write_whole
from unet_experiment import UNetExperiment, choose_device
from volume_stats import summarise, table


def run_pipeline(config: Config, root: Path, cases: list[Case], folder: Path) -> None:
    """All steps of one run; with folds, one run for each and a last one on everybody."""
    names = [case.name for case in cases]
    data = data_facts(root, cases) | parent_facts(config)
    if config.batch_size % world_size():
        raise ValueError(f"setting batch_size {config.batch_size} cannot be divided among {world_size()} processes")
    if rank() == 0:
        config.save(made(folder) / "config.json")

    if not config.folds:
        split = split_by_person(names, config.test_share, config.validation_share, config.seed)
        train_and_test(config, cases, split, folder, data)
        return
    splits = fold_splits(names, config.folds, config.validation_share, config.seed)
    if config.only_fold:
        fold = made(folder / f"fold_{config.only_fold}")
        train_and_test(config, cases, splits[config.only_fold - 1], fold, data)
        return
    report = cross_validate(config, cases, splits, folder, data)
    print("the model for use: trained on everybody")
    train_and_test(config, cases, Split(names, [], []), made(folder / "all"), data, report)


def cross_validate(config: Config, cases: list[Case], splits: list[Split], folder: Path, data: dict) -> dict | None:
    """A run for each fold; returns the report of all of them together, in the first process."""
    folds = []
    for n, split in enumerate(splits, start=1):
        print(f"fold {n} of {len(splits)}")
        folds.append(train_and_test(config, cases, split, made(folder / f"fold_{n}"), data))
    if rank() > 0:
        return None
    histories = sorted(folder.glob("fold_*/history.csv"))
    figures.learning_curves_of_folds(histories, config, folder / "learning_curves.png")
    facts = {"protocol": f"{len(splits)} folds {HELD_OUT}, pooled", "config": dataclasses.asdict(config), "data": data}
    return write_report(folder, folds, facts)


def train_and_test(
    config: Config, cases: list[Case], split: Split, folder: Path, data: dict, report: dict | None = None
) -> HeldOut:
    """One experiment in its folder, and its test. `report` is that of the folds.

    Of several processes all train, and the first alone tests: what the others return is empty.
    """
    if rank() == 0:
        (folder / "split.json").write_text(json.dumps(dataclasses.asdict(split), indent=1) + "\n")
    run = UNetExperiment(config, cases, split, folder)
    run.train()
    if rank() > 0:
        return HeldOut([], [], [])
    figures.learning_curves(run.history, config, folder / "learning_curves.png")

    path = folder / "model.onnx"
    training = {**data, "volumes": len(split.train), "epochs": run.best_epoch() + 1, "seconds": run.seconds()}
    _, segmenter = load_best(folder)
    write_whole(segmenter.state_dict(), folder / "model.pth")
    export_model(segmenter, path, make_card(config, training, report))
    tested = run_test([ExportedModel(path)], run.test_cases)
    if tested.cases:
        facts = {"protocol": f"one split {HELD_OUT}", "config": dataclasses.asdict(config), "training": training}
        if config.fine_tune:
            before = run_test([ExportedModel(Path(config.fine_tune))], run.test_cases)
            facts["summary_before"] = summarise(before.scores)
            print(f"before fine-tuning\n{table(facts['summary_before'])}\nafter fine-tuning")
        report = write_report(folder, [tested], facts)
        write_card(path, make_card(config, training, report))
    print(f"model: {path}")
    return tested


def parent_facts(config: Config) -> dict:
    """What the card says of the model that was the start, if there was one."""
    if not config.fine_tune:
        return {}
    path = Path(config.fine_tune)
    card = ExportedModel(path).card
    return {"parent": {k: card[k] for k in ("name", "version")} | {"sha256": sha256(path.read_bytes()).hexdigest()}}


def settings(args: argparse.Namespace) -> Config:
    """Those of the run to resume; else the defaults, the file's or the parent model's, changed by the options given."""
    given = given_settings(args)
    if args.teachers:
        given["teachers"] = [str(run.resolve()) for run in args.teachers]
    if args.resume:
        return Config.load(args.resume / "config.json")
    if args.config:
        return Config.load(args.config, **given)
    if args.fine_tune:
        parent, _ = load_best(args.fine_tune.parent)
        for name in NETWORK & given.keys():
            raise ValueError(f"{args.fine_tune} has {name} {getattr(parent, name)}; it cannot be changed")
        return dataclasses.replace(parent, **{"folds": 0, **given, "fine_tune": str(args.fine_tune.resolve())})
    return Config(**given)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--config", type=Path, metavar="FILE", help="JSON file of settings; options given here win")
    start.add_argument("--resume", type=Path, metavar="RUN", help="folder of a run to go on with, as its settings say")
    start.add_argument("--fine-tune", type=Path, metavar="MODEL", help="model.onnx of a run: its weights are the start")
    parser.add_argument(
        "--teachers", type=Path, nargs="+", metavar="RUN", help="runs to distil, averaged, into the first"
    )
    add_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    folder = args.resume or args.out / time.strftime("%Y%m%d-%H%M%S")
    try:
        config = settings(args)
        cases = LoadHippocampusData(args.data_root)
        with process_group(choose_device(config.device)):
            folder = agreed(folder)
            print(f"{len(cases)} volumes of {len({case.person for case in cases})} persons; run: {folder}", flush=True)
            run_pipeline(config, args.data_root, cases, folder)
    except (DataError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; python run_ml_pipeline.py --resume {folder} goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
