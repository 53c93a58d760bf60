"""Segments NIfTI volumes with an exported model, each on its own grid; scores them where labels are given.

    python predict.py --model-path ../../section3/model/model.onnx --images DIR --out DIR [--labels DIR]

Writes NAME (uint8: 0 background, 1 anterior, 2 posterior), volumes.csv (mm3) and, with labels, metrics.json and .csv.
Research use only.
"""

import argparse
import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.processing import resample_from_to
from tqdm import tqdm

from hippocampus_data import SPACING_TOLERANCE, DataError, nifti_files, read_nifti
from model_export import ExportedModel
from volume_stats import STRUCTURES, score_volume, structure_mask, table, write_scores

LARGEST_MM = 128  # of a crop along any axis; the curated ones measure up to 59

NAMES = {"anterior": "anterior", "posterior": "posterior", "whole": "total"}


def to_model_grid(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The same image in RAS at 1 mm: axes reordered; resampled (cubic) only where spacing or obliquity ask for it.

    Resampled it keeps its middle and its size in mm, as the model relies on the margins that crops leave.
    """
    ras = nib.as_closest_canonical(image)
    if np.allclose(ras.affine[:3, :3], np.eye(3), atol=SPACING_TOLERANCE):
        return ras
    shape = np.maximum(np.round(ras.shape * voxel_sizes(ras.affine)), 1).astype(int)
    affine = np.eye(4)
    affine[:3, 3] = apply_affine(ras.affine, (np.array(ras.shape) - 1) / 2) - (shape - 1) / 2
    return resample_from_to(ras, (shape, affine), order=3, mode="nearest")


def segment(image: nib.Nifti1Image, model: ExportedModel) -> np.ndarray:
    """Probabilities [3, I, J, K] on the image's own grid, whatever its orientation and spacing."""
    grid = to_model_grid(image)
    probabilities = model(np.asanyarray(grid.dataobj))
    # Probabilities are brought back, not labels: the border between structures stays where it is below a voxel.
    back = [
        resample_from_to(nib.Nifti1Image(p, grid.affine), image, order=1, mode="nearest").get_fdata(dtype=np.float32)
        for p in probabilities
    ]
    return np.stack(back)


def volumes_mm3(labels: np.ndarray, image: nib.Nifti1Image, interval: dict | None) -> dict[str, float]:
    """A row of volumes.csv: the volumes, and the ends of their intervals where the model's card has calibrated ones."""
    voxel = abs(np.linalg.det(image.affine[:3, :3]))
    found = {s: np.count_nonzero(structure_mask(labels, s)) * voxel for s in STRUCTURES}
    row = {f"{NAMES[s]}_mm3": volume for s, volume in found.items()}
    for s, width in (interval or {"half_width": {}})["half_width"].items():
        row |= {f"{NAMES[s]}_low_mm3": found[s] * (1 - width), f"{NAMES[s]}_high_mm3": found[s] * (1 + width)}
    return {key: round(float(value), 1) for key, value in row.items()}


def write_nifti(voxels: np.ndarray, like: nib.Nifti1Image, path: Path) -> None:
    image = nib.Nifti1Image(voxels, like.affine)
    image.header.set_xyzt_units("mm")
    unfinished = path.with_name(f".unfinished_{path.name}")
    nib.save(image, unfinished)
    unfinished.replace(path)


def predict_file(path: Path, model: ExportedModel, args: argparse.Namespace) -> tuple[dict, dict | None]:
    """Segments one file and writes its labels; returns its volumes and, with labels, its scores."""
    image = read_nifti(path)
    extent = np.array(image.shape) * image.header.get_zooms()
    if extent.max() > LARGEST_MM:
        raise DataError(
            f"{path}: is {extent.max():.0f} mm long, a crop around a hippocampus is at most {LARGEST_MM} mm"
        )
    truth = read_nifti(args.labels / path.name) if args.labels else None
    probabilities = segment(image, model)
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    if truth is not None and truth.shape != labels.shape:
        raise DataError(f"{args.labels / path.name}: shape is {truth.shape}, its image has {labels.shape}")
    write_nifti(labels, image, args.out / path.name)
    if args.save_probabilities:
        stem = path.name.split(".nii")[0]
        write_nifti(np.moveaxis(probabilities, 0, -1), image, args.out / f"{stem}_probabilities.nii.gz")
    spacing = tuple(float(s) for s in image.header.get_zooms()[:3])
    scores = score_volume(path.name, labels, np.asanyarray(truth.dataobj), spacing) if truth is not None else None
    return volumes_mm3(labels, image, model.card.get("volume_interval")), scores


def predict(args: argparse.Namespace) -> int:
    """Goes through all files; one that cannot be used is named on stderr and the others go on. The exit code."""
    model = ExportedModel(args.model_path)
    paths = nifti_files(args.images) if args.images.is_dir() else [args.images]
    if not paths:
        raise DataError(f"no NIfTI files in {args.images}")
    if args.out.resolve() == paths[0].parent.resolve():
        raise DataError(f"--out {args.out} is the folder of the images; they would be overwritten")
    args.out.mkdir(parents=True, exist_ok=True)
    volumes, scores, failed = {}, [], 0
    for path in tqdm(paths, "segment", disable=None):
        try:
            volumes[path.name], score = predict_file(path, model, args)
        except DataError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        scores += [score] if score else []
    write_volumes(args.out / "volumes.csv", volumes)
    print(f"{len(volumes)} of {len(paths)} volumes segmented, research use only; mm3: {args.out / 'volumes.csv'}")
    if scores:
        facts = {"protocol": "labels given by the user", "model": {k: model.card[k] for k in ("name", "version")}}
        print(table(write_scores(args.out, "metrics", scores, facts)["summary"]))
    return 1 if failed else 0


def write_volumes(path: Path, volumes: dict[str, dict[str, float]]) -> None:
    rows = [{"name": name, **found} for name, found in volumes.items()]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0] if rows else ["name"])
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
    try:
        return predict(args)
    except (DataError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
