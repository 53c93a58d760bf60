"""Trains, tests and exports the hippocampus network: configuration -> data -> split -> train -> export -> test.

python run_ml_pipeline.py                      # on section1/out
python run_ml_pipeline.py --folds 5            # cross-validation by person, then a model trained on all
python run_ml_pipeline.py --resume ../out/RUN  # goes on where a run was stopped
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path

import figures
from config import Config, add_options, config_from
from hippocampus_data import Case, DataError, LoadHippocampusData, Split, fold_splits, split_by_person
from model_export import INTENDED_USE, LABELS, ExportedModel, export_model, write_card
from unet_experiment import UNetExperiment
from volume_stats import STRUCTURES, table, write_scores

SECTION = Path(__file__).resolve().parents[1]
CURATED = SECTION.parent / "section1" / "out"
MEASURES_IN_CARD = ("dice", "hd95_mm", "absolute_volume_error_percent", "volume_error_percent")


def run_pipeline(config: Config, root: Path, cases: list[Case], folder: Path) -> None:
    """All steps of one run; with folds, one run for each and a last one on everybody."""
    names = [case.name for case in cases]
    config.save(made(folder) / "config.json")
    data = data_facts(root, cases)

    if not config.folds:
        split = split_by_person(names, config.test_share, config.validation_share, config.seed)
        train_and_test(config, cases, split, folder, data)
        return
    scores = []
    for n, split in enumerate(fold_splits(names, config.folds, config.validation_share, config.seed), start=1):
        print(f"fold {n} of {config.folds}")
        scores += train_and_test(config, cases, split, made(folder / f"fold_{n}"), data)
    report = write_scores(folder, "results", scores, facts_of(config, data, f"{config.folds}-fold by person, pooled"))
    figures.bland_altman(scores, folder / "bland_altman.png")
    figures.dice_by_volume(scores, folder / "dice_by_volume.png")
    print(f"all folds, {len(scores)} volumes, each held out once\n{table(report['summary'])}")
    print("the model for use: trained on everybody")
    train_and_test(config, cases, Split(names, [], []), made(folder / "all"), data, report)


def train_and_test(
    config: Config, cases: list[Case], split: Split, folder: Path, data: dict, measured: dict | None = None
) -> list[dict]:
    """One experiment in its folder; returns the scores of its test cases. `measured` is the report of the folds."""
    (folder / "split.json").write_text(json.dumps(dataclasses.asdict(split), indent=1) + "\n")
    run = UNetExperiment(config, cases, split, folder)
    run.train()
    figures.learning_curves(run.history, folder / "learning_curves.png")

    path = folder / "model.onnx"
    training = {**data, "volumes": len(split.train), "epochs": run.best_epoch() + 1, "seconds": run.seconds()}
    card = {
        "name": config.name,
        "version": config.version,
        "labels": LABELS,
        "orientation": "RAS",
        "spacing_mm": 1.0,
        "training": training,
        "accuracy": accuracy(measured),
        "intended_use": INTENDED_USE,
    }
    export_model(run.best_segmenter(), path, card)
    if not split.test:
        print(f"model: {path}")
        return []
    scores, probabilities = run.run_test(ExportedModel(path))
    protocol = f"{len(split.test)} volumes of persons that were held out from training and from the choice of the epoch"
    report = write_scores(folder, "results", scores, facts_of(config, training, protocol))
    write_card(path, {**card, "accuracy": accuracy(report)})
    figures.bland_altman(scores, folder / "bland_altman.png")
    figures.dice_by_volume(scores, folder / "dice_by_volume.png")
    figures.best_and_worst(run.test_cases, scores, probabilities, folder / "best_and_worst.png")
    print(f"{protocol}\n{table(report['summary'])}\nmodel: {path}")
    return scores


def data_facts(root: Path, cases: list[Case]) -> dict:
    """What identifies the data in the card: the hash of the curation table, or of the voxels where there is none."""
    curation = root / "curation.csv"
    if curation.is_file():
        return {"curation_sha256": hashlib.sha256(curation.read_bytes()).hexdigest()}
    voxels = hashlib.sha256()
    for case in cases:
        voxels.update(case.image.tobytes() + case.labels.tobytes())
    return {"data_sha256": voxels.hexdigest()}


def facts_of(config: Config, training: dict, protocol: str) -> dict:
    return {"protocol": protocol, "config": dataclasses.asdict(config), "training": training}


def accuracy(report: dict | None) -> dict:
    """The part of a report that goes into the card; says so where nothing was measured."""
    if report is None:
        return {"protocol": "not measured"}
    means = {s: {m: report["summary"][s][m].get("mean") for m in MEASURES_IN_CARD} for s in STRUCTURES}
    return {"protocol": report["protocol"], "volumes": report["volumes"], **means}


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-root", type=Path, default=CURATED, help="folder with images/ and labels/ (default: section1/out)"
    )
    parser.add_argument(
        "--out", type=Path, default=SECTION / "out", help="where the run's folder is made (default: section2/out)"
    )
    parser.add_argument("--config", type=Path, help="JSON file of settings; options given here win over it")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="folder of a run to go on with, settings as it has them"
    )
    add_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    folder = args.resume or args.out / time.strftime("%Y%m%d-%H%M%S")
    try:
        config = Config.load(folder / "config.json") if args.resume else config_from(args, args.config)
        cases = LoadHippocampusData(args.data_root)
        print(f"{len(cases)} volumes of {len({case.person for case in cases})} persons; run: {folder}")
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
