"""Results as DICOM objects in the study that they belong to: what all of them share, and the page."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import DSfloat, validate_value

from dicom_file import DICOM_ERRORS, Instance

PAGE, SERIES_PAGE, OVERLAY = "report.dcm", "report_series.dcm", "overlay"  # files, the overlay a folder of them
SEGMENTATION, MEASUREMENTS = "segmentation.dcm", "measurements.dcm"

PRODUCT = "HippoVolume.AI"
RESEARCH = "Research use only: not for diagnosis."
# Each has a series of its own, in the order in which viewers list them.
KINDS = ("report", "overlay", "segmentation", "measurements", "refusal", "series table")
FIRST_SERIES_NUMBER = 90001  # beyond what scanners count to: 37916 was seen
# Raise it whenever the same input and model come to give other objects: what differs must not share a UID.
REVISION = "4"

# What a study says about its patient and itself: type 2, so it is written empty where the study says nothing.
STUDY_ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
OPTIONAL_STUDY_ATTRIBUTES = ("StudyDescription", "IssuerOfPatientID")

# When a result was first made.
DATES = ("SeriesDate", "ContentDate", "InstanceCreationDate")
TIMES = ("SeriesTime", "ContentTime", "InstanceCreationTime")

PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: what its objects have in common.

    header: patient and study attributes. sources: the instances, or frames, that were measured, in the order of their
    slices. model: "name", "version" and "sha256". limits_sha256: of the limits of quality, whose verdict is on the
    page. created: when the result was first made. supersedes: items of a Predecessor Documents Sequence, which only
    a structured report can have: DICOM has no such attribute, and no code for such a reference, in a Segmentation or
    a Secondary Capture. They are found through the reports, each of which names the segmentation that it measures.
    """

    header: Dataset
    sources: Sequence[Instance]
    model: Mapping[str, str]
    names_patient: bool = True
    limits_sha256: str | None = None
    created: datetime = field(default_factory=datetime.now)
    supersedes: Sequence[Dataset] = ()

    def uid(self, *purpose: str) -> str:
        """A UID that follows from source instances, model and configuration: the same result has it at every run."""
        configuration = [REVISION, self.limits_sha256 or "", *([] if self.names_patient else ["pseudonymous"])]
        origin = [*configuration, self.model["sha256"], *sorted(self.source_uids)]
        return generate_uid(entropy_srcs=[PRODUCT, *purpose, *origin])

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


def save_report_as_dcm(page: Image.Image, path: Path, provenance: Provenance) -> Dataset:
    """Write the page (RGB) as a Secondary Capture image and return it.

    Raises OSError if `path` cannot be written; a file appears there only when it is complete.
    """
    ds = _page("report", page, provenance, shows=provenance.sources)
    save(ds, Path(path))
    return ds


def save_series_page_as_dcm(page: Image.Image, path: Path, provenance: Provenance) -> Dataset:
    """Write the page with the table of series and return it. Raises OSError.

    In a series of its own: of two pages in one, OHIF shows the second as the thumbnail. It tells of series that were
    not measured, which may come and go: another page has another UID.
    """
    ds = _page("series table", page, provenance)
    ds.SOPInstanceUID = provenance.uid("series table", _digest(ds))
    save(ds, path)
    return ds


def save_refusal_as_dcm(page: Image.Image, path: Path, provenance: Provenance, earlier: Path) -> Dataset:
    """Write the page that stands in place of all results, and return it. Raises OSError.

    Another page, as one with another reason, has other UIDs. The same one keeps the times that the file of an earlier
    run gives it.
    """
    ds = _page("refusal", page, provenance)
    ds.DerivationDescription = f"Automatic measurement of hippocampal volume, refused. {RESEARCH}"
    ds.SeriesInstanceUID = provenance.uid("refusal", "series", _digest(ds))
    ds.SOPInstanceUID = provenance.uid("refusal", _digest(ds))
    try:
        before = pydicom.dcmread(earlier, stop_before_pixels=True)
        if before.SOPInstanceUID == ds.SOPInstanceUID:
            for keyword in (*DATES, *TIMES):
                ds[keyword] = before[keyword]
    except DICOM_ERRORS:  # there is none, or it is damaged
        pass
    save(ds, path)
    return ds


def _page(kind: str, page: Image.Image, provenance: Provenance, shows: Sequence[Instance] = ()) -> Dataset:
    ds = result_attributes(kind, provenance)
    ds.update(secondary_capture(page))
    ds.update(derived_from(shows))
    ds.BurnedInAnnotation = "YES" if provenance.names_patient else "NO"
    return ds


def _digest(page: Dataset) -> str:
    return hashlib.sha256(page.PixelData).hexdigest()


