"""The test on held-out volumes: scores by exported models, their tables and figures."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

import figures
from disagreement import best_and_worst
from hippocampus_data import Case, person_of
from model_export import ExportedModel
from volume_interval import calibrate
from volume_stats import STRUCTURES, score_volume, standard_error, table, write_rows, write_scores


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

    `folds` are the scores of each fold, in the order of all cases; a single split is one fold. More than one also give
    results_by_fold.csv and a column `fold` in results.csv.
    """
    scores = [score for fold in folds for score in fold]
    facts = {**facts, "volume_interval": calibrate(folds)}
    if len(folds) > 1:
        scores = [{"name": s["name"], "fold": n, **s} for n, fold in enumerate(folds, start=1) for s in fold]
        facts["by_fold"] = by_fold(folds)
        write_rows(facts["by_fold"], folder / "results_by_fold.csv")
    report = write_scores(folder, "results", scores, facts)
    figures.bland_altman(scores, folder / "bland_altman.png")
    figures.dice_by_volume(scores, folder / "dice_by_volume.png")
    best_and_worst(cases, scores, labels, folder / "best_and_worst.png")
    print(f"{facts['protocol']}\n{table(report['summary'])}")
    if len(folds) > 1:
        print(fold_table(facts["by_fold"]))
    return report


def by_fold(folds: list[list[dict]]) -> list[dict]:
    """Dice with its standard error over persons: a row for each fold and a last one for all of them, "pooled"."""
    rows = []
    for name, scores in [*enumerate(folds, start=1), ("pooled", [score for fold in folds for score in fold])]:
        persons = [person_of(score["name"]) for score in scores]
        row = {"fold": name, "volumes": len(scores), "persons": len(set(persons))}
        for structure in STRUCTURES:
            dice = [score[structure]["dice"] for score in scores]
            row |= {f"{structure}_dice": float(np.mean(dice)), f"{structure}_se": standard_error(dice, persons)}
        rows.append(row)
    return rows


def fold_table(rows: list[dict]) -> str:
    """The rows of `by_fold` as lines for a terminal."""
    lines = [f"{'fold':8}{'volumes':>8}{'persons':>8}" + "".join(f"{f'Dice {s} ± SE':>24}" for s in STRUCTURES)]
    for row in rows:
        cells = [f"{row[f'{s}_dice']:.4f} ± {row[f'{s}_se']:.4f}" for s in STRUCTURES]
        lines.append(f"{row['fold']!s:8}{row['volumes']:8}{row['persons']:8}" + "".join(f"{c:>24}" for c in cells))
    return "\n".join(lines)
