"""Items, codes, numbers and references as DICOM has them, and a file of them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat, validate_value

from common.product import NOT_FOR_DIAGNOSIS
from common.whole_files import write_bytes
from reading.dicom_file import Instance

SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


def item(**attributes: object) -> Dataset:
    """A dataset of these attributes, as an item of a sequence."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def code_item(code: Code) -> Dataset:
    return item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def decimals(values: Sequence[float]) -> list[DSfloat]:
    """Numbers as decimal strings, rounded where DICOM has no room for all their digits."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def slice_step(sources: Sequence[Instance]) -> float:
    """The distance in mm between neighbouring slices, averaged over all."""
    first, last = (np.array(source.header.ImagePositionPatient, float) for source in (sources[0], sources[-1]))
    return float(np.linalg.norm(last - first)) / (len(sources) - 1)


def valid(keyword: str, value: str) -> str:
    """`value` as DICOM allows it, or "".

    A value that DICOM forbids is left out, not shortened: half an identifier may be another person's. Dates and times
    in the punctuation of DICOM's forerunner (PS3.5, 6.2) lose it.
    """
    vr = dictionary_VR(keyword)
    text = "" if "\\" in value else value  # several values where there should be one
    text = text.replace({"DA": ".", "TM": ":"}.get(vr, "\0"), "")
    try:
        validate_value(vr, text, config.RAISE)
    except ValueError:
        return ""
    if not text.isprintable() or (keyword == "PatientSex" and text not in ("M", "F", "O")):
        return ""
    return text


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


def derived_from(sources: Sequence[Instance]) -> Dataset:
    """References of an image to the instances that it shows or measures, where there are any."""
    ds = Dataset()
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = f"Automatic measurement of hippocampal volume. {NOT_FOR_DIAGNOSIS}"
    if sources:
        ds.SourceImageSequence = references(sources)
        for source in ds.SourceImageSequence:
            source.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
        ds.update(lossy_compression(sources))
    return ds


def lossy_compression(sources: Sequence[Instance]) -> Dataset:
    """Whether the sources were ever compressed with loss: it holds for what is derived too (PS3.3, C.7.6.1.1.5)."""
    compressed = [source for source in sources if source.text("LossyImageCompression") == "01"]
    ds = item(LossyImageCompression="01" if compressed else "00")
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        value = valid(keyword, compressed[0].text(keyword)) if compressed else ""
        if value:
            setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset) -> Dataset:
    """`ds` with its values as the bytes that a file has, which are copied where `ds` goes into many files."""
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_dataset(file, ds)
    file.seek(0)
    return read_dataset(file, is_implicit_VR=False, is_little_endian=True)


def save(ds: Dataset, path: Path) -> None:
    """Write beside `path`, then move into place: nobody ever reads half a file. Raises OSError."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()  # pydicom would hide what the disk says among words of its own
    ds.save_as(content, enforce_file_format=True)
    write_bytes(path, content.getbuffer(), shared=True)
