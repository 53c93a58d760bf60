"""How well a segmentation agrees with the truth: overlap, surface distance and volume, for one volume and for many."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

STRUCTURES = {"anterior": (1,), "posterior": (2,), "whole": (1, 2)}

WHAT_THEY_ARE = {
    "dice": "2 |A and B| / (|A| + |B|) of the structure's voxels; 1 if both are empty",
    "jaccard": "|A and B| / |A or B|; 1 if both are empty",
    "sensitivity": "share of the true voxels that were found",
    "specificity": "share of the crop's other voxels that were left out; near 1 for any small structure",
    "hd95_mm": "95 % Hausdorff distance: the larger of the two directed 95th percentiles between surface voxels, mm",
    "asd_mm": "average symmetric surface distance: mean over the surface voxels of both, mm",
    "volume_mm3": "volume found, mm3",
    "true_volume_mm3": "volume of the label, mm3",
    "volume_error_mm3": "found minus true, mm3",
    "volume_error_percent": "found minus true, % of true",
    "absolute_volume_error_percent": "its absolute value",
    "whole": "any label against any label: an easier figure than the two structures'",
}


def Dice3d(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks [X, Y, Z] of bool; 1 if both are empty. Raises ValueError for different shapes."""
    same_shape(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def Jaccard3d(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard index of two masks [X, Y, Z] of bool; 1 if both are empty. Raises ValueError for different shapes."""
    same_shape(a, b)
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"masks differ in shape: {a.shape} and {b.shape}")


def surface_distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from each surface voxel of `a` to the surface of `b`, and the other way round.

    A surface voxel is one of the mask with a face neighbour outside it; beyond the crop counts as outside.
    Masks [X, Y, Z] of bool, neither empty.
    """
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    to_a, to_b = (ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces)
    return to_b[surfaces[0]], to_a[surfaces[1]]


def score_structure(found: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    """All measures of one structure (`WHAT_THEY_ARE`) from two masks [X, Y, Z] of bool; NaN where undefined."""
    voxel = math.prod(spacing)
    volume, true_volume = np.count_nonzero(found) * voxel, np.count_nonzero(true) * voxel
    both = np.count_nonzero(found & true) * voxel
    outside = true.size * voxel - true_volume
    distances = surface_distances(found, true, spacing) if volume and true_volume else ([math.nan], [math.nan])
    error = volume - true_volume
    percent = 100 * error / true_volume if true_volume else math.nan
    return {
        "dice": Dice3d(found, true),
        "jaccard": Jaccard3d(found, true),
        "sensitivity": both / true_volume if true_volume else math.nan,
        "specificity": 1 - (volume - both) / outside if outside else math.nan,
        "hd95_mm": max(float(np.percentile(d, 95)) for d in distances),
        "asd_mm": float(np.mean(np.concatenate(distances))),
        "volume_mm3": volume,
        "true_volume_mm3": true_volume,
        "volume_error_mm3": error,
        "volume_error_percent": percent,
        "absolute_volume_error_percent": abs(percent),
    }


def structure_mask(labels: np.ndarray, structure: str) -> np.ndarray:
    """The voxels of one of STRUCTURES, bool, of labels of any shape."""
    return np.isin(labels, STRUCTURES[structure])


def score_volume(name: str, found: np.ndarray, true: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1)) -> dict:
    """Measures of one labelled volume [X, Y, Z] (0, 1 anterior, 2 posterior) as {"name", structure: measures}."""
    masks = {s: (structure_mask(found, s), structure_mask(true, s)) for s in STRUCTURES}
    return {"name": name, **{s: score_structure(*pair, spacing) for s, pair in masks.items()}}


def dice_by_slice(found: np.ndarray, true: np.ndarray) -> dict[str, list[float | None]]:
    """{structure: Dice of each coronal slice, from the back on}, of labels [X, Y, Z]; None where both are empty."""
    result = {}
    for structure in STRUCTURES:
        a, b = (structure_mask(labels, structure) for labels in (found, true))
        shared, in_a, in_b = (np.count_nonzero(mask, axis=(0, 2)).tolist() for mask in (a & b, a, b))
        slices = zip(shared, in_a, in_b, strict=True)
        result[structure] = [2 * both / (one + other) if one + other else None for both, one, other in slices]
    return result


def best_and_worst_slice(dice: list[float | None]) -> dict | None:
    """{"best", "worst"}: index and Dice of a case's slice, the first of equals; None if all slices are empty."""
    known = {index: value for index, value in enumerate(dice) if value is not None}
    if not known:
        return None
    best, worst = max(known, key=known.get), min(known, key=known.get)
    return {name: {"slice": n, "dice": known[n]} for name, n in (("best", best), ("worst", worst))}


def summarise(scores: list[dict]) -> dict:
    """{structure: {measure: {mean, sd, min, max, n}}} over volumes; n counts those where it is defined."""

    def spread(values: Iterable[float]) -> dict[str, float]:
        v = np.array([x for x in values if math.isfinite(x)])
        if not v.size:
            return {"n": 0}
        sd = float(v.std(ddof=1)) if v.size > 1 else math.nan
        figures = {"mean": v.mean(), "sd": sd, "min": v.min(), "max": v.max()}
        return {key: float(value) for key, value in figures.items() if math.isfinite(value)} | {"n": v.size}

    return {s: {m: spread(score[s][m] for score in scores) for m in scores[0][s]} for s in STRUCTURES}


def standard_error(values: Sequence[float], persons: Sequence[str]) -> float:
    """Of the mean over volumes, whose `persons` say which belong together; NaN for a single person.

    The two hippocampi of a person are alike, so SD / sqrt(volumes) would be too small. Cluster-robust estimator of
    Liang and Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73:13-22, 1986.
    """
    names, person = np.unique(persons, return_inverse=True)
    if len(names) < 2:
        return math.nan
    deviations = np.bincount(person, np.asarray(values) - np.mean(values))
    return math.sqrt(len(names) / (len(names) - 1) * float((deviations**2).sum())) / len(values)


def write_scores(folder: Path, stem: str, scores: list[dict], facts: dict) -> dict:
    """Writes `stem`.json (facts, what each figure is, summary), returned, and `stem`.csv (a row per volume)."""
    report = {**facts, "volumes": len(scores), "what_they_are": WHAT_THEY_ARE, "summary": summarise(scores)}
    (folder / f"{stem}.json").write_text(json.dumps(report, indent=2) + "\n")
    with (folder / f"{stem}.csv").open("w", newline="") as file:
        table = csv.writer(file)
        facts_of_volume = [key for key in scores[0] if key not in STRUCTURES]
        table.writerow([*facts_of_volume, *(f"{s}_{m}" for s in STRUCTURES for m in scores[0][s])])
        for score in scores:
            measures = (v for s in STRUCTURES for v in score[s].values())
            table.writerow([*(score[key] for key in facts_of_volume), *measures])
    return report


def write_rows(rows: list[dict], path: Path) -> None:
    """CSV with a line for each row; the first row names the columns."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def table(summary: dict) -> str:
    """The summary's main figures as lines for a terminal: mean ± standard deviation over volumes."""
    measures = {
        "dice": "Dice",
        "hd95_mm": "HD95 mm",
        "asd_mm": "ASD mm",
        "absolute_volume_error_percent": "|volume error| %",
        "volume_error_percent": "bias %",
    }
    lines = [("mean ± SD", *measures.values())]
    for structure, found in summary.items():
        cells = [found[m] for m in measures]
        texts = [f"{c['mean']:.3f} ± {c.get('sd', 0):.3f}" if c["n"] else "undefined" for c in cells]
        lines.append((structure, *texts))
    return aligned(lines)


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows of cells as lines for a terminal: the first column flush left, the others flush right, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:{widths[0]}}", *cells]))
    return "\n".join(lines)


def markdown(rows: list[tuple[str, ...]]) -> str:
    """Rows of cells, the first one the titles, as a Markdown table whose columns stand apart on a terminal too."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
