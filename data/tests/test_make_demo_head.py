"""The painted head: from a label map, the same each time, as small as its head."""

import nibabel as nib
import numpy as np

from make_demo_head import MARGIN, main, painted


def test_tissue_has_the_grey_of_t1():
    labels = np.zeros((30, 30, 30), np.int16)
    labels[:, :10], labels[:, 10:20], labels[:, 20:] = 2, 3, 4
    image = painted(labels)
    white, grey, fluid = (image[5:25, place, 5:25].mean() for place in (5, 15, 25))
    assert white > grey + 15 > fluid + 45
    np.testing.assert_array_equal(image, painted(labels))


def test_a_head_is_cut_out_and_stays_where_it_was(tmp_path, capsys):
    labels = np.zeros((40, 50, 60), np.int16)
    labels[10:30, 15:40, 20:50] = 507
    labels[14:17, 20:24, 30:33], labels[23:26, 20:24, 30:33] = 17, 53
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = (-20, -25, -30)
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    assert main([str(tmp_path / "labels.nii.gz"), "--out", str(tmp_path / "head.nii.gz")]) == 0
    head = nib.load(tmp_path / "head.nii.gz")
    assert head.shape == (20 + 2 * MARGIN - 1, 25 + 2 * MARGIN - 1, 30 + 2 * MARGIN - 1)
    np.testing.assert_allclose(head.affine[:3, 3], affine[:3, 3] + (10 - MARGIN, 15 - MARGIN, 20 - MARGIN))
    assert "left hippocampus: 36 voxels of 1 mm3, their middle at [-5.0, -3.5, 1.0] mm" in capsys.readouterr().out
