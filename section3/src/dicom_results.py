"""Results as DICOM objects in the study that they belong to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from PIL import Image
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

PRODUCT = "HippoVolume.AI"
REPORT_SERIES_NUMBER = 9001  # beyond what scanners count to

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

PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


def save_report_as_dcm(
    page: Image.Image,
    header: Dataset,
    path: Path,
    *,
    source_instances: Sequence[Dataset],
    model: Mapping[str, str],
    names_patient: bool = True,
) -> str:
    """Write the page (RGB) as a Secondary Capture image of the study of `header`; returns its SOP Instance UID.

    `source_instances` are the instances that were measured (SOPClassUID and SOPInstanceUID are read), `model` has
    "name", "version" and "sha256", `names_patient` says whether the page does. The UIDs derive from these three, so the
    same result has the same UIDs however often it is made. Raises OSError if `path` cannot be written; a file appears
    there only when it is complete.
    """
    ds = _in_study_of(header)
    ds.update(_made_by(model))
    ds.update(_derived_from(source_instances))
    ds.update(_image_of(page))
    ds.BurnedInAnnotation = "YES" if names_patient else "NO"

    origin = [
        model["sha256"],
        *([] if names_patient else ["pseudonymous"]),
        *sorted(str(source.SOPInstanceUID) for source in source_instances),
    ]
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[PRODUCT, "report series", *origin])
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[PRODUCT, "report", *origin])
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.Modality = "OT"
    ds.ConversionType = "WSD"
    ds.SeriesDescription = f"{PRODUCT} report"
    ds.SeriesNumber = REPORT_SERIES_NUMBER
    ds.InstanceNumber = 1
    now = datetime.now()
    ds.SeriesDate = ds.ContentDate = ds.InstanceCreationDate = now.strftime("%Y%m%d")
    ds.SeriesTime = ds.ContentTime = ds.InstanceCreationTime = now.strftime("%H%M%S")
    _save(ds, Path(path))
    return ds.SOPInstanceUID


def _in_study_of(header: Dataset) -> Dataset:
    """The patient and study attributes of `header` as they are, in UTF-8, which has the letters of every name."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyInstanceUID = header.StudyInstanceUID
    for keyword in (*STUDY_ATTRIBUTES, *(optional for optional in OPTIONAL_STUDY_ATTRIBUTES if optional in header)):
        # Not validated: pydicom's warnings print what they complain of, and these values identify a person.
        ds.add(DataElement(keyword, dictionary_VR(keyword), header.get(keyword), validation_mode=config.IGNORE))
    return ds


def _made_by(model: Mapping[str, str]) -> Dataset:
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code(PROCESSING_EQUIPMENT)]
    equipment.Manufacturer = PRODUCT
    equipment.ManufacturerModelName = model["name"]
    equipment.SoftwareVersions = model["version"]
    equipment.ContributionDescription = f"Segmentation model, SHA-256 {model['sha256']}"
    ds = Dataset()
    ds.Manufacturer = PRODUCT
    ds.ManufacturerModelName = model["name"]
    ds.SoftwareVersions = model["version"]
    ds.ContributingEquipmentSequence = [equipment]
    return ds


def _derived_from(source_instances: Sequence[Dataset]) -> Dataset:
    ds = Dataset()
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = "Automatic measurement of hippocampal volume. Research use only: not for diagnosis."
    ds.SourceImageSequence = []
    for source in source_instances:
        item = Dataset()
        item.ReferencedSOPClassUID = source.SOPClassUID
        item.ReferencedSOPInstanceUID = source.SOPInstanceUID
        item.PurposeOfReferenceCodeSequence = [_code(SOURCE_IMAGE)]
        ds.SourceImageSequence.append(item)
    return ds


def _image_of(page: Image.Image) -> Dataset:
    ds = Dataset()
    ds.PatientOrientation = None  # a page has none
    ds.Laterality = None  # validators ask for it; the crop does not say
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Columns, ds.Rows = page.size
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    pixels = page.convert("RGB").tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    return ds


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _save(ds: Dataset, path: Path) -> None:
    """Write beside `path`, then move into place: nobody ever reads half a file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        ds.save_as(partial, enforce_file_format=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