def result_attributes(kind: str, provenance: Provenance) -> Dataset:
    """Patient, study, series, equipment, UIDs and times of the object of one of KINDS."""
    ds = _in_study_of(provenance.header)
    ds.update(_made_by(provenance))
    ds.SeriesInstanceUID = provenance.uid(kind, "series")
    ds.SOPInstanceUID = provenance.uid(kind)
    ds.SeriesDescription = f"{PRODUCT} {kind} (research use only)"
    ds.SeriesNumber = FIRST_SERIES_NUMBER + KINDS.index(kind)
    ds.InstanceNumber = 1
    for date, time in zip(DATES, TIMES, strict=True):
        setattr(ds, date, provenance.created.strftime("%Y%m%d"))
        setattr(ds, time, provenance.created.strftime("%H%M%S"))
    return ds


def _in_study_of(header: Dataset) -> Dataset:
    """The patient and study attributes of `header`, in UTF-8, which has the letters of every name."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyInstanceUID = header.StudyInstanceUID
    for keyword in (*STUDY_ATTRIBUTES, *OPTIONAL_STUDY_ATTRIBUTES):
        value = _valid(keyword, header.get(keyword))
        if value or keyword in STUDY_ATTRIBUTES:
            setattr(ds, keyword, value)
    return ds


def _valid(keyword: str, value: object) -> str:
    """`value` as DICOM allows it, or "".

    A value that DICOM forbids is left out, not shortened: half an identifier may be another person's. Dates and times
    in the punctuation of DICOM's forerunner (PS3.5, 6.2) lose it.
    """
    vr = dictionary_VR(keyword)
    text = "" if isinstance(value, MultiValue) else str(value or "")
    text = text.replace({"DA": ".", "TM": ":"}.get(vr, "\0"), "")
    try:
        validate_value(vr, text, config.RAISE)
    except ValueError:
        return ""
    if not text.isprintable() or (keyword == "PatientSex" and text not in ("M", "F", "O")):
        return ""
    return text


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
    equipment.ContributionDescription = f"Segmentation model, SHA-256 {model['sha256']}. {RESEARCH}"
    ds.ContributingEquipmentSequence = [equipment]
    return ds


def derived_from(sources: Sequence[Instance]) -> Dataset:
    """References of an image to the instances that it shows or measures, where there are any."""
    ds = Dataset()
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = f"Automatic measurement of hippocampal volume. {RESEARCH}"
    if sources:
        ds.SourceImageSequence = references(sources)
        for source in ds.SourceImageSequence:
            source.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
        ds.update(lossy_compression(sources))
    return ds


def lossy_compression(sources: Sequence[Instance]) -> Dataset:
    """Whether the sources were ever compressed with loss: it holds for what is derived too (PS3.3, C.7.6.1.1.5)."""
    compressed = [source.header for source in sources if source.text("LossyImageCompression") == "01"]
    ds = item(LossyImageCompression="01" if compressed else "00")
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        value = _valid(keyword, compressed[0].get(keyword)) if compressed else ""
        if value:
            setattr(ds, keyword, value)
    return ds


def references(sources: Sequence[Instance]) -> list[Dataset]:
    """An item for each instance, with the numbers of the frames where it has several."""
    frames: dict[tuple[str, str], list[int]] = {}
    for source in sources:
        numbers = frames.setdefault((source.text("SOPClassUID"), source.text("SOPInstanceUID")), [])
        if source.frame is not None:
            numbers.append(source.frame + 1)
    items = []
    for (sop_class, sop_instance), numbers in frames.items():
        reference = item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop_instance)
        if numbers:
            reference.ReferencedFrameNumber = sorted(numbers)
        items.append(reference)
    return items


def secondary_capture(picture: Image.Image) -> Dataset:
    """The attributes of an RGB picture as Secondary Capture."""
    ds = Dataset()
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.Modality = "OT"
    ds.ConversionType = "WSD"
    ds.PatientOrientation = None  # a page has none, and an overlay its position
    ds.Laterality = None  # validators ask for it; the crop does not say
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Columns, ds.Rows = picture.size
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    set_pixels(ds, picture)
    return ds


def set_pixels(ds: Dataset, picture: Image.Image) -> None:
    """Make the pixels of an RGB picture, of the size that `ds` says, those of `ds`."""
    pixels = picture.convert("RGB").tobytes()
    ds["PixelData"] = DataElement("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))


def decimals(values: Sequence[float]) -> list[DSfloat]:
    """Numbers as decimal strings, rounded where DICOM has no room for all their digits."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def slice_step(sources: Sequence[Instance]) -> float:
    """The distance in mm between neighbouring slices, averaged over all."""
    first, last = (np.array(source.header.ImagePositionPatient, float) for source in (sources[0], sources[-1]))
    return float(np.linalg.norm(last - first)) / (len(sources) - 1)


def item(**attributes: object) -> Dataset:
    """A dataset of these attributes, as an item of a sequence."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def code_item(code: Code) -> Dataset:
    return item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def encoded(ds: Dataset) -> Dataset:
    """`ds` with its values as the bytes that a file has, which are copied where `ds` goes into many files."""
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_dataset(file, ds)
    file.seek(0)
    return read_dataset(file, is_implicit_VR=False, is_little_endian=True)


def save(ds: Dataset, path: Path) -> None:
    """Write beside `path`, then move into place: nobody ever reads half a file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        ds.save_as(partial, enforce_file_format=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
