"""The pages as DICOM: Secondary Capture images in series of their own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pydicom
from PIL import Image
from pydicom import DataElement, Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from common.product import PRODUCT, RESEARCH
from objects.dicom_items import derived_from, save
from objects.provenance import Provenance, result_attributes
from reading.dicom_file import DICOM_ERRORS, Instance

IN_PLACE_OF = "In place of the page of"


@dataclass(frozen=True)
class EarlierPage:
    """The page that an earlier run left: its UID, when it was made, and the date of the page that it replaced."""

    sop_instance_uid: str
    created: datetime
    replaces: str  # YYYY-MM-DD, "" if there was none

    @property
    def date(self) -> str:
        """YYYY-MM-DD."""
        return f"{self.created:%Y-%m-%d}"


def earlier_page(path: Path) -> EarlierPage | None:
    """What the page in that file says of itself, None where there is none."""
    try:
        page = pydicom.dcmread(path, stop_before_pixels=True)
        created = datetime.strptime(page.InstanceCreationDate + page.InstanceCreationTime, "%Y%m%d%H%M%S")
        found = re.search(rf"{IN_PLACE_OF} (\d{{4}}-\d\d-\d\d)", page.DerivationDescription)
        return EarlierPage(page.SOPInstanceUID, created, found[1] if found else "")
    except DICOM_ERRORS:
        return None


def in_place_of(provenance: Provenance, earlier: EarlierPage | None) -> Provenance:
    """`provenance` of a report that takes the place of the earlier page, where that is another one."""
    if earlier is None:
        return provenance
    same = replace(provenance, replaces=earlier.replaces)
    if _uid("report", same) == earlier.sop_instance_uid:
        return same
    return replace(provenance, replaces=earlier.date)


def save_report_as_dcm(page: Image.Image, path: Path, provenance: Provenance) -> Dataset:
    """Write the page (RGB) as a Secondary Capture image and return it.

    Raises OSError if `path` cannot be written; a file appears there only when it is complete.
    """
    ds = _page("report", page, provenance, shows=provenance.sources)
    ds.SOPInstanceUID = _uid("report", provenance)
    ds.SeriesInstanceUID = _uid("report", provenance, "series")
    save(ds, Path(path))
    return ds


def _uid(kind: str, provenance: Provenance, *purpose: str) -> str:
    """That of a page which takes the place of another is not that of the one which does not: they look different."""
    return provenance.uid(kind, *purpose, *filter(None, [provenance.replaces]))


def save_series_page_as_dcm(page: Image.Image, path: Path, provenance: Provenance) -> Dataset:
    """Write the page with the table of series and return it. Raises OSError.

    In a series of its own: of two pages in one, OHIF shows the second as the thumbnail. It tells of series that were
    not measured, which may come and go: another page has another UID.
    """
    ds = _page("series table", page, provenance)
    ds.SOPInstanceUID = provenance.uid("series table", _digest(ds))
    save(ds, path)
    return ds


def save_refusal_as_dcm(page: Image.Image, path: Path, provenance: Provenance) -> Dataset:
    """Write the page that stands in place of all results, and return it. Raises OSError.

    Another page, as one with another reason, has other UIDs.
    """
    ds = _page("refusal", page, provenance)
    ds.DerivationDescription = ds.DerivationDescription.replace("volume.", "volume, refused.")
    ds.SeriesInstanceUID = provenance.uid("refusal", "series", _digest(ds))
    ds.SOPInstanceUID = provenance.uid("refusal", _digest(ds))
    save(ds, path)
    return ds


def _page(kind: str, page: Image.Image, provenance: Provenance, shows: Sequence[Instance] = ()) -> Dataset:
    ds = result_attributes(kind, provenance)
    ds.update(secondary_capture(page))
    ds.update(derived_from(shows))
    ds.BurnedInAnnotation = "YES" if provenance.names_patient else "NO"
    if provenance.replaces and kind != "series table":
        ds.SeriesDescription = f"{PRODUCT} {kind}, replaces {provenance.replaces} ({RESEARCH.lower()})"  # 64 letters
        ds.DerivationDescription += f" {IN_PLACE_OF} {provenance.replaces}."
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
