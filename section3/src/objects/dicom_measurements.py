"""The volumes as a structured report: Comprehensive 3D SR after template TID 1500 (PS3.16).

The content is made by highdicom's templates, the object around it here, for the reason given in dicom_segmentation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from common.product import PRODUCT
from common.structures import Structure
from objects.dicom_items import item, references, save, valid
from objects.dicom_segmentation import LATERALITY, MODIFIERS
from objects.provenance import Provenance, result_attributes

# The template's usual title, Imaging Measurement Report, makes OHIF show nothing at all; this one makes it show a text.
TITLE = Code("18748-4", "LN", "Diagnostic imaging report")


def save_measurements(
    volumes_mm3: Mapping[Structure, float], segmentation: Dataset, path: Path, provenance: Provenance
) -> Dataset:
    """Write the volumes of the segments of `segmentation`, which are in the same order, and return the object.

    Raises OSError if `path` cannot be written.
    """
    ds = result_attributes("measurements", provenance)
    ds.SOPClassUID, ds.Modality = Comprehensive3DSRStorage, "SR"
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    ds.PerformedProcedureCodeSequence, ds.ReferencedPerformedProcedureStepSequence = [], []
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(segmentation, provenance)]
    if provenance.supersedes:
        ds.PredecessorDocumentsSequence = list(provenance.supersedes)
    (content,) = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_person_context=_person(provenance) if provenance.corrected_by else None,
            observer_device_context=_observer(provenance),
        ),
        procedure_reported=codes.LN.BrainMRI,
        imaging_measurements=[
            _measurement_group(number, structure, volume, segmentation, provenance)
            for number, (structure, volume) in enumerate(volumes_mm3.items(), start=1)
        ],
        title=TITLE,
    )
    ds.update(content)
    for element in ds.iterall():
        if element.keyword == "ContinuityOfContent":  # highdicom's CONTINUOUS makes OHIF leave out the names of values
            element.value = "SEPARATE"
    save(ds, path)
    return ds


def _evidence(segmentation: Dataset, provenance: Provenance) -> Dataset:
    """What the report is based on: the source instances, whole where frames of them were measured, and the masks."""
    sources = references([replace(source, frame=None) for source in provenance.sources])
    masks = item(ReferencedSOPClassUID=segmentation.SOPClassUID, ReferencedSOPInstanceUID=segmentation.SOPInstanceUID)
    return item(
        StudyInstanceUID=segmentation.StudyInstanceUID,
        ReferencedSeriesSequence=[
            item(SeriesInstanceUID=series, ReferencedSOPSequence=instances)
            for series, instances in (
                (provenance.sources[0].text("SeriesInstanceUID"), sources),
                (segmentation.SeriesInstanceUID, [masks]),
            )
        ],
    )


def _observer(provenance: Provenance) -> sr.ObserverContext:
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=provenance.model_uid,
            name=PRODUCT,
            manufacturer_name=PRODUCT,
            model_name=provenance.model["name"],
            serial_number=provenance.model["sha256"],
        ),
    )


def _person(provenance: Provenance) -> sr.ObserverContext:
    name = valid("OperatorsName", provenance.corrected_by) or "unknown"
    name = name if "^" in name else f"{name}^"  # a viewer gives one word, which is the family name then
    return sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(name=name),
    )


def _measurement_group(
    number: int, structure: Structure, volume_mm3: float, segmentation: Dataset, provenance: Provenance
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    volume = sr.Measurement(
        name=codes.SCT.Volume,
        value=volume_mm3,
        unit=codes.UCUM.CubicMillimeter,
        algorithm_id=sr.AlgorithmIdentification(provenance.model["name"], provenance.model["version"]),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(provenance.tracking_uid(structure), structure.name),
        referenced_segment=sr.ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            number,
            # The series: naming all slices again in each group would triple the object. The evidence has them.
            source_series=sr.SourceSeriesForSegmentation(provenance.sources[0].text("SeriesInstanceUID")),
        ),
        finding_type=codes.SCT.Hippocampus,
        finding_category=codes.SCT.AnatomicalStructure,
        finding_sites=[
            sr.FindingSite(
                codes.SCT.Hippocampus,
                laterality=LATERALITY.get(structure.side),
                topographical_modifier=MODIFIERS.get(structure.key),
            )
        ],
        measurements=[volume],
    )
