"""measure_nifti.py as its user runs it: a row for each image, masks on the image's own grid, and nothing done twice."""

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import measure_nifti
from measure_nifti import COLUMNS, images_in, main, names_of
from study import head_study
from study.head_study import HeadTask, measure_image

DEMO = Path(__file__).resolve().parents[3] / "data" / "demo_head.nii.gz"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The output folder of the demo head."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert main([str(DEMO), "--out", str(out)]) == 0
    return out


def rows(out: Path) -> list[dict]:
    with (out / "volumes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_sides_are_in_the_table_the_record_the_masks_and_on_the_page(finished):
    (row,) = rows(finished)
    assert tuple(row) == COLUMNS
    assert (row["file"], row["status"], row["code"]) == (str(DEMO), "success", "")
    record = json.loads((finished / "demo_head.json").read_text())
    masks = nib.load(finished / "demo_head_hippocampus.nii.gz")
    assert masks.shape == nib.load(DEMO).shape and masks.get_data_dtype() == np.uint8
    np.testing.assert_allclose(masks.affine, nib.load(DEMO).affine, atol=1e-4)
    counts = np.bincount(np.asarray(masks.dataobj).ravel())
    names = ("left_anterior", "left_posterior", "right_anterior", "right_posterior")
    for label, name in enumerate(names, start=1):
        assert float(row[f"{name}_mm3"]) == counts[label] > 500  # of 1 mm3
    for side in ("left", "right"):
        parts = record["volumes_mm3"][side]
        assert parts["total"] == parts["anterior"] + parts["posterior"] == float(row[f"{side}_total_mm3"])
    left, right = (np.argwhere(np.isin(np.asarray(masks.dataobj), labels)).mean(0) for labels in ((1, 2), (3, 4)))
    assert (masks.affine[:3, :3] @ (right - left))[0] > 0  # left is left
    for labels in ((1, 2), (3, 4)):  # each in one piece
        assert ndimage.label(np.isin(np.asarray(masks.dataobj), labels), np.ones((3, 3, 3)))[1] == 1
    assert (finished / "demo_head.png").stat().st_size > 50_000


def test_whatever_becomes_of_an_image_it_has_a_row(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.nii.gz").write_bytes(b"broken")
    (images / "notes.txt").write_text("no image")
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 40), np.uint8), np.diag([4.0, 4, 4, 1])), images / "empty.nii")
    if os.getuid() != 0:
        (images / "secret.nii").write_bytes(b"")
        (images / "secret.nii").chmod(0)
    out = tmp_path / "out"
    assert main([str(images), "--out", str(out), "--max-workers", "2"]) == 1
    told = {Path(row["file"]).name: (row["status"], row["code"]) for row in rows(out)}
    assert told["broken.nii.gz"] == ("refused", "unreadable-pixels")
    assert told["empty.nii"] == ("refused", "nothing-found")
    assert set(told) >= {"broken.nii.gz", "empty.nii"} and "notes.txt" not in told
    assert "0 of 2 images" in capsys.readouterr().out or os.getuid() != 0
    assert not list(out.glob("*_hippocampus.nii.gz")) and not list(out.glob(".unfinished*"))


def test_what_was_measured_is_not_measured_again_and_another_image_is(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished, tmp_path / "out")
    task = HeadTask(DEMO, "demo_head", out)
    called = []
    monkeypatch.setattr(head_study, "with_head", lambda *_: called.append(1) or pytest.fail("measured again"))
    record = measure_image(task)
    assert record["volumes_mm3"] and not called
    (out / "demo_head_hippocampus.nii.gz").unlink()
    with pytest.raises(pytest.fail.Exception):
        measure_image(task)


def test_an_earlier_mask_goes_where_there_is_no_number_now(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "demo_head.nii.gz").write_bytes(b"broken")
    record = measure_image(HeadTask(tmp_path / "demo_head.nii.gz", "demo_head", out))
    assert record["code"] == "unreadable-pixels"
    assert not (out / "demo_head_hippocampus.nii.gz").exists()


def test_a_disk_that_takes_nothing_is_told(tmp_path, capsys):
    (tmp_path / "out").write_text("a file is in the way")
    assert main([str(DEMO), "--out", str(tmp_path / "out")]) == 1
    assert "[cannot-write]" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--out", "x"], ["none.nii", "--out", "x"]])
def test_wrong_use_is_exit_code_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2 and capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_images_is_told(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no image" in capsys.readouterr().err


def test_images_are_found_once_below_a_folder_and_our_masks_are_none(tmp_path):
    for name in ("a/T1.nii.gz", "b/T1.nii.gz", "b/T1.mgz", "a/T1_hippocampus.nii.gz", "a/._T1.nii.gz", "a/T1.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = images_in([tmp_path, tmp_path / "a" / "T1.nii.gz"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/T1.nii.gz", "b/T1.mgz", "b/T1.nii.gz"]
    names = names_of(found)
    assert list(names.values()) == ["T1", "T1.mgz", "T1.nii.gz"]


def test_as_many_folders_are_named_as_are_needed(tmp_path):
    paths = [tmp_path / name for name in ("one/s1/T1.nii", "one/s2/T1.nii", "two/s2/T1.nii", "two/s3/T2.nii")]
    assert list(names_of(paths).values()) == ["s1__T1", "one__s2__T1", "two__s2__T1", "T2"]


def test_the_table_lists_every_volume_of_the_interface():
    assert {"file", "status", "code", "reason", "left_total_mm3", "right_anterior_mm3"} <= set(measure_nifti.COLUMNS)


def test_ctrl_c_is_told_in_a_line(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure_nifti, "_measure_all", interrupt)
    assert main([str(DEMO), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.startswith("interrupted;")
