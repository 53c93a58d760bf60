import nibabel as nib
import numpy as np
import pytest

from nifti import as_image, ras_volume
from phantom import make_phantom, save_nifti


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_axes_are_put_in_order_and_back(tmp_path, orientation):
    made = make_phantom(seed=4)
    save_nifti(made.image, tmp_path / "one.nii.gz", orientation=orientation)
    image = nib.load(tmp_path / "one.nii.gz")
    volume = ras_volume(image)
    assert "".join(nib.aff2axcodes(volume.grid.affine)) == "RAS"
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, made.image.astype(np.float32))
    back = as_image(volume.voxels, image)
    np.testing.assert_array_equal(back.affine, image.affine)
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(image.dataobj).astype(np.float32))


def test_a_place_in_the_patient_stays_where_it_is():
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * (0.7, 1.1, 1.6)
    affine[:3, 3] = 3, -20, 11
    voxels = np.zeros((20, 30, 25), np.float32)
    voxels[4, 22, 7] = 1
    volume = ras_volume(nib.Nifti1Image(voxels, affine))
    (index,) = np.argwhere(volume.voxels)
    np.testing.assert_allclose(volume.grid.affine @ [*index, 1], affine @ [4, 22, 7, 1])
