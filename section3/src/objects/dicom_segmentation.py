"""The labels as a DICOM Segmentation, on the grid of the slices that were measured.

Its segments are described by highdicom's classes. The object around them is put together here: highdicom's own class
for that reads a table of all DICOM attributes first, which takes as long as the network and 100 MB of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage

from common.product import NOT_FOR_DIAGNOSIS
from common.structures import LEFT, RIGHT, STRUCTURES, Structure
from objects.dicom_frames import POSITION, derivation, placed, series_of
from objects.dicom_items import (
    decimals,
    item,
    lossy_compression,
    references,
    save,
)
from objects.provenance import Provenance, result_attributes
from reading.dicom_file import Instance

MODIFIERS = {"anterior": codes.SCT.Anterior, "posterior": codes.SCT.Posterior}  # by the structure's key
LATERALITY = {LEFT: codes.SCT.Left, RIGHT: codes.SCT.Right}  # by the structure's side

# What tells the frames apart, in the order in which they are sorted.
DIMENSIONS = (("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Referenced Segment Number"), POSITION)


def save_segmentation(
    labels: np.ndarray, path: Path, provenance: Provenance, structures: Sequence[Structure] = STRUCTURES
) -> Dataset:
    """Write labels [slices, rows, columns] of the sources, in their order, as BINARY segments; returns the object.

    structures: a segment each, numbered from 1. A slice without a segment has no frame of it. Raises OSError if `path`
    cannot be written.
    """
    ds = result_attributes("segmentation", provenance)
    ds.SOPClassUID, ds.Modality = SegmentationStorage, "SEG"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "HIPPOCAMPUS", NOT_FOR_DIAGNOSIS, None
    ds.SegmentationType, ds.SegmentsOverlap = "BINARY", "YES"
    ds.SegmentSequence = [_segment(number, one, provenance) for number, one in enumerate(structures, start=1)]
    ds.update(placed(provenance, DIMENSIONS))
    ds.SourceImageSequence = references(provenance.sources)
    ds.ReferencedSeriesSequence = [series_of(provenance)]
    order = np.flatnonzero(labels.any(axis=(1, 2)))[::-1]  # as highdicom sorts slices
    masks = np.stack([np.isin(labels[order], one.labels) for one in structures])
    segments, places = np.nonzero(masks.any(axis=(2, 3)))
    sources = [provenance.sources[index] for index in order]
    ds.PerFrameFunctionalGroupsSequence = _frame_groups(segments.tolist(), places.tolist(), sources)
    ds.update(_binary_pixels(masks[segments, places]))
    ds.update(lossy_compression(provenance.sources))
    save(ds, path)
    return ds


def _frame_groups(segments: Sequence[int], places: Sequence[int], sources: Sequence[Instance]) -> list[Dataset]:
    """Of each frame which segment it shows, and the place among `sources` of the slice that it shows it on; from 0."""
    positions = [[item(ImagePositionPatient=decimals(one.header.ImagePositionPatient))] for one in sources]
    derivations = [[derivation(one, codes.cid7203.SegmentationImageDerivation)] for one in sources]
    return [
        item(
            FrameContentSequence=[item(DimensionIndexValues=[segment + 1, place + 1])],
            SegmentIdentificationSequence=[item(ReferencedSegmentNumber=segment + 1)],
            PlanePositionSequence=positions[place],
            DerivationImageSequence=derivations[place],
        )
        for segment, place in zip(segments, places, strict=True)
    ]


def _binary_pixels(frames: np.ndarray) -> Dataset:
    """The attributes of masks [frames, rows, columns], eight pixels a byte (PS3.5, 8.1.1)."""
    pixels = np.packbits(frames, bitorder="little").tobytes()
    ds = item(SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", PresentationLUTShape="IDENTITY")
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames.shape
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = ds.PixelRepresentation = 0
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    return ds


def _segment(number: int, structure: Structure, provenance: Provenance) -> SegmentDescription:
    segment = SegmentDescription(
        segment_number=number,
        segment_label=structure.name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Hippocampus,
        algorithm_type=(
            SegmentAlgorithmTypeValues.SEMIAUTOMATIC
            if provenance.corrected_by
            else SegmentAlgorithmTypeValues.AUTOMATIC
        ),
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=provenance.model["name"],
            version=provenance.model["version"],
            family=codes.cid7162.ArtificialIntelligence,
        ),
        tracking_uid=provenance.tracking_uid(structure),
        tracking_id=structure.name,
        display_color=CIELabColor.from_string(structure.colour),
    )
    modifiers = [LATERALITY.get(structure.side), MODIFIERS.get(structure.key)]
    if any(modifiers):
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(one) for one in modifiers if one]
    return segment
