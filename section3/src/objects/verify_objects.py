"""What was written, read back and compared with what was measured.

Segmentation and overlay are decoded by pydicom and placed by their own positions, not by the code that wrote them: an
error in writing cannot hide itself by being repeated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.pixels import pixel_array
from pydicom.tag import Tag

from common.structures import COLOURS, Structure
from reading.dicom_file import DICOM_ERRORS
from reading.dicom_volume import SourceVolume

# Of the voxel's shortest side: slices may lie unevenly within the tolerances of reading, and shift by less; a shift by
# half a voxel or more is an error of ours.
CENTROID_TOLERANCE = 0.25
VOLUME_TOLERANCE = 1e-6  # relative: decimal strings have 16 characters

TRACKING_UID, MEASUREMENT_GROUP, VOLUME = "112040", "125007", "118565006"  # code values
PLACE = [Tag(keyword) for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")]
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


class VerificationError(Exception):
    """What was written is not what was measured. The message names the segment, what was found and what expected."""


@dataclass(frozen=True)
class DecodedSegment:
    """A segment as a reader finds it: the centres of its voxels [N, 3] (RAS+, mm), and the volume of one in mm3."""

    tracking_uid: str
    points: np.ndarray
    voxel_mm3: float


def verify_results(
    segmentation: Path,
    measurements: Path,
    labels: np.ndarray,
    volumes_mm3: Mapping[Structure, float],
    source: SourceVolume,
) -> None:
    """Compare both files with the labels [X, Y, Z] on the grid of `source`, and the volumes by their structure.

    Segments come in the order of the volumes. Raises VerificationError.
    """
    try:
        written = _read(segmentation)
        segments = decode_segmentation(written)
        measured = decode_measurements(_read(measurements), written.SOPInstanceUID)
    except DICOM_ERRORS as error:
        raise VerificationError(f"the results cannot be read back ({type(error).__name__})") from error
    if len(segments) != len(volumes_mm3):
        raise VerificationError(f"the segmentation has {len(segments)} segments, expected {len(volumes_mm3)}")
    for (structure, volume), segment in zip(volumes_mm3.items(), segments, strict=True):
        name = structure.key if structure.side is None else f"{structure.side} {structure.key}"
        _compare_segment(name, segment, np.isin(labels, structure.labels), volume, source)
        if measured.get(segment.tracking_uid) != volume:
            found = measured.get(segment.tracking_uid, "no volume")
            raise VerificationError(f"the measurements say {found} for {name}, expected {volume} mm3")


def verify_picture(path: Path, picture: Image.Image) -> Dataset:
    """Decode the image at `path` and compare its pixels with the picture (RGB); returns where it lies, if it says so.

    Raises VerificationError.
    """
    place = Dataset()
    try:
        pixels = pixel_array(path, ds_out=place, specific_tags=PLACE)
    except DICOM_ERRORS as error:
        raise VerificationError(f"{path.name} cannot be read back ({type(error).__name__})") from error
    if not np.array_equal(pixels, np.asarray(picture)):
        raise VerificationError(f"the pixels of {path.name} are not those that were drawn")
    return place


def verify_overlay(pictures: Mapping[Path, Image.Image], labels: np.ndarray, source: SourceVolume) -> None:
    """Decode the files and compare them with what was drawn, and their contours with labels [X, Y, Z] of `source`.

    By each picture's own position, a contour runs through voxels of its structure only, and through all at its border.
    Raises VerificationError.
    """
    found = np.zeros_like(labels)
    zoom = next(iter(pictures.values())).width // source.instances[0].value("Columns")
    for path, picture in pictures.items():
        place = verify_picture(path, picture)
        for label, points in _contours(np.asarray(picture), place, zoom):
            indices = _nearest_voxels(points, source)
            if (indices < 0).any() or (indices >= labels.shape).any():
                raise VerificationError(f"a contour in {path.name} lies outside of what was measured")
            found[tuple(indices.T)] = label
    found, labels = source.by_slice(found), source.by_slice(labels)
    shown = found.any(axis=(1, 2)) | labels.any(axis=(1, 2))
    found, labels = found[shown], labels[shown]
    if (found != labels)[(found > 0) | _borders(labels)].any():
        raise VerificationError("the contours of the overlay are not those of what was measured")


def verify_probabilities(path: Path, chances: np.ndarray, source: SourceVolume) -> None:
    """Compare a parametric map with chances [X, Y, Z] on the grid of `source`. Raises VerificationError."""
    try:
        written = _read(path)
        shared = written.SharedFunctionalGroupsSequence[0]
        scale = float(shared.RealWorldValueMappingSequence[0].RealWorldValueSlope)
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        in_plane = _in_plane(shared.PixelMeasuresSequence[0].PixelSpacing, orientation)
        found = np.zeros(chances.shape)
        frames = written.pixel_array.reshape(-1, written.Rows, written.Columns)
        for pixels, groups in zip(frames, written.PerFrameFunctionalGroupsSequence, strict=True):
            position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            points = (np.indices(pixels.shape).reshape(2, -1).T @ in_plane + position) * LPS_TO_RAS
            found[tuple(_nearest_voxels(points, source).T)] = pixels.ravel() * scale
    except (*DICOM_ERRORS, IndexError) as error:
        raise VerificationError(f"the probability map cannot be read back ({type(error).__name__})") from error
    if (apart := float(np.abs(found - chances).max())) > scale:
        raise VerificationError(f"the probability map differs by {apart:.3g} from what was measured")


def _contours(pixels: np.ndarray, place: Dataset, zoom: int) -> Iterator[tuple[int, np.ndarray]]:
    """Each label and the centres [N, 3] (RAS+, mm) of the source's pixels that its contour runs through.

    pixels: [rows, columns, 3], an enlarged slice; place: where it lies, by PLACE.
    """
    height, width, _ = pixels.shape
    # All but grey. In two dimensions np.nonzero takes four times as long.
    rows, columns = np.divmod(np.flatnonzero(pixels[..., 0] != pixels[..., 2]), width)
    if not rows.size:
        return
    colours = pixels[rows, columns]
    in_plane = _in_plane(place.PixelSpacing, place.ImageOrientationPatient)
    position = np.array(place.ImagePositionPatient, float)
    for label, colour in COLOURS.items():
        of_label = (colours == list(bytes.fromhex(colour[1:]))).all(axis=1)
        inside = np.zeros((height // zoom, width // zoom), bool)
        inside[rows[of_label] // zoom, columns[of_label] // zoom] = True
        centres = np.argwhere(inside) * zoom + (zoom - 1) / 2
        yield label, (centres @ in_plane + position) * LPS_TO_RAS


def _borders(labels: np.ndarray) -> np.ndarray:
    """The voxels of labels [slices, rows, columns] that have one of another label beside them in their slice."""
    _, rows, columns = labels.shape
    padded = np.pad(labels, ((0, 0), (1, 1), (1, 1)))
    same = [padded[:, row : row + rows, column : column + columns] == labels for row in range(3) for column in range(3)]
    return (labels > 0) & ~np.logical_and.reduce(same)


def _read(path: Path) -> Dataset:
    return pydicom.dcmread(path)


def _in_plane(spacing: Sequence[float], orientation: Sequence[float]) -> np.ndarray:
    """The steps [2, 3] of a row and of a column in patient coordinates (LPS+, mm; PS3.3, equation C.7.6.2.1-1)."""
    return np.array(orientation, float).reshape(2, 3)[::-1] * np.array(spacing, float)[:, None]


def decode_segmentation(segmentation: Dataset) -> list[DecodedSegment]:
    """The segments of a BINARY segmentation, by segment number."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    in_plane = _in_plane(measures.PixelSpacing, shared.PlaneOrientationSequence[0].ImageOrientationPatient)
    points: dict[int, list[np.ndarray]] = {item.SegmentNumber: [] for item in segmentation.SegmentSequence}
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for pixels, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        points[number].append((np.argwhere(pixels) @ in_plane + position) * LPS_TO_RAS)
    voxel_mm3 = float(np.prod([*measures.PixelSpacing, measures.SpacingBetweenSlices], dtype=float))
    return [
        DecodedSegment(item.TrackingUID, np.concatenate([np.empty((0, 3)), *points[item.SegmentNumber]]), voxel_mm3)
        for item in sorted(segmentation.SegmentSequence, key=lambda item: item.SegmentNumber)
    ]


