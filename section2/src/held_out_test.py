"""The test on held-out volumes: scores by exported models, their tables and figures, and how far a volume may be off.

The interval is split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005) on the relative
error: of the true volumes of persons like those of the test, the share LEVEL lies within volume x (1 +- half width).
"""

import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

import figures
from disagreement import best_and_worst
from hippocampus_data import Case, person_of
from model_export import ExportedModel
from volume_stats import (
    STRUCTURES,
    aligned,
    best_and_worst_slice,
    dice_by_slice,
    score_volume,
    standard_error,
    table,
    write_rows,
    write_scores,
)

HELD_OUT = "by volumes of persons held out from training and from the choice of the epoch"
LEVEL = 0.9
SLICES = {  # what results.json says of them
    "axis": "coronal: index along Y of the volume in RAS, from 0 at the back (posterior) to the front (anterior)",
    "dice": "2 |A and B| / (|A| + |B|) of the structure's pixels in the slice; undefined where it is in neither, and "
    "such a slice is neither best nor worst; 0 where it is in one alone",
    "equals": "of slices with the same Dice the first from the back is named; null where all are undefined",
    "all": "results_by_slice.csv, empty where undefined",
}


@dataclass(frozen=True)
class HeldOut:
    """What models say of held-out cases: of each its scores (`score_volume`) and the labels found [X, Y, Z]."""

    cases: list[Case]
    scores: list[dict]
    labels: list[np.ndarray]


def run_test(models: list[ExportedModel], cases: list[Case]) -> HeldOut:
    """The test of the exported files themselves, their probabilities averaged."""
    scores, labels = [], []
    for case in tqdm(cases, "test", disable=None, leave=False):
        labels.append(np.mean([model(case.image) for model in models], axis=0).argmax(axis=0))
        scores.append(score_volume(case.name, labels[-1], case.labels))
    return HeldOut(cases, scores, labels)


def write_report(folder: Path, folds: list[HeldOut], facts: dict) -> dict:
    """results.json and .csv, results_by_slice.csv, the figures, and the main figures on the terminal.

    A single split is one fold; more than one also give results_by_fold.csv and a column `fold` in results.csv. Returns
    the content of results.json.
    """
    by_split = [fold.scores for fold in folds]
    scores = list(chain.from_iterable(by_split))
    facts = {**facts, "volume_interval": calibrate(by_split), "slices": write_slices(folder, folds)}
    if len(folds) > 1:
        scores = [{"name": s["name"], "fold": n, **s} for n, fold in enumerate(by_split, start=1) for s in fold]
        facts["by_fold"] = by_fold(by_split)
        write_rows(facts["by_fold"], folder / "results_by_fold.csv")
    report = write_scores(folder, "results", scores, facts)
    figures.bland_altman(scores, folder / "bland_altman.png")
    figures.dice_by_volume(scores, folder / "dice_by_volume.png")
    cases, labels = ([one for fold in folds for one in getattr(fold, part)] for part in ("cases", "labels"))
    best_and_worst(cases, scores, labels, folder / "best_and_worst.png")
    print(f"{facts['protocol']}\n{table(report['summary'])}")
    if len(folds) > 1:
        print(fold_table(facts["by_fold"]))
    return report


def write_slices(folder: Path, folds: list[HeldOut]) -> dict:
    """results_by_slice.csv, a row for each coronal slice of each case; returns each case's best and worst slice."""
    rows, cases = [], {}
    for case, labels in (pair for fold in folds for pair in zip(fold.cases, fold.labels, strict=True)):
        dice = dice_by_slice(labels, case.labels)
        cases[case.name] = {structure: best_and_worst_slice(values) for structure, values in dice.items()}
        for n, values in enumerate(zip(*dice.values(), strict=True)):
            rows.append({"name": case.name, "slice": n, **dict(zip(dice, values, strict=True))})
    write_rows(rows, folder / "results_by_slice.csv")
    return {**SLICES, "cases": cases}


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
    lines = [("fold", "volumes", "persons", *(f"Dice {s} ± SE" for s in STRUCTURES))]
    for row in rows:
        dice = (f"{row[f'{s}_dice']:.4f} ± {row[f'{s}_se']:.4f}" for s in STRUCTURES)
        lines.append((str(row["fold"]), str(row["volumes"]), str(row["persons"]), *dice))
    return aligned(lines)


def relative_errors(scores: list[dict], structure: str) -> list[float]:
    """|true - found| / found of one structure; infinite where nothing was found."""
    volumes = [(score[structure]["true_volume_mm3"], score[structure]["volume_mm3"]) for score in scores]
    return [abs(true - found) / found if found else math.inf for true, found in volumes]


def half_width(folds: list[list[float]]) -> float:
    """The error that the share LEVEL of new volumes stays below; infinite where there are too few to say."""
    errors = list(chain.from_iterable(folds))
    rank = math.ceil((len(errors) + 1) * LEVEL)
    return sorted(errors)[rank - 1] if rank <= len(errors) else math.inf


def calibrate(folds: list[list[dict]]) -> dict:
    """{"level", "half_width": {structure: share}, "coverage": {structure: share}} from the scores of each fold.

    The coverage is measured: each fold's volumes in intervals from the other folds; absent with a single fold.
    A structure without a finite width is left out.
    """
    widths, coverage = {}, {}
    for structure in STRUCTURES:
        errors = [relative_errors(scores, structure) for scores in folds]
        width = half_width(errors)
        if math.isfinite(width):
            widths[structure] = width
        if len(folds) > 1:
            of_others = [half_width(errors[:n] + errors[n + 1 :]) for n in range(len(folds))]
            inside = [error <= other for fold, other in zip(errors, of_others, strict=True) for error in fold]
            coverage[structure] = sum(inside) / len(inside)
    return {"level": LEVEL, "half_width": widths, **({"coverage": coverage} if coverage else {})}
