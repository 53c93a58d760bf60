"""The test on held-out volumes: scores by exported models, their tables and figures."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

import figures
from hippocampus_data import Case
from model_export import ExportedModel
from volume_interval import calibrate
from volume_stats import score_volume, table, write_scores


def run_test(models: list[ExportedModel], cases: list[Case]) -> tuple[list[dict], list[np.ndarray]]:
    """Scores and labels [X, Y, Z] of each case by the exported files themselves, their probabilities averaged."""
    scores, labels = [], []
    for case in tqdm(cases, "test", disable=None, leave=False):
        labels.append(np.mean([model(case.image) for model in models], axis=0).argmax(axis=0))
        scores.append(score_volume(case.name, labels[-1], case.labels))
    return scores, labels


def write_report(
    folder: Path, cases: list[Case], folds: list[list[dict]], labels: list[np.ndarray], facts: dict
) -> dict:
    """results.json and .csv, the figures, and the main figures on the terminal; returns the content of results.json.

    `folds` are the scores of each fold, in the order of all cases; a single split is one fold.
    """
    scores = [score for fold in folds for score in fold]
    report = write_scores(folder, "results", scores, {**facts, "volume_interval": calibrate(folds)})
    figures.bland_altman(scores, folder / "bland_altman.png")
    figures.dice_by_volume(scores, folder / "dice_by_volume.png")
    figures.best_and_worst(cases, scores, labels, folder / "best_and_worst.png")
    print(f"{facts['protocol']}\n{table(report['summary'])}")
    return report
