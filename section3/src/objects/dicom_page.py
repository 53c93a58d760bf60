"""The pages as DICOM: Secondary Capture images in series of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pydicom
from PIL import Image
from pydicom import DataElement, Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from common.product import NOT_FOR_DIAGNOSIS
from objects.dicom_items import derived_from, save
from objects.provenance import DATES, TIMES, Provenance, result_attributes
from reading.dicom_file import DICOM_ERRORS, Instance


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


def date_of(page: Path) -> str | None:
    """When the page in that file was first made (YYYYMMDD), None where there is none."""
    try:
        return str(pydicom.dcmread(page, stop_before_pixels=True).InstanceCreationDate)
    except DICOM_ERRORS:
        return None


def save_refusal_as_dcm(page: Image.Image, path: Path, provenance: Provenance, earlier: Path) -> Dataset:
    """Write the page that stands in place of all results, and return it. Raises OSError.

    Another page, as one with another reason, has other UIDs. The same one keeps the times that the file of an earlier
    run gives it.
    """
    ds = _page("refusal", page, provenance)
    ds.DerivationDescription = f"Automatic measurement of hippocampal volume, refused. {NOT_FOR_DIAGNOSIS}"
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
