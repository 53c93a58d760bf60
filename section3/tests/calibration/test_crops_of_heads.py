"""Crops of a head as training's were cut: one a side, alike, and none of what is no head."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.shipped import DEFAULT_LOCALISER
from crops_of_heads import AS_IN_TRAINING, crops_of_heads, head_images
from measuring.hippocrop import Localiser

pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[3] / "data" / "demo_head.nii.gz"


def test_a_head_gives_two_crops_that_look_alike(tmp_path):
    shutil.copy(DEMO, tmp_path)
    (tmp_path / "demo_head_labels.nii.gz").touch()
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 40), np.float32), np.eye(4)), tmp_path / "empty.nii.gz")
    assert [path.name for path in head_images(tmp_path)] == ["demo_head.nii.gz", "empty.nii.gz"]
    localiser = Localiser(DEFAULT_LOCALISER, 1)
    crops = dict(crops_of_heads(tmp_path, localiser))
    assert list(crops) == ["demo_head.nii.gz left", "demo_head.nii.gz right"]
    assert {crop.shape for crop in crops.values()} == {AS_IN_TRAINING}
    left, right = (crop.ravel() for crop in crops.values())
    assert np.corrcoef(left, right)[0, 1] > 0.5  # the right one is mirrored
    assert not list(crops_of_heads(tmp_path, localiser, widest=0.5))
