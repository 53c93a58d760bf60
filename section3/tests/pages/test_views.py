"""Planes of a volume as pictures: which, how grey, and with which rim."""

import numpy as np
import pytest

from common.structures import ANTERIOR, POSTERIOR
from pages.views import CONTOUR, CORONAL, View, choose_views, middle_slice, render, rim, window


def test_slices_cut_the_middle_of_their_structure():
    labels = np.zeros((10, 30, 10), np.uint8)
    labels[2:5, 20:27, 4] = ANTERIOR
    labels[2:5, 5:14, 6] = POSTERIOR
    anterior, posterior, sagittal, axial = choose_views(labels)
    assert (anterior.index, posterior.index, sagittal.index) == (23, 9, 3)
    assert axial.index in (4, 6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_nothing_the_middle_of_the_volume_is_shown(axis):
    assert middle_slice(np.zeros((10, 20, 30), bool), axis) == (5, 10, 15)[axis]


def test_a_contour_is_closed_also_at_the_edge_of_the_picture():
    inside = np.zeros((20, 30), bool)
    inside[:, :12] = True
    core = np.zeros_like(inside)
    core[CONTOUR:-CONTOUR, CONTOUR : 12 - CONTOUR] = True
    assert np.array_equal(rim(inside), inside & ~core)


@pytest.mark.parametrize("value", [0, 7, -3.5, 1.7e6])
def test_a_constant_image_is_grey(value):
    grey = window(np.full((20, 20, 20), value))
    assert grey.dtype == np.uint8 and np.all(grey == 128)


def test_the_window_ignores_a_few_bright_voxels():
    volume = np.linspace(0, 100, 27_000).reshape(30, 30, 30)
    volume[0, 0, :3] = 1e6
    grey = window(volume)
    assert np.median(grey) == pytest.approx(127, abs=2)


def test_what_little_there_is_in_an_almost_constant_image_is_seen():
    volume = np.zeros((30, 30, 30))
    volume[3, 4, 5] = 1
    assert window(volume)[3, 4, 5] == 255
    assert np.count_nonzero(window(volume)) == 1


def test_dots_stand_where_a_hippocampus_is_as_probable_as_none():
    chance = np.zeros((8, 8, 8), np.float32)
    chance[2:6, 2:6, 2:6] = 0.6
    grey = np.zeros(chance.shape, np.uint8)
    view = View("", CORONAL, 3)
    with_dots = np.asarray(render(view, grey, grey, (80, 80), chance))
    assert not np.asarray(render(view, grey, grey, (80, 80))).any()
    rows, columns = np.nonzero(with_dots.all(-1))
    assert rows.min() >= 20 and rows.max() < 60 and columns.min() >= 20 and columns.max() < 60
    assert 0.05 < len(rows) / 40**2 < 0.2
