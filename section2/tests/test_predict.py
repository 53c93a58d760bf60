import csv
import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import phantom
from model_export import ExportedModel, write_card
from phantom import make_phantom
from predict import main

MODEL = Path(__file__).resolve().parents[2] / "section3" / "model" / "model.onnx"


def save_nifti(array: np.ndarray, path: Path, **how) -> None:
    path.parent.mkdir(exist_ok=True)
    phantom.save_nifti(array, path, **how)


def predict(tmp_path: Path, *options: str) -> int:
    words = ["--model-path", str(MODEL), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out"), *options]
    return main(words)


def labels_of(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8
    return image


def rows_of(tmp_path: Path) -> dict[str, dict[str, str]]:
    rows = csv.DictReader((tmp_path / "out" / "volumes.csv").open(encoding="utf-8"))
    return {row.pop("name"): row for row in rows}


def volumes(tmp_path: Path) -> dict[str, dict[str, float]]:
    rows = rows_of(tmp_path)
    return {name: {key: float(value) for key, value in row.items() if "mm3" in key} for name, row in rows.items()}


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SAL", "ILA"])
def test_the_result_lies_on_the_inputs_own_grid(tmp_path, orientation):
    made = make_phantom(seed=4)
    save_nifti(made.image, tmp_path / "images" / "ras.nii.gz")
    save_nifti(made.image, tmp_path / "images" / "turned.nii.gz", orientation=orientation)
    assert predict(tmp_path) == 0
    ras, turned = (labels_of(tmp_path / "out" / name) for name in ("ras.nii.gz", "turned.nii.gz"))
    assert np.array_equal(turned.affine, nib.load(tmp_path / "images" / "turned.nii.gz").affine)
    assert "".join(nib.aff2axcodes(turned.affine)) == orientation
    assert np.array_equal(np.asarray(nib.as_closest_canonical(turned).dataobj), np.asarray(ras.dataobj))
    found = volumes(tmp_path)
    assert found["ras.nii.gz"] == found["turned.nii.gz"]
    assert found["ras.nii.gz"]["total_mm3"] == np.count_nonzero(ras.dataobj)


def test_a_crop_of_the_other_side_is_seen_as_its_mirror_image(tmp_path):
    made = make_phantom(seed=4)
    save_nifti(made.image, tmp_path / "images" / "left.nii.gz")
    save_nifti(made.image[::-1], tmp_path / "images" / "right.nii.gz")
    assert predict(tmp_path) == 0
    left, right = (np.asarray(labels_of(tmp_path / "out" / f"{name}.nii.gz").dataobj) for name in ("left", "right"))
    np.testing.assert_array_equal(right, left[::-1])
    assert volumes(tmp_path)["right.nii.gz"] == volumes(tmp_path)["left.nii.gz"]


@pytest.mark.parametrize("spacing", [(0.5, 0.8, 1.3), (1.5, 1.0, 0.7)])
def test_other_spacings_give_the_same_volume(tmp_path, spacing):
    save_nifti(make_phantom(seed=5).image, tmp_path / "images" / "one.nii.gz")
    shape = tuple(round(s / d) for s, d in zip(make_phantom(seed=5).image.shape, spacing, strict=True))
    made = make_phantom(seed=5, spacing=spacing, shape=shape)
    save_nifti(made.image, tmp_path / "images" / "other.nii.gz", spacing=spacing)
    assert predict(tmp_path) == 0
    other = labels_of(tmp_path / "out" / "other.nii.gz")
    assert other.shape == made.image.shape
    found = volumes(tmp_path)
    assert found["other.nii.gz"]["total_mm3"] == pytest.approx(found["one.nii.gz"]["total_mm3"], rel=0.05)
    assert found["other.nii.gz"]["total_mm3"] == pytest.approx(
        np.count_nonzero(other.dataobj) * np.prod(spacing), abs=0.06
    )


def test_the_card_s_intervals_are_told(tmp_path):
    save_nifti(make_phantom(seed=1).image, tmp_path / "images" / "1.nii.gz")
    model = tmp_path / "model.onnx"
    model.write_bytes(MODEL.read_bytes())
    card = ExportedModel(MODEL).card
    write_card(model, {**card, "volume_interval": {"level": 0.9, "half_width": {"whole": 0.1}}})
    assert predict(tmp_path, "--model-path", str(model)) == 0
    found = volumes(tmp_path)["1.nii.gz"]
    assert found["total_low_mm3"] == pytest.approx(0.9 * found["total_mm3"], abs=0.1)
    assert found["total_high_mm3"] == pytest.approx(1.1 * found["total_mm3"], abs=0.1)
    assert "anterior_low_mm3" not in found


def test_with_labels_it_is_scored(tmp_path):
    for seed in (1, 2):
        made = make_phantom(seed=seed)
        save_nifti(made.image, tmp_path / "images" / f"{seed}.nii.gz")
        save_nifti(made.labels, tmp_path / "labels" / f"{seed}.nii.gz")
    assert predict(tmp_path, "--labels", str(tmp_path / "labels"), "--save-probabilities") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["summary"]["whole"]["dice"]["n"] == 2
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert [row["name"] for row in rows] == ["1.nii.gz", "2.nii.gz"]
    found = labels_of(tmp_path / "out" / "1.nii.gz")
    truth = np.asarray(nib.load(tmp_path / "labels" / "1.nii.gz").dataobj)
    dice = 2 * np.count_nonzero((np.asarray(found.dataobj) == 1) & (truth == 1))
    dice /= np.count_nonzero(np.asarray(found.dataobj) == 1) + np.count_nonzero(truth == 1)
    assert float(rows[0]["anterior_dice"]) == pytest.approx(dice)
    probabilities = np.asarray(nib.load(tmp_path / "out" / "1_probabilities.nii.gz").dataobj)
    assert probabilities.shape == (*found.shape, 3)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(axis=-1), np.asarray(found.dataobj))


def with_header(path: Path, **fields) -> None:
    """A phantom whose header says something else; what follows it stays."""
    save_nifti(make_phantom(seed=1).image, path.with_suffix(""))
    plain = path.with_suffix("")
    content = bytearray(plain.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))
    plain.unlink()


