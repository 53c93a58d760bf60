"""What is read back from right objects is what was measured, and of wrong ones nothing passes."""

from itertools import permutations, product

import numpy as np
import pytest
from pydicom import Dataset

from common.structures import ANTERIOR
from objects.verify_objects import VerificationError

pytestmark = pytest.mark.slow

SPACING = (0.8, 1.1, 1.7)
ORIENTATIONS = ["".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)]


@pytest.mark.parametrize(
    ("orientation", "degrees"),
    [*((codes, 0) for codes in ORIENTATIONS), *((codes, 20) for codes in ("LPS", "AIL", "SPR"))],
)
def test_every_voxel_comes_back_from_the_file_in_its_place(make, orientation, degrees):
    make(degrees, orientation=orientation).verify()


# --- segmentation and measurements ------------------------------------------------------------------------------------


def _shift_frame(segmentation: Dataset) -> None:
    position = segmentation.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    position.ImagePositionPatient = [float(value) + 2 for value in position.ImagePositionPatient]


def _shift_all(millimetres: float):
    def shift(segmentation: Dataset) -> None:
        for groups in segmentation.PerFrameFunctionalGroupsSequence:
            (position,) = groups.PlanePositionSequence
            x, y, z = position.ImagePositionPatient
            position.ImagePositionPatient = [float(x) + millimetres, y, z]

    return shift


def _flip_bit(segmentation: Dataset) -> None:
    segmentation.PixelData = bytes([segmentation.PixelData[0] ^ 1]) + segmentation.PixelData[1:]


def _mirror(segmentation: Dataset) -> None:
    frames = segmentation.pixel_array[:, :, ::-1]
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    segmentation.PixelData = packed + b"\0" * (len(packed) % 2)


def _exchange_segments(segmentation: Dataset) -> None:
    first, second, _ = segmentation.SegmentSequence
    first.SegmentNumber, second.SegmentNumber = 2, 1


def _squeeze(segmentation: Dataset) -> None:
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    measures.SpacingBetweenSlices = float(measures.SpacingBetweenSlices) * 0.999


def _drop_segment(segmentation: Dataset) -> None:
    segmentation.SegmentSequence.pop()


def _drop_pixels(ds: Dataset) -> None:
    del ds.PixelData


@pytest.mark.parametrize(
    "tamper",
    [
        _shift_frame,
        _shift_all(2.0),
        _shift_all(0.3),
        _flip_bit,
        _mirror,
        _exchange_segments,
        _squeeze,
        _drop_segment,
        _drop_pixels,
    ],
)
def test_a_segmentation_that_is_not_the_mask_is_found_out(make, edit, tamper):
    results = make()
    results.verify()
    edit([results.segmentation], tamper)
    with pytest.raises(VerificationError):
        results.verify()


def _groups(report: Dataset) -> list[Dataset]:
    return list(report.ContentSequence[-1].ContentSequence)


def _measured(group: Dataset) -> Dataset:
    return next(item for item in group.ContentSequence if item.ValueType == "NUM").MeasuredValueSequence[0]


def _add_a_thousandth(report: Dataset) -> None:
    _measured(_groups(report)[1]).FloatingPointValue += 0.001


def _change_the_text(report: Dataset) -> None:
    _measured(_groups(report)[1]).NumericValue = "1"


def _in_millilitres(report: Dataset) -> None:
    _measured(_groups(report)[0]).MeasurementUnitsCodeSequence[0].CodeValue = "ml"


def _of_another_segmentation(report: Dataset) -> None:
    for item in _groups(report)[0].ContentSequence:
        for reference in item.get("ReferencedSOPSequence", ()):
            reference.ReferencedSOPInstanceUID = "1.2.3"


def _drop_group(report: Dataset) -> None:
    report.ContentSequence[-1].ContentSequence.pop()


@pytest.mark.parametrize(
    "tamper", [_add_a_thousandth, _change_the_text, _in_millilitres, _of_another_segmentation, _drop_group]
)
def test_measurements_that_are_not_the_volumes_are_found_out(make, edit, tamper):
    results = make()
    results.verify()
    edit([results.measurements], tamper)
    with pytest.raises(VerificationError):
        results.verify()


def test_a_missing_file_is_found_out(make):
    results = make()
    results.verify()
    results.measurements.unlink()
    with pytest.raises(VerificationError):
        results.verify()


# --- the overlay ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_a_right_overlay_is_found_right_whatever_way_it_lies(make, orientation, degrees):
    make(degrees, orientation=orientation).add_overlay().verify_overlay()


def _move(axis: int, millimetres: float):
    def move(picture: Dataset) -> None:
        position = [float(value) for value in picture.ImagePositionPatient]
        position[axis] += millimetres
        picture.ImagePositionPatient = position

    return move


def _turn_over(picture: Dataset) -> None:
    """The pixels as they are, the image said to lie the other way round."""
    along_row = [-float(value) for value in picture.ImageOrientationPatient[:3]]
    picture.ImageOrientationPatient = [*along_row, *picture.ImageOrientationPatient[3:]]


def _enlarge(picture: Dataset) -> None:
    picture.PixelSpacing = [float(value) * 1.5 for value in picture.PixelSpacing]


def _mirror_pixels(picture: Dataset) -> None:
    picture.PixelData = np.ascontiguousarray(picture.pixel_array[:, ::-1]).tobytes()


def _change_a_pixel(picture: Dataset) -> None:
    picture.PixelData = bytes([picture.PixelData[0] ^ 1]) + picture.PixelData[1:]


def _say_other_colours(picture: Dataset) -> None:
    picture.PlanarConfiguration = 1


@pytest.mark.parametrize(
    "tamper",
    [
        *(_move(axis, 1.2 * length) for axis, length in enumerate(SPACING)),
        _turn_over,
        _enlarge,
        _mirror_pixels,
        _change_a_pixel,
        _say_other_colours,
        _drop_pixels,
    ],
)
def test_an_overlay_that_is_not_what_was_drawn_is_found_out(make, edit, tamper):
    results = make(spacing=SPACING).add_overlay()
    results.verify_overlay()
    edit(results.pictures[3:4], tamper)
    with pytest.raises(VerificationError):
        results.verify_overlay()


@pytest.mark.parametrize("change", ["taken away", "added"])
def test_contours_of_another_mask_are_found_out(make, change):
    """As drawn, and drawn wrong: one voxel at the border has no contour, or one beside it has."""
    results = make().add_overlay()
    labels = results.labels.copy()
    voxels = np.argwhere((labels > 0) if change == "taken away" else (labels == 0))
    labels[tuple(voxels[40])] = 0 if change == "taken away" else ANTERIOR
    with pytest.raises(VerificationError, match="contours"):
        results.verify_overlay(labels)
