"""The scoring of heads, on a painted one whose labels are what is found in it."""

import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import score_heads
from study.head_study import HeadTask, measure_image

pytestmark = pytest.mark.slow
DEMO = Path(__file__).resolve().parents[3] / "data" / "demo_head.nii.gz"


def test_a_head_is_scored_by_its_labels_and_on_other_grids(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "heads" / "painted"
    folder.mkdir(parents=True)
    shutil.copy(DEMO, folder / "demo.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"broken")
    (tmp_path / "out").mkdir()
    record = measure_image(HeadTask(DEMO, "demo", tmp_path / "out"))
    masks = nib.load(tmp_path / "out" / "demo_hippocampus.nii.gz")
    labels = np.array([0, 48, 48, 47, 47], np.uint8)[np.asarray(masks.dataobj)]
    nib.save(nib.Nifti1Image(labels, masks.affine), folder / "demo_labels.nii.gz")
    monkeypatch.setattr(score_heads, "SPACINGS", ((1, 1, 1),))
    monkeypatch.setattr(score_heads, "TURNS", ())

    assert score_heads.main([str(tmp_path / "heads")]) == 0
    told = capsys.readouterr().out
    assert "left: Dice 1.000" in told and "right: Dice 1.000" in told
    assert "voxels of labels outside of crops: 0" in told
    assert f"| {record['volumes_mm3']['left']['total']:.0f} |" in told
    assert re.search(r"^\| broken .*unreadable-pixels \|$", told, re.MULTILINE)
    rows = dict(re.findall(r"^\| (1 x 1 x 1 mm|mirrored, sides exchanged) \| \S+ \| (\S+) \|", told, re.MULTILINE))
    assert float(rows["1 x 1 x 1 mm"]) < 0.5 and float(rows["mirrored, sides exchanged"]) < 3
