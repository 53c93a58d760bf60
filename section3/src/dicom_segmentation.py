"""The labels as a DICOM Segmentation, on the grid of the slices that were measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import MRImageStorage

from dicom_file import Instance
from dicom_results import (
    PRODUCT,
    RESEARCH,
    STUDY_ATTRIBUTES,
    Provenance,
    decimals,
    references,
    result_attributes,
    save,
    slice_step,
)
from report import ANTERIOR, COLOURS, POSTERIOR

# It warns of slices that share a UID, as the frames of one image do here.
logging.getLogger("highdicom").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Structure:
    """A segment, and what is measured of it: `volume` is its key in volumes_mm3."""

    volume: str
    name: str
    labels: tuple[int, ...]
    modifier: Code | None
    colour: str

    def tracking_uid(self, provenance: Provenance) -> str:
        """What tells that a segment and a measurement are of the same thing."""
        return provenance.uid("tracking", self.volume)


STRUCTURES = (  # in the order of their segment numbers, from 1
    Structure("anterior", "Anterior hippocampus", (ANTERIOR,), codes.SCT.Anterior, COLOURS[ANTERIOR]),
    Structure("posterior", "Posterior hippocampus", (POSTERIOR,), codes.SCT.Posterior, COLOURS[POSTERIOR]),
    Structure("total", "Whole hippocampus", (ANTERIOR, POSTERIOR), None, "#009E73"),
)


def save_segmentation(labels: np.ndarray, path: Path, provenance: Provenance) -> Dataset:
    """Write labels [slices, rows, columns] of the sources, in their order, as BINARY segments; returns the object.

    Raises OSError if `path` cannot be written.
    """
    attributes = result_attributes("segmentation", provenance)
    slices = source_slices(provenance)
    for one in slices:
        one.SOPClassUID = MRImageStorage  # also where it is a frame: highdicom takes one multi-frame image at the most
    segmentation = Segmentation(
        source_images=slices,
        pixel_array=np.stack([np.isin(labels, one.labels) for one in STRUCTURES], axis=-1).astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, provenance) for number in range(1, len(STRUCTURES) + 1)],
        content_label="HIPPOCAMPUS",
        content_description=RESEARCH,
        series_instance_uid=attributes.SeriesInstanceUID,
        series_number=attributes.SeriesNumber,
        sop_instance_uid=attributes.SOPInstanceUID,
        instance_number=attributes.InstanceNumber,
        manufacturer=attributes.Manufacturer,
        manufacturer_model_name=attributes.ManufacturerModelName,
        software_versions=attributes.SoftwareVersions,
        device_serial_number=attributes.DeviceSerialNumber,
    )
    segmentation.update(attributes)
    # highdicom makes a random one, and two runs would differ.
    dimensions = provenance.uid("dimensions")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    _refer_to(segmentation, provenance.sources)
    save(segmentation, path)
    return segmentation


def _refer_to(segmentation: Dataset, sources: Sequence[Instance]) -> None:
    """Name the sources, frames of multi-frame images among them, as what they are."""
    segmentation.SourceImageSequence = references(sources)
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references(sources)
    by_position = {tuple(decimals(source.header.ImagePositionPatient)): source for source in sources}
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        source = by_position[tuple(groups.PlanePositionSequence[0].ImagePositionPatient)]
        groups.DerivationImageSequence[0].SourceImageSequence[0].update(references([source])[0])


def source_slices(provenance: Provenance) -> list[Dataset]:
    """What highdicom has to know of the source instances: without their faults and, as it warns, without the patient.

    They share the first one's spacing and orientation, from which the others' differ by rounding alone.
    """
    first = provenance.sources[0].header
    grid = Dataset()
    grid.FrameOfReferenceUID = provenance.frame_of_reference_uid
    grid.PositionReferenceIndicator = None
    grid.ImageOrientationPatient = decimals(first.ImageOrientationPatient)
    grid.PixelSpacing = decimals(first.PixelSpacing)
    grid.SliceThickness, grid.SpacingBetweenSlices = decimals([slice_step(provenance.sources)] * 2)
    grid.StudyInstanceUID = provenance.header.StudyInstanceUID
    for keyword in STUDY_ATTRIBUTES:
        setattr(grid, keyword, None)

    slices = []
    for source in provenance.sources:
        ds = Dataset()
        ds.update(grid)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns"):
            setattr(ds, keyword, source.value(keyword))
        ds.ImagePositionPatient = decimals(source.header.ImagePositionPatient)
        slices.append(ds)
    return slices


def _segment(number: int, provenance: Provenance) -> SegmentDescription:
    structure = STRUCTURES[number - 1]
    segment = SegmentDescription(
        segment_number=number,
        segment_label=structure.name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Hippocampus,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"{PRODUCT} {provenance.model['name']}",
            version=provenance.model["version"],
            family=codes.cid7162.ArtificialIntelligence,
        ),
        tracking_uid=structure.tracking_uid(provenance),
        tracking_id=structure.name,
        display_color=CIELabColor.from_string(structure.colour),
    )
    if structure.modifier:
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(structure.modifier)]
    return segment
