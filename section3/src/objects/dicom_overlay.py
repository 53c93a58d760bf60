"""The contours on every slice, as pictures for viewers that know nothing of segmentations.

One Secondary Capture image a source slice, single-frame and placed in the patient as its source is: viewers scroll such
a series beside the source, in step with it, where they play a multi-frame object as a film.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset

from common.product import RESEARCH
from common.structures import COLOURS
from objects.dicom_items import decimals, derived_from, encoded, save, slice_step
from objects.dicom_page import secondary_capture, set_pixels
from objects.provenance import Provenance, result_attributes
from pages.canvas import font
from pages.views import dots, is_doubtful, rim, zoom_to
from reading.dicom_file import Instance

LONG_SIDE = 300  # pixels, about: a contour as thin as it should be has no room within the pixels of a crop
WIDE, WIDE_SIDE = 200, 512  # pixels: from so wide on, as heads are, the picture is larger too
AROUND = 1  # slices before and behind those that show a hippocampus
MARGIN = 3  # pixels


def near_labels(labels: np.ndarray) -> range:
    """The slices of labels [slices, rows, columns] that have some, and a few around them."""
    found = np.flatnonzero(labels.any(axis=(1, 2))).tolist()
    return range(max(0, found[0] - AROUND), min(len(labels), found[-1] + 1 + AROUND))


def draw_overlay(
    grey: np.ndarray, labels: np.ndarray, chances: np.ndarray, slices: Sequence[int]
) -> dict[int, Image.Image]:
    """A picture (RGB) of these slices of grey [slices, rows, columns] uint8 with the contours of labels, as large.

    chances: as large too, how probable a hippocampus is; where that is nearly even, there are dots.
    """
    widest = max(grey.shape[1:])
    zoom = max(1, round((WIDE_SIDE if widest > WIDE else LONG_SIDE) / widest))
    note = _note((grey.shape[2] * zoom, grey.shape[1] * zoom))
    doubtful = is_doubtful(chances)
    return {number: _draw_slice(grey[number], labels[number], doubtful[number], note) for number in slices}


def save_overlay(pictures: Mapping[int, Image.Image], folder: Path, provenance: Provenance) -> dict[str, str]:
    """Write 001.dcm, 002.dcm ... into `folder` and return their SOP Instance UIDs by name.

    pictures: of the sources by their number from 0, enlarged by a whole number; a file is named by the number from 1.
    Raises OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True)
    some = next(iter(pictures.values()))
    zoom = some.width // provenance.sources[0].value("Columns")
    outwards = _outwards(provenance.sources[0], zoom)
    ds = encoded(_shared_attributes(some, provenance, zoom))
    written = {}
    for index, picture in pictures.items():
        number, source = index + 1, provenance.sources[index]
        set_pixels(ds, picture)
        ds.update(derived_from([source]))
        ds.ImagePositionPatient = decimals(np.array(source.header.ImagePositionPatient, float) + outwards)
        ds.SOPInstanceUID = provenance.uid("overlay", str(number))
        ds.InstanceNumber = number
        name = f"{number:03d}.dcm"
        save(ds, folder / name)
        written[name] = ds.SOPInstanceUID
    return written


def _draw_slice(grey: np.ndarray, labels: np.ndarray, doubtful: np.ndarray, note: Image.Image) -> Image.Image:
    """A slice [rows, columns] as large as `note`, with the rim of each structure in its colour, above all else."""
    picture = Image.fromarray(zoom_to(grey, note.size, Image.Resampling.BICUBIC)).convert("RGB")
    picture.paste(note, mask=note)
    picture.paste("white", mask=Image.fromarray(dots(zoom_to(doubtful, note.size, Image.Resampling.NEAREST) > 0)))
    mask = zoom_to(labels, note.size, Image.Resampling.NEAREST)
    for label, colour in COLOURS.items():
        picture.paste(colour, mask=Image.fromarray(rim(mask == label)))
    return picture


def _note(size: tuple[int, int]) -> Image.Image:
    """The words that go on every picture, on a transparent one of its size: drawing them is slow."""
    note = Image.new("RGBA", size)
    place = (MARGIN, size[1] - MARGIN)
    ImageDraw.Draw(note).text(place, RESEARCH, "white", font(11), anchor="ls", stroke_width=1, stroke_fill="black")
    return note


def _shared_attributes(picture: Image.Image, provenance: Provenance, zoom: int) -> Dataset:
    """What all pictures have in common with this one: each covers what its source covers, in smaller pixels."""
    first = provenance.sources[0].header
    ds = result_attributes("overlay", provenance)
    ds.update(secondary_capture(picture))
    ds.BurnedInAnnotation = "NO"  # of identity there is none
    ds.FrameOfReferenceUID = provenance.frame_of_reference_uid
    ds.PositionReferenceIndicator = None
    ds.ImageOrientationPatient = decimals(first.ImageOrientationPatient)
    ds.PixelSpacing = decimals(np.array(first.PixelSpacing, float) / zoom)
    ds.SliceThickness, ds.SpacingBetweenSlices = decimals([slice_step(provenance.sources)] * 2)
    return ds


def _outwards(source: Instance, zoom: int) -> np.ndarray:
    """From the source's position to its picture's, in mm.

    Positions are those of pixels' centres: that of the small pixel in the corner lies outside the large one's.
    """
    along_row, along_column = np.array(source.header.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = np.array(source.header.PixelSpacing, float)
    return (1 / zoom - 1) / 2 * (along_row * between_columns + along_column * between_rows)
