"""Whether two DICOM objects say the same."""

from __future__ import annotations

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from reading.dicom_file import DICOM_ERRORS

# How a value is written, not what it says: an archive may compress the pixels without loss, or change the alphabet.
ENCODING = ("SpecificCharacterSet", "PhotometricInterpretation", "PlanarConfiguration")
# An archive that had the object already keeps it, with the times of the run that first made it, and what that one
# superseded.
CREATION = tuple(f"{what}{when}" for what in ("InstanceCreation", "Series", "Content") for when in ("Date", "Time"))
IGNORED = frozenset(map(Tag, (*ENCODING, *CREATION, "PredecessorDocumentsSequence")))
PIXELS = Tag("PixelData")


def differences(sent: Dataset, stored: Dataset) -> list[str]:
    """The keywords of the attributes of `sent` that `stored` has not, or with another value.

    Pixels are compared as decoded. Not compared are group 0002, private attributes, how values are encoded and when the
    object was made. What the archive adds is its own.
    """
    return [
        sent[tag].keyword or str(tag)
        for tag in sent.keys()  # noqa: SIM118  a Dataset yields elements, not tags
        if not tag.is_private and tag not in IGNORED and not _is_same(tag, sent, stored)
    ]


def _is_same(tag: BaseTag, sent: Dataset, stored: Dataset) -> bool:
    try:
        if tag == PIXELS:
            return np.array_equal(sent.pixel_array, stored.pixel_array)
        if tag not in stored:
            return sent[tag].is_empty
        return _text(sent[tag]) == _text(stored[tag])
    except DICOM_ERRORS:  # what cannot be decoded is not what was sent
        return False


def _text(element: DataElement) -> object:
    """Comparable values: an empty one is the same whatever its type."""
    return None if element.is_empty else element.value
