"""Where a result comes from, and what all objects of it share: study, equipment, UIDs, times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from common.product import NOT_FOR_DIAGNOSIS, PRODUCT
from common.structures import Structure
from objects.dicom_items import code_item, item, valid
from reading.dicom_file import DICOM_ERRORS, Instance
from reading.dicom_series import OPTIONAL_ATTRIBUTES, PERSON_ATTRIBUTES, STUDY_ATTRIBUTES

# Each has a series of its own, in the order in which viewers list them.
KINDS = ("report", "overlay", "segmentation", "measurements", "refusal", "series table", "probability map")
FIRST_SERIES_NUMBER = 90001  # beyond what scanners count to: 37916 was seen
# Raise it whenever the same input and model come to give other objects: what differs must not share a UID.
REVISION = "7"


# When a result was first made.
DATES = ("SeriesDate", "ContentDate", "InstanceCreationDate")
TIMES = ("SeriesTime", "ContentTime", "InstanceCreationTime")

PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: what its objects have in common.

    header: patient and study attributes as text. sources: the instances, or frames, that were measured, in the order of
    their slices. model: "name", "version" and "sha256". setup_digest: of all that decides what a result is. created:
    when the result was first made. corrected_by: the person whose outlines these are, "" of those of the model alone.
    replaces: the date (YYYY-MM-DD) of the page whose place its page takes, if any.
    supersedes: items of a Predecessor Documents Sequence, which only a structured
    report can have: DICOM has no such attribute, and no code for such a reference, in a Segmentation or a Secondary
    Capture. They are found through the reports, each of which names the segmentation that it measures.
    """

    header: Mapping[str, str]
    sources: Sequence[Instance]
    model: Mapping[str, str]
    setup_digest: str
    names_patient: bool = True
    created: datetime = field(default_factory=datetime.now)
    replaces: str = ""
    supersedes: Sequence[Dataset] = ()
    corrected_by: str = ""

    def uid(self, *purpose: str) -> str:
        """A UID that follows from source instances and setup: the same result has it at every run."""
        return generate_uid(entropy_srcs=[PRODUCT, *purpose, self.setup_digest, *sorted(self.source_uids)])

    def tracking_uid(self, structure: Structure) -> str:
        """What tells that segments and measurements are of the same structure of the same person, at every visit.

        From issuer, PatientID, structure and side alone. Of a person without a PatientID it holds for this result only.
        """
        if self._person is None:
            return self.uid("tracking", structure.key, structure.side or "")
        return generate_uid(entropy_srcs=[repr((PRODUCT, "tracking", self._person, structure.key, structure.side))])

    @cached_property
    def _person(self) -> str | None:
        """A hash of issuer and PatientID, None where there is no PatientID.

        A slow one for results that shall not name the patient: an identifier of six digits is soon found by trying all
        of them, unless each trial takes its time.
        """
        if not self.header.get("PatientID"):
            return None
        identifier = repr((self.header.get("IssuerOfPatientID", ""), self.header["PatientID"])).encode()
        if self.names_patient:
            return hashlib.sha256(identifier).hexdigest()
        return hashlib.scrypt(identifier, salt=PRODUCT.encode(), n=1 << 14, r=8, p=1).hex()

    @property
    def source_uids(self) -> set[str]:
        return {source.text("SOPInstanceUID") for source in self.sources}

    @property
    def model_uid(self) -> str:
        """The UID that stands for the model's hash."""
        return generate_uid(entropy_srcs=[PRODUCT, "model", self.model["sha256"]])

    @property
    def frame_of_reference_uid(self) -> str:
        """That of the source; one of our own where it has none, as it is mandatory."""
        return self.sources[0].text("FrameOfReferenceUID") or self.uid("frame of reference")


