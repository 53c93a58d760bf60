"""Limits as they are fitted, and the rates of all checks together, by the shipped limits and the shipped model."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from checks.quality import assess_input
from checks.quality_catalogue import Measure
from checks.quality_limits import Limits
from checks.quality_measures import measure_output
from choosing.series_rules import consider_series, get_series_for_inference, load_rules
from common.shipped import DEFAULT_MODEL
from common.verdicts import FAIL, PASS
from crops import Crop, Judged, Segment, held_out, read_crops
from fit_quality_limits import OTHER_SCANNERS, SHRUNKEN, fit_range, limits_of_other_half, main, mean_crop
from measuring.resampling import to_model_grid
from measuring.unet_inference_agent import UNetInferenceAgent
from nonsense import read_brains
from phantom import make_phantom, make_training_set
from reading.dicom_series import list_files, read_study
from reading.dicom_volume import load_dicom_volume_as_numpy_from_list
from tallies import Tally, as_table, judge, tally_brains, tally_crops, tally_nonsense

pytestmark = pytest.mark.slow

# Near what the persons differ by, so that some of it is only doubted: the least share that fails.
HARD = {"enlarged by 1.2 in its frame": 0.0, "moved by a quarter": 0.6}


@pytest.fixture(scope="module")
def segment() -> Segment:
    """The shipped model."""
    return UNetInferenceAgent(DEFAULT_MODEL).single_volume_inference


@pytest.fixture(scope="module")
def shipped() -> Limits:
    """The shipped ones."""
    return Limits.load(DEFAULT_MODEL.parent)


def test_limits_are_quantiles_widened():
    measure = Measure("depth", "The depth", too_low="low", too_high="high")
    one = fit_range(measure, np.linspace(0, 100, 101))
    assert one.warn == pytest.approx((1 - 0.15 * 98, 99 + 0.15 * 98))
    assert one.fail == pytest.approx((1 - 0.5 * 98, 99 + 0.5 * 98))
    assert "101 crops" in one.source
    one = fit_range(Measure("ratio", "The ratio", too_high="high"), [*np.exp(np.linspace(0, 1, 101)), np.nan, 0])
    assert one.fail == (None, pytest.approx(np.exp(0.99 + 0.5 * 0.98), rel=1e-3))


def test_what_is_usual_of_smaller_ones_is_doubted_and_not_refused():
    measure = Measure("total", "The volume", too_low="small", too_high="large")
    usual, smaller = np.linspace(2400, 4600, 101), np.linspace(1000, 3000, 201)
    alone, both = fit_range(measure, usual), fit_range(measure, usual, {SHRUNKEN: smaller})
    assert both.warn == alone.warn
    assert both.fail == (pytest.approx(1020, rel=1e-3), alone.fail[1])
    assert both.source.endswith(f", and of 201 {SHRUNKEN}")
    inside = fit_range(measure, usual, {SHRUNKEN: np.linspace(2300, 4600, 101)})
    assert (inside.fail, inside.source) == (alone.fail, alone.source)


def test_of_the_few_heads_of_other_scanners_limits_are_a_little_wider():
    usual = np.linspace(0.4, 0.5, 101)
    for name, wider in (("smoothness", 0.015), ("brightness", 0.05)):  # grey values by more
        measure = Measure(name, "The value", too_low="low", too_high="high")
        alone, both = fit_range(measure, usual), fit_range(measure, usual, {OTHER_SCANNERS: [0.6, 0.7]})
        assert both.warn == alone.warn
        assert both.fail == (alone.fail[0], pytest.approx(0.699 + wider))


def test_nobody_is_judged_by_limits_fitted_on_that_person(phantoms, good_answer):
    crops = [Crop(f"{n}", person, one.image) for n, (person, one) in enumerate(zip("aabbbc", phantoms, strict=False))]
    judged = [Judged(crop, measure_output(good_answer(one.labels))) for crop, one in zip(crops, phantoms, strict=False)]
    limits_of = limits_of_other_half(judged, "0" * 64)
    of_b, of_others = limits_of(crops[2]), limits_of(crops[0])
    assert [limits_of(crop) is of_b for crop in crops] == [False, False, True, True, True, False]
    for limits, fitted_on in ((of_b, (0, 1, 5)), (of_others, (2, 3, 4))):
        np.testing.assert_array_equal(limits.template, mean_crop([crops[number].volume for number in fitted_on]))


def test_a_crop_is_answered_by_the_folds_that_held_it_out(tmp_path):
    for run, fold, held in (("a", 1, "x"), ("a", 2, "y"), ("b", 1, "y"), ("b", 2, "x")):
        folder = tmp_path / run / f"fold_{fold}"
        folder.mkdir(parents=True)
        (folder / "model.onnx").touch()
        (folder / "split.json").write_text(json.dumps({"test": [held]}))
    answers = {"a/fold_1": 1.0, "a/fold_2": 2.0, "b/fold_1": 4.0, "b/fold_2": 8.0}

    def load(path: Path) -> Segment:
        answer = answers[str(path.parent.relative_to(tmp_path))]
        return lambda volume: volume * answer

    runs = [tmp_path / "a", tmp_path / "b"]
    crops = [Crop(name, name, np.ones(2)) for name in "xy"]
    segment_of = held_out(runs, crops, load)
    assert [segment_of(crop)(crop.volume).tolist() for crop in crops] == [[4.5, 4.5], [3, 3]]
    with pytest.raises(ValueError, match="0 folds of 2 runs held z out"):
        held_out(runs, [Crop("z", "z", np.ones(2))], load)


def test_the_program_fits_and_evaluates(tmp_path, capsys):
    make_training_set(tmp_path / "set", 4)
    model = Path(shutil.copy(DEFAULT_MODEL, tmp_path))
    options = ["--images", str(tmp_path / "set" / "images"), "--model-path", str(model)]
    options += ["--studies", str(tmp_path / "no")]
    assert main(options) == 0
    assert Limits.load(tmp_path).fitted_on == "4 crops"
    assert main([*options, "--evaluate", "--every", "4"]) == 0
    assert "mirrored in x" in capsys.readouterr().out
    shutil.copytree(tmp_path / "set" / "images", tmp_path / "shrunken" / "kept_0.5")
    assert main([*options, "--shrunken", str(tmp_path / "shrunken")]) == 0
    assert Limits.load(tmp_path).fitted_on == "4 crops, 4 whose hippocampus was made smaller"
    assert main([*options, "--shrunken", str(tmp_path / "shrunken"), "--evaluate", "--every", "4"]) == 0
    assert "kept_0.5" in capsys.readouterr().out


def test_the_program_says_where_images_are_missing(tmp_path, capsys):
    assert main(["--images", str(tmp_path)]) == 1
    assert "holds no NIfTI image" in capsys.readouterr().err


# --- rates, by the shipped limits and the shipped model ---------------------------------------------------------------


def _show_and_bound(good: Tally, nonsense: list[Tally], capsys) -> None:
    """Print the table of rates, and fail where they are worse than they were when this was written."""
    with capsys.disabled():
        print(f"\n{as_table([good, *nonsense])}")
    assert good.share(FAIL) <= 0.1
    for tally in nonsense:
        assert tally.share(FAIL) >= HARD.get(tally.kind, 0.8), tally
        assert tally.share(PASS) <= 0.1 or tally.kind in HARD, tally
    turned = [tally for tally in nonsense if tally.kind.startswith(("mirrored", "turned"))]
    assert turned
    assert all(tally.share(FAIL) == 1 for tally in turned)


def test_rates_on_phantoms(segment, shipped, capsys):
    crops = [Crop(str(seed), str(seed), make_phantom(seed).image) for seed in range(300, 310)]
    good = tally_crops(crops, lambda _: segment, lambda _: shipped)
    _show_and_bound(good, tally_nonsense(crops[:5], lambda _: segment, lambda _: shipped), capsys)


def test_rates_on_real_crops(segment, shipped, real_studies, capsys):
    images = Path(os.environ["HIPPO_DATA"]) / "TrainingSet" / "images"
    crops = read_crops(images)[::10]
    good = tally_crops(crops, lambda _: segment, lambda _: shipped)
    nonsense = tally_nonsense(crops[::3], lambda _: segment, lambda _: shipped)
    brains = tally_brains(read_brains(real_studies), segment, shipped)
    _show_and_bound(good, [*nonsense, *brains], capsys)


def test_a_real_crop_fits_one_way_round_and_the_model_is_surer_of_it(segment, shipped, real_studies):
    """Every fifth crop of training: the figures of section3/README.md."""
    crops = read_crops(Path(os.environ["HIPPO_DATA"]) / "TrainingSet" / "images")[::5]
    assert len(crops) == 42
    for crop in crops:
        either = (crop.volume, np.ascontiguousarray(crop.volume[::-1]))
        failing = [[check for check in assess_input(one, shipped) if check.verdict == FAIL] for one in either]
        assert not failing[0] and failing[1]
        left, right = (measure_output(segment(one)) for one in either)
        assert left["confidence"] - np.nan_to_num(right["confidence"]) >= 0.025


def test_the_real_studies_pass(segment, shipped, real_studies):
    folders = sorted(path for path in real_studies.iterdir() if path.is_dir())
    assert folders
    for folder in folders:
        study = read_study(list_files(folder))
        series = get_series_for_inference(study, consider_series(study, load_rules()))
        crop = to_model_grid(load_dicom_volume_as_numpy_from_list(series))
        checks, _ = judge(crop.voxels, segment, shipped)
        assert {check.name for check in checks if check.verdict == FAIL} == set()
