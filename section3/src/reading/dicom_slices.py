"""The slices of a series, each at its place, and what must hold for them to be one volume.

In DICOM's patient coordinates here: LPS+, millimetres.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from common.refusal import Refusal
from reading.dicom_file import DICOM_ERRORS, Instance
from reading.dicom_series import Series

# Coordinates come as decimal text that scanners round: a step may differ from the median step by this fraction ...
STEP_TOLERANCE = 0.02
# ... pixel spacings from each other by this fraction, direction cosines by this much.
SPACING_TOLERANCE = 0.001
COSINE_TOLERANCE = 0.001
# A step from here on, in median steps, leaves room for another slice.
GAP = 1.5


@dataclass(frozen=True)
class Slice:
    """The geometry of one instance in DICOM's patient coordinates (LPS+, mm)."""

    instance: Instance
    position: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    pixel_spacing: np.ndarray  # between rows, between columns
    rows: int
    columns: int

    @property
    def name(self) -> str:
        return self.instance.name


def checked_slices(series: Series) -> list[Slice]:
    """The slices of the series sorted along their normal, known to make an even grid.

    Frames of enhanced multi-frame images are slices too. Raises Refusal: too-few-slices, slices-missing, geometry-*.
    """
    slices = [_slice(frame) for instance in series.instances for frame in _frames(instance)]
    if len(slices) < 2:
        raise Refusal("too-few-slices", f"series {series.uid} has one slice, expected a volume")
    _require_alike(slices)
    normal = np.cross(slices[0].along_row, slices[0].along_column)
    slices.sort(key=lambda one: float(one.position @ normal))
    _require_even_steps(slices, normal)
    return slices


# What tells a frame of an enhanced image from another, by the functional group that holds it (PS3.3, C.7.6.16).
_FRAME_ATTRIBUTES = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
_FUNCTIONAL_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_FUNCTIONAL_GROUP_TAGS = {tag_for_keyword(keyword) for keyword in _FUNCTIONAL_GROUPS}


def _frames(instance: Instance) -> list[Instance]:
    """The frames of an enhanced image as if each were an image of its own; a single-frame image as it is."""
    per_frame, shared = (instance.value(keyword) for keyword in _FUNCTIONAL_GROUPS)
    if not per_frame:
        return [instance]
    stated = instance.text("NumberOfFrames")
    if stated.isdecimal() and int(stated) != len(per_frame):
        found = f"{instance.name} states {stated} frames and places {len(per_frame)}"
        raise Refusal("slices-missing", f"{found}; expected a place for every frame")
    # Not Dataset.update, which decodes some of what it copies, and fails on what is damaged.
    common = {tag: element for tag, element in instance.header.items() if tag not in _FUNCTIONAL_GROUP_TAGS}
    frames = []
    for number, groups in enumerate(per_frame):
        header = Dataset(dict(common))
        for keyword, group in _FRAME_ATTRIBUTES.items():
            for source in (groups, *(shared or [])):
                if (element := _grouped(source, group, keyword)) is not None:
                    header[keyword] = element
                    break
        frames.append(Instance(instance.path, header, number, instance.sha256))
    return frames


def _grouped(groups: Dataset, group: str, keyword: str) -> DataElement | None:
    """An attribute in one of the functional groups, None where it is absent or cannot be decoded."""
    try:
        return groups[group][0][keyword]
    except DICOM_ERRORS:
        return None


def _slice(instance: Instance) -> Slice:
    position = _numbers(instance, "ImagePositionPatient", 3)
    orientation = _numbers(instance, "ImageOrientationPatient", 6).reshape(2, 3)
    pixel_spacing = _numbers(instance, "PixelSpacing", 2)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=10 * COSINE_TOLERANCE):
        _refuse_attribute(instance, "ImageOrientationPatient", "two perpendicular directions of length 1")
    if pixel_spacing.min() <= 0:
        _refuse_attribute(instance, "PixelSpacing", "two lengths above 0 mm")
    along_row, along_column = orientation / np.linalg.norm(orientation, axis=1, keepdims=True)
    rows, columns = (int(_numbers(instance, keyword, 1)[0]) for keyword in ("Rows", "Columns"))
    return Slice(instance, position, along_row, along_column, pixel_spacing, rows, columns)


def _numbers(instance: Instance, keyword: str, count: int) -> np.ndarray:
    try:
        values = np.atleast_1d(np.array(instance.value(keyword), dtype=np.float64))
    except DICOM_ERRORS:
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        _refuse_attribute(instance, keyword, f"{count} numbers")
    return values


def _refuse_attribute(instance: Instance, keyword: str, expected: str) -> None:
    found = instance.text(keyword)[:80] or "absent"
    raise Refusal("geometry-missing", f"{keyword} of {instance.name} is {found}, expected {expected}")


def _require_alike(slices: list[Slice]) -> None:
    first = slices[0]
    for keyword, code, is_same in (
        ("Rows", "geometry-mixed-size", _same_text),
        ("Columns", "geometry-mixed-size", _same_text),
        ("FrameOfReferenceUID", "geometry-mixed-frame", _same_text),
        ("PixelSpacing", "geometry-mixed-spacing", _same_spacing),
        ("ImageOrientationPatient", "geometry-mixed-orientation", _same_orientation),
    ):
        for one in slices[1:]:
            if not is_same(first, one, keyword):
                values = " but ".join(f"{each.instance.text(keyword)} in {each.name}" for each in (first, one))
                raise Refusal(code, f"{keyword} is {values}; expected one value for all slices")


def _same_text(first: Slice, second: Slice, keyword: str) -> bool:
    return first.instance.text(keyword) == second.instance.text(keyword)


def _same_spacing(first: Slice, second: Slice, _: str) -> bool:
    return np.allclose(first.pixel_spacing, second.pixel_spacing, rtol=SPACING_TOLERANCE, atol=0)


def _same_orientation(first: Slice, second: Slice, _: str) -> bool:
    return np.allclose(
        [first.along_row, first.along_column], [second.along_row, second.along_column], atol=COSINE_TOLERANCE
    )


def _require_even_steps(slices: list[Slice], normal: np.ndarray) -> None:
    """Refuse duplicates, gaps, uneven steps and tilt, measured by the median step (the lower one: a gap stands out)."""
    moves = np.array([after.position - before.position for before, after in pairwise(slices)])
    steps = moves @ normal
    shifts = np.linalg.norm(moves - np.outer(steps, normal), axis=1)
    median = float(np.quantile(steps, 0.5, method="lower"))
    tolerance = STEP_TOLERANCE * median
    for code, fault, sizes, is_wrong in (
        ("geometry-duplicate-position", "two slices at one position", steps, steps <= tolerance),
        ("geometry-gap", "a slice is missing", steps, steps >= GAP * median),
        ("geometry-uneven", "uneven steps", steps, np.abs(steps - median) > tolerance),
        ("geometry-gantry-tilt", "slices shifted in their plane", shifts, shifts > tolerance),
    ):
        if is_wrong.any():
            first = int(is_wrong.argmax())
            between = f"{sizes[first]:.4g} mm from {slices[first].name} to {slices[first + 1].name}"
            raise Refusal(code, f"{fault}: {between}; the usual step is {median:.4g} mm")
