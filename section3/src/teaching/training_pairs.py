"""Corrections as section 2 learns from them: pairs of a crop and its labels, RAS at 1 mm, as those of section 1."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np

from common.refusal import Failure
from common.structures import PARTS, SIDES, structures_of
from common.volume import Grid
from common.whole_files import write_bytes, write_text
from measuring.hippocrop import Localiser, box_around, crop_grid
from measuring.measure_head import cut
from measuring.resampling import resampled, to_model_grid
from reading.nifti_head import HeadImage
from teaching.image_store import FINAL, ImageStore, StoredImage, StoredLabel
from teaching.images import CROP, labels_of, read_image

TABLE = "corrections.csv"
COLUMNS = ("name", "held_out", "client", "time", "model", "image_sha256", "label_sha256")
IMAGES, LABELS = "images", "labels"


def write_pairs(store: ImageStore, folder: Path, localiser: Localiser, held_out: bool | None = None) -> list[dict]:
    """Writes all corrected hippocampi into folder/images and folder/labels; the rows of its table.

    held_out: those of persons who are never trained on alone, or of the others alone. Names begin with the person, by
    which section 2 splits. Raises Failure: cannot-write.
    """
    rows = []
    try:
        for part in (IMAGES, LABELS):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for image, label in corrected(store):
            if held_out in (None, image.is_held_out):
                rows += [row | _about(image, label) for row in _write_pair(store, image, label, folder, localiser)]
        write_text(folder / TABLE, _table(rows))
    except OSError as error:
        raise Failure("cannot-write", f"nothing can be written to {folder}: {error.strerror}") from error
    return rows


def corrected(store: ImageStore) -> list[tuple[StoredImage, StoredLabel]]:
    """All images that a person corrected, each with the newest of its corrections."""
    labels = store.newest_labels()
    return [(store.image_of(sha256), tags[FINAL]) for sha256, tags in labels.items() if FINAL in tags]


def _write_pair(
    store: ImageStore, image: StoredImage, label: StoredLabel, folder: Path, localiser: Localiser
) -> Iterator[dict]:
    source = read_image(store.content_of(image), image.ending)
    labels = labels_of(store.content_of_label(label), source)
    for side, crop, of_crop in _crops(source, labels, image.kind, localiser):
        name = f"person-{image.person[:12]}-{image.sha256[:12]}{f'-{side}' if side else ''}.nii.gz"
        write_bytes(folder / IMAGES / name, _packed(crop.astype(np.float32)))
        write_bytes(folder / LABELS / name, _packed(of_crop))
        yield {"name": name, "held_out": image.is_held_out}


def _crops(
    source: HeadImage, labels: np.ndarray, kind: str, localiser: Localiser
) -> Iterator[tuple[str | None, np.ndarray, np.ndarray]]:
    """Side, crop and labels of each hippocampus that has labels; of a head as the model would be shown it."""
    volume = source.volume
    if kind == CROP:
        crop = to_model_grid(volume)
        masks = [labels == part.labels[0] for part in PARTS]
        yield None, crop.voxels, labels if crop is volume else _labels_on(crop.grid, masks, volume.grid)
        return
    place = localiser.find(volume)
    for side in SIDES:
        masks = [labels == part.labels[0] for part in structures_of(side)[: len(PARTS)]]
        if any(mask.any() for mask in masks):
            grid = crop_grid(place, side)
            own, box = box_around(grid, volume.grid)
            yield side, cut(volume, grid), _labels_on(grid, [mask[box] for mask in masks], own)


def _labels_on(grid: Grid, masks: list[np.ndarray], own: Grid) -> np.ndarray:
    """Labels [X, Y, Z] uint8 on a grid of the masks of both parts, which lie on their own."""
    anterior, posterior = (resampled(mask.astype(np.float32), grid.indices_to(own), grid.shape) for mask in masks)
    part = np.where(posterior > anterior, PARTS[1].labels[0], PARTS[0].labels[0])
    return np.where(anterior + posterior > 0.5, part, 0).astype(np.uint8)


def _packed(voxels: np.ndarray) -> bytes:
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _about(image: StoredImage, label: StoredLabel) -> dict:
    return {
        "client": label.client,
        "time": datetime.fromtimestamp(label.at, UTC).isoformat(timespec="seconds"),
        "model": label.model,
        "image_sha256": image.sha256,
        "label_sha256": label.sha256,
    }


def _table(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