def truncated(path: Path) -> None:
    save_nifti(make_phantom(seed=1).image, path)
    path.write_bytes(path.read_bytes()[:2000])


BROKEN = {
    "affine has values that are no finite": lambda path: with_header(path, srow_x=[np.nan, 0, 0, 0]),
    "has voxels of 0 x 1 x 1 mm": lambda path: with_header(path, srow_x=[0, 0, 0, 0]),
    "axes are not perpendicular": lambda path: with_header(path, srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0]),  # singular
    "expected one or more along each axis": lambda path: with_header(path, dim=[3, -30, 40, 30, 1, 1, 1, 1]),
    "is 3.277e+04 mm long": lambda path: with_header(path, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
    "is measured in microns": lambda path: with_header(path, xyzt_units=3),
    "has 5 dimensions": lambda path: with_header(path, dim=[5, 20, 20, 20, 2, 2, 1, 1]),
    "no finite numbers": lambda path: save_nifti(np.full((30, 40, 30), np.inf, np.float32), path),
    "expected numbers": lambda path: nib.save(nib.Nifti1Image(np.zeros((30, 40, 30), np.complex64), np.eye(4)), path),
    "has voxels of 0.1 x 0.1 x 0.1 mm": lambda path: save_nifti(np.zeros((30, 40, 30)), path, spacing=(0.1, 0.1, 0.1)),
    "is 200 mm long": lambda path: save_nifti(np.zeros((200, 20, 20), np.float32), path),
    "cannot be read": truncated,
    "cannot be read (File": lambda path: path.write_text("no NIfTI"),
}


@pytest.mark.slow
@pytest.mark.parametrize("complaint", BROKEN)
def test_one_file_that_cannot_be_used_is_a_line_and_does_not_stop_the_others(tmp_path, capsys, complaint):
    for name in ("a.nii.gz", "z.nii.gz"):
        save_nifti(make_phantom(seed=1).image, tmp_path / "images" / name)
    BROKEN[complaint](tmp_path / "images" / "broken.nii.gz")
    assert predict(tmp_path) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert complaint in told and "broken.nii.gz: " in told
    found = rows_of(tmp_path)
    assert {name: row["status"] for name, row in found.items()} == {
        "a.nii.gz": "done",
        "broken.nii.gz": "failed",
        "z.nii.gz": "done",
    }
    assert complaint in found["broken.nii.gz"]["reason"] and not found["broken.nii.gz"]["total_mm3"]
    assert float(found["z.nii.gz"]["total_mm3"]) > 1000 and not found["z.nii.gz"]["reason"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.nii.gz", "volumes.csv", "z.nii.gz"]


@pytest.mark.parametrize("nothing", [np.zeros_like, np.random.default_rng(0).permutation])
def test_where_nothing_is_found_there_is_no_volume(tmp_path, nothing):
    image = make_phantom(seed=4).image
    save_nifti(nothing(image.ravel()).reshape(image.shape), tmp_path / "images" / "nothing.nii.gz")
    assert predict(tmp_path) == 1
    (row,) = rows_of(tmp_path).values()
    assert row["status"] == "failed" and "no hippocampus" in row["reason"]
    assert not any(value for key, value in row.items() if "mm3" in key)
    assert not (tmp_path / "out" / "nothing.nii.gz").exists()


def test_a_name_that_is_no_utf8_is_escaped_and_its_file_done(tmp_path, capsys):
    save_nifti(make_phantom(seed=1).image, tmp_path / "images" / "good.nii.gz")
    strange = os.fsdecode(os.fsencode(tmp_path / "images") + b"/h\xfc\nppo.nii.gz")
    (tmp_path / "images" / "good.nii.gz").rename(strange)
    save_nifti(make_phantom(seed=1).labels, tmp_path / "labels" / "good.nii.gz")
    (tmp_path / "labels" / "good.nii.gz").rename(tmp_path / "labels" / Path(strange).name)
    assert predict(tmp_path, "--labels", str(tmp_path / "labels")) == 0
    assert rows_of(tmp_path)["h\\xfc ppo.nii.gz"]["status"] == "done"
    assert (tmp_path / "out" / Path(strange).name).exists()
    Path(strange).write_text("broken")
    assert predict(tmp_path) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert "h\\xfc ppo.nii.gz: cannot be read" in told


def test_where_all_files_fail_the_table_says_so(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "text.nii.gz").write_text("no NIfTI")
    assert predict(tmp_path) == 1
    assert rows_of(tmp_path)["text.nii.gz"]["status"] == "failed"


@pytest.mark.parametrize("broken", ["model", "images", "overwrite"])
def test_bad_input_is_one_line(tmp_path, capsys, broken):
    save_nifti(make_phantom(seed=1).image, tmp_path / "images" / "1.nii.gz")
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty").mkdir()
    words = {
        "model": ["--model-path", str(tmp_path / "text.onnx")],
        "images": ["--images", str(tmp_path / "empty")],
        "overwrite": ["--out", str(tmp_path / "images")],
    }
    assert predict(tmp_path, *words[broken]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert [p.name for p in (tmp_path / "images").iterdir()] == ["1.nii.gz"]
