"""The overlay: each picture lies on its slice, its contours in their structure, and it says what it is for."""

from itertools import product

import numpy as np
import pydicom
from pydicom import Dataset

from common.structures import COLOURS
from objects.dicom_overlay import draw_overlay


def _corners(ds: Dataset) -> np.ndarray:
    """The outer corners of an image, in patient coordinates."""
    along_row, along_column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = np.array(ds.PixelSpacing, float)
    edges = product((-0.5, ds.Columns - 0.5), (-0.5, ds.Rows - 0.5))
    position = np.array(ds.ImagePositionPatient, float)
    return np.array([position + x * between_columns * along_row + y * between_rows * along_column for x, y in edges])


def test_each_picture_covers_its_source_slice(make):
    results = make(20, orientation="ASL").add_overlay()
    pictures = [pydicom.dcmread(path) for path in results.pictures]
    assert len(pictures) == len(results.source.instances)
    for number, (picture, instance) in enumerate(zip(pictures, results.source.instances, strict=True), start=1):
        assert picture.InstanceNumber == number
        assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == instance.header.SOPInstanceUID
        assert picture.Rows % instance.header.Rows == 0
        np.testing.assert_allclose(_corners(picture), _corners(instance.header), atol=1e-5)


def test_contours_lie_within_their_structure(make):
    results = make().add_overlay()
    for path, labels in zip(results.pictures, results.source.by_slice(results.labels), strict=True):
        pixels = pydicom.dcmread(path).pixel_array
        zoom = pixels.shape[0] // labels.shape[0]
        large = labels.repeat(zoom, axis=0).repeat(zoom, axis=1)
        for label, colour in COLOURS.items():
            coloured = (pixels == list(bytes.fromhex(colour[1:]))).all(axis=-1)
            assert (large[coloured] == label).all()
            assert coloured.any() == (labels == label).any()


def test_every_picture_says_what_it_is_for():
    black = np.zeros((3, 11, 9), np.uint8)
    pictures = draw_overlay(black, black, black, range(3))
    assert len(pictures) == len(black)
    for picture in pictures.values():
        drawn = np.argwhere(np.asarray(picture).any(axis=-1))
        assert len(drawn) > 300
        assert drawn[:, 0].min() > picture.height - 20


def test_where_the_network_is_unsure_there_are_dots_that_no_reader_takes_for_a_contour():
    black = np.zeros((2, 30, 30), np.uint8)
    chances = np.zeros(black.shape, np.float32)
    chances[0, 10:20, 10:20] = 0.5
    chances[0, 5], chances[0, 25] = 0.2, 0.8
    pictures = draw_overlay(black, black, chances, range(2))
    zoom = pictures[0].width // 30
    first, second = (np.asarray(one).astype(int) for one in (pictures[0], pictures[1]))
    dotted = np.argwhere((first == 255).all(-1) & (second != 255).any(-1))
    assert 0.05 < len(dotted) / (10 * zoom) ** 2 < 0.2
    assert dotted.min() >= 10 * zoom and dotted.max() < 20 * zoom
