"""The comparison of grids: what it simulates, against formulas, and the whole of it on a phantom."""

import csv

import numpy as np
import pytest

import geometry
from common.shipped import DEFAULT_MODEL
from geometry import ScanGrid
from phantom import make_phantom, save_nifti

pytestmark = pytest.mark.slow

MODEL = str(DEFAULT_MODEL)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    save_nifti(make_phantom(0).image, folder / "phantom.nii.gz")
    return folder


def _brightness(points):
    """A smooth structure around (2, -3, 1) mm, at patient coordinates [..., 3]."""
    return 20000 * np.exp(-(((points - (2, -3, 1)) / (4, 6, 5)) ** 2).sum(axis=-1) / 2)


def _points(affine, shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize(
    ("spacing", "axis", "degrees", "shift"),
    [(0.5, "x", 0, 0), (1, "x", 20, 0), (1, "y", 20, 0), (1, "z", 20, 0), (0.7, "x", 30, 0), (1, "x", 0, 0.5)],
)
def test_a_finer_turned_or_shifted_series_shows_the_head_where_it_is(spacing, axis, degrees, shift):
    crop = _brightness(_points(geometry.CROP.affine((34, 50, 37)), (34, 50, 37)))
    source = geometry.acquire(crop, ScanGrid("", (spacing,) * 3, axis, degrees, shift))
    np.testing.assert_allclose(source.voxels.shape * np.array(source.grid.spacing), crop.shape, atol=spacing / 2)
    points = _points(source.grid.affine, source.voxels.shape)
    inside = (np.abs(points) < np.array(crop.shape) / 2 - 2).all(axis=-1)
    assert np.ptp(points[inside], axis=0).min() > 25
    np.testing.assert_allclose(source.voxels[inside], _brightness(points)[inside], atol=10)


def test_a_wide_voxel_is_the_average_of_those_that_it_covers():
    crop = np.random.default_rng(0).integers(0, 1000, (24, 30, 26)).astype(np.float32)
    source = geometry.acquire(crop, ScanGrid("", (1, 2, 2)))
    np.testing.assert_allclose(source.voxels, crop.reshape(24, 15, 2, 13, 2).mean(axis=(2, 4)), atol=0.51)
    np.testing.assert_array_equal(source.grid.affine[:3, 3], (-11.5, -14, -12))


def test_a_head_is_as_bright_on_every_grid():
    for grid in geometry.GRIDS:
        np.testing.assert_array_equal(geometry.acquire(np.full((26, 31, 24), 700), grid).voxels, 700)


def test_a_phantom_has_nearly_one_volume_and_in_every_axis_order_the_same(images, capsys):
    grids = (ScanGrid("fine", (0.7,) * 3), ScanGrid("wide", (2,) * 3))
    out = images.parent / "rows.csv"
    assert geometry.main([MODEL, "--images", str(images), "--out", str(out)], grids) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("1 crops")
    assert [line.split(" | ")[0] for line in table[4:]] == ["| fine", "| wide", f"| {geometry.AXIS_ORDERS}"]
    own, fine, wide, *turned = csv.DictReader(out.open())
    assert abs(float(fine["total_percent"])) < 1.5
    assert abs(float(wide["total_percent"])) < 6
    for row in (fine, wide):
        difference = 100 * (float(row["anterior_mm3"]) / float(own["anterior_mm3"]) - 1)
        assert float(row["anterior_percent"]) == pytest.approx(difference, abs=0.01)
    assert float(wide["anterior_mm3"]) % 8 == 0  # counted on its own grid
    assert len(turned) == len(geometry.ORIENTATIONS)
    for row in turned:
        assert {**row, "grid": own["grid"]} == own


def test_crops_are_taken_evenly(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.nii.gz").touch()
    assert [path.name[0] for path in geometry.chosen(tmp_path, 4)] == list("0257")
    assert len(geometry.chosen(tmp_path, 20)) == 10


@pytest.mark.parametrize("spacing", [None, (1, 1, 1.2)])
def test_what_is_no_crop_ends_in_one_line(tmp_path, capsys, spacing):
    if spacing:
        save_nifti(np.ones((4, 5, 6), np.float32), tmp_path / "image.nii.gz", spacing)
    assert geometry.main([MODEL, "--images", str(tmp_path), "--out", str(tmp_path / "rows.csv")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert ("1 x 1 x 1.2 mm" if spacing else str(tmp_path)) in line
    assert not (tmp_path / "rows.csv").exists()
