import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import phantom
from model_export import ExportedModel, write_card
from phantom import make_phantom
from predict import main, to_model_grid

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


def volumes(tmp_path: Path) -> dict[str, dict[str, float]]:
    rows = csv.DictReader((tmp_path / "out" / "volumes.csv").open())
    return {row.pop("name"): {key: float(value) for key, value in row.items()} for row in rows}


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
        np.count_nonzero(other.dataobj) * np.prod(spacing), rel=1e-3
    )


def test_a_turned_crop_keeps_its_size_and_its_middle():
    cosine, sine = np.cos(np.radians(20)), np.sin(np.radians(20))
    affine = np.array([[cosine, -sine, 0, 5], [sine, cosine, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]]) @ np.diag(
        [0.5, 1, 2, 1]
    )
    image = nib.Nifti1Image(np.zeros((70, 50, 18), np.float32), affine)
    grid = to_model_grid(image)
    assert grid.shape == (35, 50, 36)
    middles = [nib.affines.apply_affine(one.affine, (np.array(one.shape) - 1) / 2) for one in (image, grid)]
    np.testing.assert_allclose(*middles)


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


def test_one_file_that_cannot_be_used_does_not_stop_the_others(tmp_path, capsys):
    save_nifti(make_phantom(seed=1).image, tmp_path / "images" / "good.nii.gz")
    (tmp_path / "images" / "text.nii.gz").write_text("no NIfTI")
    save_nifti(np.zeros((200, 20, 20), np.float32), tmp_path / "images" / "head.nii.gz")
    assert predict(tmp_path) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "head.nii.gz: is 200 mm long" in told[0] and "text.nii.gz" in told[1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.nii.gz", "volumes.csv"]


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