def decode_measurements(report: Dataset, segmentation_uid: str) -> dict[str, float]:
    """Volumes in mm3 by tracking UID, of the groups that refer to that segmentation."""
    volumes = {}
    for group in _items(report, MEASUREMENT_GROUP):
        (tracking,) = _items(group, TRACKING_UID)
        (volume,) = _items(group, VOLUME)
        (measured,) = volume.MeasuredValueSequence
        in_mm3 = measured.MeasurementUnitsCodeSequence[0].CodeValue == "mm3"
        if in_mm3 and segmentation_uid in _referenced(group):
            volumes[tracking.UID] = _number(measured)
    return volumes


def _number(measured: Dataset) -> float:
    """The value with all its digits; the decimal string beside it must say the same, as far as it goes."""
    value = float(measured.FloatingPointValue)
    if not np.isclose(value, float(measured.NumericValue), rtol=1e-9, atol=0):
        raise ValueError("the two forms of the number differ")
    return value


def _items(item: Dataset, code: str) -> Iterator[Dataset]:
    """The content items below `item` whose concept name has that code."""
    for child in item.get("ContentSequence", ()):
        if child.get("ConceptNameCodeSequence") and child.ConceptNameCodeSequence[0].CodeValue == code:
            yield child
        else:
            yield from _items(child, code)


def _referenced(group: Dataset) -> list[str]:
    references: Sequence[Dataset] = [
        reference for child in group.ContentSequence for reference in child.get("ReferencedSOPSequence", ())
    ]
    return [reference.ReferencedSOPInstanceUID for reference in references]


def _nearest_voxels(points: np.ndarray, source: SourceVolume) -> np.ndarray:
    """Indices [N, 3] into the source's grid, of points [N, 3] (RAS+, mm)."""
    to_index = np.linalg.inv(source.grid.affine)
    return np.round(points @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)


def _compare_segment(
    name: str, segment: DecodedSegment, mask: np.ndarray, volume_mm3: float, source: SourceVolume
) -> None:
    indices = _nearest_voxels(segment.points, source)
    expected = np.argwhere(mask)
    if not np.array_equal(np.unique(indices, axis=0), expected) or len(indices) != len(expected):
        raise VerificationError(f"the voxels of {name} in the segmentation are not those that were measured")
    found_mm3 = len(indices) * segment.voxel_mm3
    if not np.isclose(found_mm3, volume_mm3, rtol=VOLUME_TOLERANCE, atol=0):
        raise VerificationError(f"{name} has {found_mm3:.6g} mm3 in the segmentation, expected {volume_mm3:.6g} mm3")
    centroid = source.grid.affine[:3, :3] @ expected.mean(axis=0) + source.grid.affine[:3, 3]
    shift = float(np.linalg.norm(segment.points.mean(axis=0) - centroid))
    if shift > CENTROID_TOLERANCE * min(source.grid.spacing):
        raise VerificationError(f"the centroid of {name} in the segmentation is {shift:.3g} mm from where it should be")
