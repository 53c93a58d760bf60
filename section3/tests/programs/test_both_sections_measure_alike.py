"""One head as NIfTI through section 2's predict.py and as DICOM through the clinic: the same volumes.

Neither section imports the other, so the way to the model's grid and back is written in both.
"""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

import inference_dcm
import predict
from common.shipped import DEFAULT_MODEL
from phantom import make_phantom, write_series

pytestmark = pytest.mark.slow

TURN = np.radians(12)
GRIDS = {  # orientation of the slices, spacing in mm along x, y and z
    "1 mm": ("LPS", (1.0, 1.0, 1.0)),
    "fine": ("PIR", (0.7, 0.7, 0.7)),
    "anisotropic": ("ASL", (0.8, 1.1, 1.4)),
    "half a millimetre more": ("LPS", (1.0, 1.0, 1.5)),
}


@pytest.mark.parametrize("step", [1, -1], ids=["left", "right"])
@pytest.mark.parametrize(("orientation", "spacing"), GRIDS.values(), ids=GRIDS)
def test_one_head_has_one_volume(tmp_path, orientation, spacing, step, capsys):
    head = make_phantom(3, spacing=spacing).image[::step]
    write_series(tmp_path / "study", head, spacing=spacing, orientation=orientation)
    assert inference_dcm.main([str(tmp_path / "study"), "--output-dir", str(tmp_path / "clinic")]) == 0
    clinic = json.loads((tmp_path / "clinic" / "result.json").read_text())["volumes_mm3"]

    written = np.round(head).astype(np.int16)  # as DICOM has it
    nib.save(nib.Nifti1Image(written, np.diag([*spacing, 1])), tmp_path / "head.nii.gz")
    arguments = ["--model-path", str(DEFAULT_MODEL), "--images", str(tmp_path / "head.nii.gz")]
    assert predict.main([*arguments, "--out", str(tmp_path / "predicted")]) == 0
    with (tmp_path / "predicted" / "volumes.csv").open() as file:
        (row,) = csv.DictReader(file)
    for structure, volume in clinic.items():
        assert float(row[f"{structure}_mm3"]) == pytest.approx(volume, abs=0.06), structure  # of rounding
