"""Heads as NIfTI and MGH: which are read, which are refused and why, and masks on the file's own grid."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt

from common.refusal import Failure, Refusal
from reading.nifti_head import read_head

VOXELS = np.random.default_rng(0).integers(0, 500, (9, 10, 11)).astype(np.int16)
AFFINE = np.diag([1.0, 1.1, 1.2, 1])
AFFINE[:3, 3] = (-5, 6, 7)


@pytest.fixture
def save(tmp_path):
    """save(image, name): its path."""

    def write(image, name="head.nii.gz"):
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write


def image_of(voxels=VOXELS, affine=AFFINE) -> nib.Nifti1Image:
    return nib.Nifti1Image(voxels, affine)


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz", "head.mgz"])
def test_voxels_and_their_place_are_read(save, name):
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
    head = read_head(save(kind(VOXELS, AFFINE), name))
    np.testing.assert_array_equal(head.volume.voxels, VOXELS)
    np.testing.assert_allclose(head.volume.grid.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("codes", ["LPS", "RSA", "AIL", "PRI", "SLP", "IAR"])
def test_any_order_of_axes_is_the_same_head_and_masks_go_back(save, codes):
    turned = image_of().as_reoriented(nib.orientations.ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(codes))))
    path = save(turned)
    head = read_head(path)
    np.testing.assert_array_equal(head.volume.voxels, VOXELS)
    np.testing.assert_allclose(head.volume.grid.affine, AFFINE, atol=1e-5)
    masks = head.on_own_grid((VOXELS > 250).astype(np.uint8))
    np.testing.assert_array_equal(masks.get_fdata() > 0, nib.load(path).get_fdata() > 250)
    np.testing.assert_allclose(masks.affine, nib.load(path).affine, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_any_type_of_number_is_read(save, dtype):
    np.testing.assert_array_equal(read_head(save(image_of((VOXELS // 2).astype(dtype)))).volume.voxels, VOXELS // 2)


def test_a_scaled_image_is_read_as_it_is_meant(save):
    image = image_of()
    image.header.set_slope_inter(2, 3)
    path = save(image)
    np.testing.assert_allclose(read_head(path).volume.voxels, nib.load(path).get_fdata(), rtol=1e-6)


def test_one_volume_with_a_fourth_axis_is_one(save):
    np.testing.assert_array_equal(read_head(save(image_of(VOXELS[..., None]))).volume.voxels, VOXELS)


def _with_forms(q, s):
    image = image_of()
    image.set_qform(q, 1 if q is not None else 0)
    image.set_sform(s, 1 if s is not None else 0)
    return image


def _flipped():
    affine = AFFINE.copy()
    affine[0] *= -1
    return affine


@pytest.mark.parametrize(("q", "s"), [(AFFINE, None), (None, AFFINE), (AFFINE, AFFINE)])
def test_one_place_is_enough(save, q, s):
    np.testing.assert_allclose(read_head(save(_with_forms(q, s))).volume.grid.affine, AFFINE, atol=1e-5)


def test_two_places_are_one_too_many(save):
    with pytest.raises(Refusal) as refusal:
        read_head(save(_with_forms(AFFINE, _flipped())))
    assert refusal.value.code == "geometry-conflict"
    assert "qform RAS from -5.0, 6.0, 7.0 mm" in str(refusal.value) and "sform LAS" in str(refusal.value)


def _with_unit(unit):
    image = image_of()
    image.header.set_xyzt_units(unit)
    return image


def _with_affine(change):
    affine = AFFINE.copy()
    change(affine)
    return _with_forms(None, affine)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (_with_forms(None, None), "geometry-missing"),
        (image_of(np.stack([VOXELS] * 2, -1)), "geometry-missing"),
        (_with_unit("meter"), "geometry-spacing"),
        (image_of(VOXELS[:3]), "geometry-field-of-view"),
        (_with_affine(lambda one: one.__setitem__((0, 1), 0.5)), "geometry-uneven"),
        (image_of(np.where(VOXELS > 400, np.nan, VOXELS).astype(np.float32)), "unreadable-pixels"),
        (image_of(np.zeros((9, 9, 9), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "unreadable-pixels"),
        (image_of(VOXELS.astype(np.complex64)), "unreadable-pixels"),
    ],
)
def test_what_is_no_image_of_a_head_is_refused(save, image, code):
    with pytest.raises(Refusal) as refusal:
        read_head(save(image, "head.nii"))
    assert refusal.value.code == code
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz", "head.mgz"])
@pytest.mark.parametrize("kept", [0, 10, 350, -300])
def test_a_damaged_file_is_refused(save, name, kept):
    path = save((nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image)(VOXELS, AFFINE), name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Refusal) as refusal:
        read_head(path)
    assert refusal.value.code == "unreadable-pixels"


def test_a_header_that_promises_more_than_memory_holds_is_refused(save):
    path = save(image_of(), "head.nii")
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000] * 3, "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        read_head(path)
    assert refusal.value.code == "geometry-field-of-view"


def test_a_file_that_is_not_there_is_a_failure(tmp_path):
    with pytest.raises(Failure) as failure:
        read_head(tmp_path / "none.nii")
    assert failure.value.code == "cannot-read"