def with_history(provenance: Provenance, measurements: Path) -> Provenance:
    """`provenance` with what the measurements of an earlier run tell, where there are any at that path.

    Those of the same result say when it was first made and what it superseded. Those of another result of the same
    sources, as another model's, are superseded now; unless they themselves superseded this one.
    """
    try:
        earlier = pydicom.dcmread(measurements)
        if earlier.SOPInstanceUID == provenance.uid("measurements"):
            made = datetime.strptime(earlier.InstanceCreationDate + earlier.InstanceCreationTime, "%Y%m%d%H%M%S")
            return replace(provenance, created=made, supersedes=earlier.get("PredecessorDocumentsSequence", ()))
        measured = _instances(earlier.CurrentRequestedProcedureEvidenceSequence)
        superseded = _instances(earlier.get("PredecessorDocumentsSequence", ()))
    except DICOM_ERRORS:  # there are none, or they are damaged
        return provenance
    if provenance.uid("measurements") in superseded or not measured.issuperset(provenance.source_uids):
        return provenance
    return replace(provenance, supersedes=[_reference(earlier)])


def _instances(references: Sequence[Dataset]) -> set[str]:
    """The SOP Instance UIDs in a hierarchy of studies, series and instances."""
    series = (one for study in references for one in study.ReferencedSeriesSequence)
    return {instance.ReferencedSOPInstanceUID for one in series for instance in one.ReferencedSOPSequence}


def _reference(ds: Dataset) -> Dataset:
    """A hierarchy with one instance."""
    instance = item(ReferencedSOPClassUID=ds.SOPClassUID, ReferencedSOPInstanceUID=ds.SOPInstanceUID)
    series = item(SeriesInstanceUID=ds.SeriesInstanceUID, ReferencedSOPSequence=[instance])
    return item(StudyInstanceUID=ds.StudyInstanceUID, ReferencedSeriesSequence=[series])


def result_attributes(kind: str, provenance: Provenance) -> Dataset:
    """Patient, study, series, equipment, UIDs and times of the object of one of KINDS."""
    ds = _in_study_of(provenance.header)
    ds.update(_made_by(provenance))
    ds.SeriesInstanceUID = provenance.uid(kind, "series")
    ds.SOPInstanceUID = provenance.uid(kind)
    corrected = ", corrected" if provenance.corrected_by else ""
    ds.SeriesDescription = f"{PRODUCT} {kind}{corrected} (research use only)"
    ds.SeriesNumber = FIRST_SERIES_NUMBER + KINDS.index(kind)
    ds.InstanceNumber = 1
    for date, time in zip(DATES, TIMES, strict=True):
        setattr(ds, date, provenance.created.strftime("%Y%m%d"))
        setattr(ds, time, provenance.created.strftime("%H%M%S"))
    return ds


def _in_study_of(header: Mapping[str, str]) -> Dataset:
    """The patient and study attributes of `header`, in UTF-8, which has the letters of every name."""
    ds = item(SpecificCharacterSet="ISO_IR 192", StudyInstanceUID=header["StudyInstanceUID"])
    for keyword in STUDY_ATTRIBUTES + PERSON_ATTRIBUTES + OPTIONAL_ATTRIBUTES:
        value = valid(keyword, header.get(keyword, ""))
        if value or keyword not in OPTIONAL_ATTRIBUTES:
            setattr(ds, keyword, value)
    return ds


def _made_by(provenance: Provenance) -> Dataset:
    model = provenance.model
    ds = Dataset()
    ds.Manufacturer = PRODUCT
    ds.ManufacturerModelName = model["name"]
    ds.SoftwareVersions = model["version"]
    ds.DeviceSerialNumber = model["sha256"]
    equipment = Dataset()
    equipment.update(ds)
    equipment.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_EQUIPMENT)]
    equipment.DeviceUID = provenance.model_uid
    equipment.ContributionDescription = f"Segmentation model, SHA-256 {model['sha256']}. {NOT_FOR_DIAGNOSIS}"
    ds.ContributingEquipmentSequence = [equipment]
    return ds
