"""The DICOM objects beside the pages: written, read back, and only then handed on."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dicom_measurements import save_measurements
from dicom_overlay import draw_overlay, save_overlay
from dicom_results import MEASUREMENTS, OVERLAY, SEGMENTATION, Provenance
from dicom_segmentation import STRUCTURES, save_segmentation
from dicom_volume import SourceVolume, to_source_slices
from report import window
from verify_results import verify_overlay, verify_results


def write_objects(
    source: SourceVolume,
    labels: np.ndarray,
    volumes_mm3: Mapping[str, float],
    provenance: Provenance,
    folder: Path,
) -> dict[str, str]:
    """Write the objects into `folder`, which has none; returns their SOP Instance UIDs by file name.

    labels: [X, Y, Z] on the grid of the source. Raises OSError, and VerificationError where what is read back from the
    files is not what was measured.
    """
    if not gc.get_freeze_count():  # once
        # What the imports have made lasts to the end. For the garbage collector to walk it again and again, and once
        # more at the end, takes a tenth of the time of a study.
        gc.freeze()
    labels_by_slice = to_source_slices(labels, source)
    grey_by_slice = to_source_slices(window(source.voxels), source)
    segmentation = save_segmentation(labels_by_slice, folder / SEGMENTATION, provenance)
    measurements = save_measurements(volumes_mm3, segmentation, folder / MEASUREMENTS, provenance)
    pictures = draw_overlay(grey_by_slice, labels_by_slice)
    overlay = save_overlay(pictures, folder / OVERLAY, provenance)

    masks = {one.volume: np.isin(labels, one.labels) for one in STRUCTURES}
    verify_results(folder / SEGMENTATION, folder / MEASUREMENTS, masks, volumes_mm3, source)
    paths = (folder / OVERLAY / name for name in overlay)
    verify_overlay(dict(zip(paths, pictures, strict=True)), labels, source)
    return {
        SEGMENTATION: segmentation.SOPInstanceUID,
        MEASUREMENTS: measurements.SOPInstanceUID,
        **{f"{OVERLAY}/{name}": uid for name, uid in overlay.items()},
    }
