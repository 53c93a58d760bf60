"""Segments NIfTI volumes with an exported model, each on its own grid; scores them where labels are given.

    python predict.py --model-path ../../section3/model/model.onnx --images DIR --out DIR [--labels DIR]

Writes NAME (uint8: 0 background, 1 anterior, 2 posterior), volumes.csv (a line for each file: its status, why it
failed, its volumes in mm3) and, with labels, metrics.json and .csv. A crop is seen as it lies or as its mirror image
from side to side, of which the model is surer. Exit code 1: a file failed; the others are done all the same. Research
use only.
"""

import argparse
import csv
import sys
from pathlib import Path

import environment  # noqa: F401  # isort: skip

import numpy as np
from tqdm import tqdm

from ending import told
from model_export import ExportedModel
from nifti import SUFFIXES, DataError, as_image, nifti_files, printable, ras_volume, read_nifti, write_image
from resampling import Grid, interpolated, to_model_grid, to_source_grid
from volume_stats import STRUCTURES, score_volume, structure_mask, table, write_scores

NAMES = {"anterior": "anterior", "posterior": "posterior", "whole": "total"}


def predict(args: argparse.Namespace) -> int:
    """Goes through all files; one that cannot be used is named on stderr and the others go on. The exit code."""
    model = ExportedModel(args.model_path)
    paths = nifti_files(args.images) if args.images.is_dir() else [args.images]
    if not paths:
        raise DataError(f"no NIfTI files in {args.images}")
    if not paths[0].name.endswith(SUFFIXES):
        raise DataError(f"{args.images} is no NIfTI file; expected a name that ends in {' or '.join(SUFFIXES)}")
    if args.out.resolve() == paths[0].parent.resolve():
        raise DataError(f"--out {args.out} is the folder of the images; they would be overwritten")
    args.out.mkdir(parents=True, exist_ok=True)
    rows, scores = [], []
    for path in tqdm(paths, "segment", disable=None):
        row = {"name": printable(path.name), "status": "done", "reason": ""}
        try:
            volumes, score = predict_file(path, model, args)
            rows.append(row | volumes)
            scores += [score] if score else []
        except (DataError, OSError) as error:
            reason = printable(str(error))
            print(reason, file=sys.stderr)
            rows.append(row | {"status": "failed", "reason": reason.removeprefix(f"{printable(path)}: ")})
    write_volumes(args.out / "volumes.csv", rows)
    done = sum(row["status"] == "done" for row in rows)
    print(f"{done} of {len(rows)} volumes segmented, research use only; mm3: {args.out / 'volumes.csv'}")
    if scores:
        facts = {"protocol": "labels given by the user", "model": {k: model.card[k] for k in ("name", "version")}}
        print(table(write_scores(args.out, "metrics", scores, facts)["summary"]))
    return 0 if done == len(rows) else 1


def predict_file(path: Path, model: ExportedModel, args: argparse.Namespace) -> tuple[dict, dict | None]:
    """Segments one file and writes its labels; returns its volumes and, with labels, its scores."""
    image = read_nifti(path)
    truth = read_nifti(args.labels / path.name) if args.labels else None
    if truth is not None and truth.shape != image.shape:
        raise DataError(f"{args.labels / path.name}: shape is {truth.shape}, its image has {image.shape}")
    source = ras_volume(image)
    seen = to_model_grid(source)
    probabilities = surer_answer(model, seen.voxels)
    labels = to_source_grid(probabilities, seen.grid, source.grid)
    if truth is None and not (np.any(labels == 1) and np.any(labels == 2)):  # with labels, finding nothing has a score
        raise DataError(f"{path}: the model finds no hippocampus with both parts")
    on_image = as_image(labels, image)
    write_image(on_image, args.out / path.name)
    if args.save_probabilities:
        chances = chances_of(interpolated(probabilities, seen.grid, source.grid))
        write_image(as_image(chances, image), args.out / f"{path.name.split('.nii')[0]}_probabilities.nii.gz")
    scores = None
    if truth is not None:
        found, true = (np.asanyarray(one.dataobj) for one in (on_image, truth))
        scores = score_volume(printable(path.name), found, true, Grid(image.shape, image.affine).spacing)
    return volumes_mm3(labels, source.grid, model.card.get("volume_interval")), scores


def surer_answer(model: ExportedModel, voxels: np.ndarray) -> np.ndarray:
    """Probabilities [3, X, Y, Z] of a crop [X, Y, Z], or of its mirror image from side to side where the model is surer
    of that: it knows left hippocampi in RAS alone. The clinic does the same.
    """
    return max(model(voxels), model(voxels[::-1])[:, ::-1], key=confidence)


def confidence(probabilities: np.ndarray) -> float:
    """The mean probability inside the structure; 0 where there is none."""
    inside = probabilities.argmax(axis=0) > 0
    return float(probabilities.max(axis=0)[inside].mean()) if inside.any() else 0.0


def chances_of(values: np.ndarray) -> np.ndarray:
    """Interpolated probabilities [3, X, Y, Z] as [X, Y, Z, 3] within 0 to 1 and of sum 1."""
    values = np.moveaxis(np.clip(values, 0, 1), 0, -1)
    return values / values.sum(axis=-1, keepdims=True)


def volumes_mm3(labels: np.ndarray, grid: Grid, interval: dict | None) -> dict[str, float]:
    """The volumes in a row of volumes.csv, with the ends of their intervals where the model's card has calibrated ones.

    As in the clinic the voxels of labels [X, Y, Z] are counted.
    """
    found = {s: np.count_nonzero(structure_mask(labels, s)) * grid.voxel_mm3 for s in STRUCTURES}
    row = {f"{NAMES[s]}_mm3": volume for s, volume in found.items()}
    for s, width in (interval or {"half_width": {}})["half_width"].items():
        row |= {f"{NAMES[s]}_low_mm3": found[s] * (1 - width), f"{NAMES[s]}_high_mm3": found[s] * (1 + width)}
    return {key: round(float(value), 1) for key, value in row.items()}


def write_volumes(path: Path, rows: list[dict]) -> None:
    """A line for each file; of one that failed the volumes are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, max(rows, key=len))
        table.writeheader()
        table.writerows(rows)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-path", type=Path, required=True, help="model.onnx of a run")
    parser.add_argument("--images", type=Path, required=True, help="a NIfTI file or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--labels", type=Path, help="folder with the true labels, named as the images")
    parser.add_argument("--save-probabilities", action="store_true", help="also NAME_probabilities.nii.gz [I, J, K, 3]")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return told(lambda: predict(args))


if __name__ == "__main__":
    sys.exit(main())
