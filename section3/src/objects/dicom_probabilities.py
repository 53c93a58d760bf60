"""How probable a hippocampus is in each voxel, as a DICOM Parametric Map on the grid of the slices that were measured.

By the network alone: no measure of how good the outlines are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ParametricMapStorage

from common.product import NOT_FOR_DIAGNOSIS
from objects.dicom_frames import POSITION, derivation, placed, series_of
from objects.dicom_items import code_item, decimals, item, lossy_compression, references, save
from objects.provenance import Provenance, result_attributes

MOST = 65535  # stands for 1


def save_probabilities(chances: np.ndarray, path: Path, provenance: Provenance) -> Dataset:
    """Write chances [slices, rows, columns] of the sources, 0 to 1, in their order, as uint16; returns the object.

    A slice where they are 0 has no frame. Raises OSError if `path` cannot be written.
    """
    ds = result_attributes("probability map", provenance)
    ds.SOPClassUID, ds.Modality = ParametricMapStorage, provenance.sources[0].text("Modality")
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "PROBABILITY", NOT_FOR_DIAGNOSIS, None
    ds.ContentQualification = "RESEARCH"
    ds.Laterality, ds.AcquisitionContextSequence = None, []
    ds.update(placed(provenance, [POSITION]))
    ds.SourceImageSequence = references(provenance.sources)
    ds.ReferencedSeriesSequence = [series_of(provenance)]
    ds.SharedFunctionalGroupsSequence[0].update(_meaning())
    stored = np.round(np.clip(chances, 0, 1) * MOST).astype("<u2")
    shown = np.flatnonzero(stored.any(axis=(1, 2)))
    ds.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=[item(DimensionIndexValues=[number])],
            PlanePositionSequence=[item(ImagePositionPatient=decimals(source.header.ImagePositionPatient))],
            DerivationImageSequence=[derivation(source, codes.cid7203.SegmentationImageDerivation)],
        )
        for number, source in enumerate((provenance.sources[index] for index in shown), start=1)
    ]
    ds.update(_pixels(stored[shown]))
    ds.update(lossy_compression(provenance.sources))
    save(ds, path)
    return ds


def _meaning() -> Dataset:
    """That a stored value is so many parts of MOST, and the whole range is to be shown."""
    mapping = item(
        RealWorldValueFirstValueMapped=0,
        RealWorldValueLastValueMapped=MOST,
        RealWorldValueIntercept=0.0,
        RealWorldValueSlope=1 / MOST,
        LUTExplanation="Probability of hippocampus",
        LUTLabel="PROBABILITY",
        MeasurementUnitsCodeSequence=[code_item(codes.UCUM.NoUnits)],
    )
    frame = item(FrameType=["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"])
    window = item(WindowCenter=decimals([MOST / 2]), WindowWidth=decimals([MOST]))
    identity = item(RescaleIntercept=decimals([0])[0], RescaleSlope=decimals([1])[0], RescaleType="US")
    return item(
        RealWorldValueMappingSequence=[mapping],
        ParametricMapFrameTypeSequence=[frame],
        FrameVOILUTSequence=[window],
        PixelValueTransformationSequence=[identity],
    )


def _pixels(frames: np.ndarray) -> Dataset:
    ds = item(SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", PresentationLUTShape="IDENTITY")
    ds.BurnedInAnnotation = ds.RecognizableVisualFeatures = "NO"
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.PixelData = frames.tobytes()
    return ds
