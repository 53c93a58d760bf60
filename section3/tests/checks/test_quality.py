"""Good crops get their number and nonsense gets none: each check by itself, and the limits as data."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from checks import quality
from checks.quality import assess_input, assess_output, assess_spacing
from checks.quality_catalogue import INPUT_MEASURES, OUTPUT_MEASURES
from checks.quality_limits import LIMITS_FILE, TEMPLATE_FILE, TEMPLATE_SCALE, Limits, Range
from checks.quality_measures import enlarged
from common.refusal import Failure
from common.shipped import DEFAULT_MODEL
from common.verdicts import FAIL, PASS, WARN, Check, worst
from phantom import make_phantom

SOURCE = Path(quality.__file__).parents[1]
MODEL = "0" * 64  # what the limits were fitted on


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if check.verdict == FAIL}


# --- each check -------------------------------------------------------------------------------------------------------


def test_every_measure_is_checked_once_and_in_order(phantom, limits, good_answer):
    checks = assess_input(phantom.image, limits) + assess_output(good_answer(phantom.labels), MODEL, limits)
    names = [measure.name for measure in (*INPUT_MEASURES, *OUTPUT_MEASURES)]
    assert [check.name for check in checks] == [*names[:3], "slices_alike", "blank_edges", *names[3:]]
    assert failed(checks) == set()


def test_clean_phantoms_fail_nothing_or_nearly_so(limits, good_answer):
    refused = {}
    for seed in range(200, 212):
        one = make_phantom(seed)
        reasons = failed(assess_input(one.image, limits) + assess_output(good_answer(one.labels), MODEL, limits))
        if reasons:
            refused[seed] = reasons
    assert len(refused) <= 1, refused


def _grey(image: np.ndarray) -> np.ndarray:
    return np.clip(image / np.percentile(image, 99.5), 0, 1)


BAD_INPUT: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("size_x", lambda image: image[8:-8]),
    ("size_y", lambda image: image[:, 12:-12]),
    ("size_z", lambda image: image[:, :, 10:-10]),
    ("size_x", lambda image: np.pad(image, ((20, 20), (0, 0), (0, 0)), "edge")),
    ("size_y", lambda image: np.pad(image, ((0, 0), (20, 20), (0, 0)), "edge")),
    ("size_z", lambda image: np.pad(image, ((0, 0), (0, 0), (20, 20)), "edge")),
    ("grey_levels", lambda image: np.round(_grey(image) * 20)),
    ("grey_levels", np.zeros_like),
    ("brightness", lambda image: _grey(image) ** 3),
    ("brightness", lambda image: _grey(image) ** 0.3),
    ("asymmetry", lambda image: _grey(image) ** 3),
    ("asymmetry", lambda image: _grey(image) ** 0.3),
    ("smoothness", lambda image: _grey(image) + np.random.default_rng(0).normal(0, 0.3, image.shape)),
    ("smoothness", lambda image: ndimage.gaussian_filter(image, 2)),
    ("likeness", lambda image: image.max() - image),
    ("likeness", lambda image: np.roll(image, image.shape[1] // 2, axis=1)),
    ("orientation", lambda image: image[::-1]),
    ("orientation", lambda image: image[:, ::-1]),
    ("orientation", lambda image: image[:, :, ::-1]),
    ("scale", lambda image: enlarged(image, 1.4)),
    ("scale", lambda image: enlarged(image, 0.65)),
]


@pytest.mark.parametrize(("name", "spoil"), BAD_INPUT)
def test_each_input_check_fails_what_it_is_for(name, spoil, phantom, limits):
    assert name in failed(assess_input(spoil(phantom.image), limits))


def _without_most_of(label: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(labels: np.ndarray) -> np.ndarray:
        y = np.indices(labels.shape)[1]
        kept = y <= np.quantile(y[labels == label], 0.15)
        return np.where((labels == label) & ~kept, 0, labels)

    return change


def _border_at(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(labels: np.ndarray) -> np.ndarray:
        y = np.indices(labels.shape)[1]
        return np.where(labels > 0, np.where(y > np.quantile(y[labels > 0], share), 1, 2), 0)

    return change


def _eroded(labels: np.ndarray) -> np.ndarray:
    return np.where(ndimage.binary_erosion(labels > 0, iterations=2), labels, 0)


def _grown(labels: np.ndarray) -> np.ndarray:
    return ndimage.maximum_filter(labels, 7)


def _at_the_edge(labels: np.ndarray) -> np.ndarray:
    return labels[np.flatnonzero(labels.any(axis=(1, 2)))[0] :]


def _cut_through(labels: np.ndarray) -> np.ndarray:
    labels = labels.copy()
    middle = int(np.median(np.flatnonzero((labels == 1).any(axis=(0, 2)))))
    labels[:, middle - 1 : middle + 2] = 0
    return labels


def _with_holes(labels: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(0).random(labels.shape) < 0.1, 0, labels)


BAD_ANSWER: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("anterior", _without_most_of(1)),
    ("anterior", lambda labels: np.zeros_like(labels)),
    ("posterior", _without_most_of(2)),
    ("total", _eroded),
    ("total", _grown),
    ("ratio", _border_at(0.1)),
    ("ratio", _border_at(0.9)),
    ("forward", lambda labels: np.choose(labels, (0, 2, 1))),
    ("forward", lambda labels: np.where(labels == 1, 1, np.roll(labels == 2, -9, axis=1) * 2)),
    ("tilt", lambda labels: np.rot90(labels, axes=(1, 2))),
    ("margin", _at_the_edge),
    ("one_piece", _cut_through),
    ("surface", _with_holes),
    ("surface", lambda labels: np.kron(_border_at(0.5)(np.ones((2, 2, 2))), np.ones((8, 8, 8)))),
]


@pytest.mark.parametrize(("name", "spoil"), BAD_ANSWER)
def test_each_output_check_fails_what_it_is_for(name, spoil, phantom, limits):
    labels = spoil(phantom.labels)
    probabilities = np.stack([labels == one for one in range(3)]).astype(np.float32)
    assert name in failed(assess_output(probabilities, MODEL, limits))


@pytest.mark.parametrize("name", ["confidence", "doubt"])
def test_an_unsure_model_fails(name, phantom, limits, good_answer):
    unsure = 0.4 * good_answer(phantom.labels) + 0.6 / 3
    assert name in failed(assess_output(unsure, MODEL, limits))


def test_an_answer_without_a_part_fails_and_can_be_written_as_json(phantom, limits, good_answer):
    checks = assess_output(good_answer(np.where(phantom.labels == 1, 1, 0)), MODEL, limits)
    assert worst(checks) == FAIL
    by_name = {check.name: check for check in checks}
    assert by_name["posterior"].value == 0
    assert by_name["ratio"].value is None
    assert by_name["ratio"].verdict == FAIL
    json.dumps([asdict(check) for check in checks], allow_nan=False)


@pytest.mark.parametrize(
    "volume",
    [
        np.zeros((1, 1, 2), np.float32),
        np.full((35, 50, 36), 3e38, np.float32),
        np.where(np.indices((35, 50, 36)).sum(axis=0) % 2, np.float32(3e38), np.float32(-3e38)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_absurd_volumes_fail_quietly(volume, limits):
    checks = assess_input(volume, limits)
    assert worst(checks) == FAIL
    assert all(np.isfinite(check.value) for check in checks)


def test_a_huge_volume_is_measured_by_its_size_alone(limits):
    huge = np.broadcast_to(np.float32(1), (10**5, 10**5, 10**5))  # takes no memory, and would if it were looked at
    assert failed(assess_input(huge, limits)) == {"size_x", "size_y", "size_z"}


@pytest.mark.parametrize("factor", [1e-3, 1, 1e6])
def test_the_scale_of_the_intensities_changes_nothing(factor, phantom, limits):
    as_is, scaled = (
        [check.value for check in assess_input(volume, limits)] for volume in (phantom.image, phantom.image * factor)
    )
    np.testing.assert_allclose(scaled, as_is, rtol=1e-3)


def test_the_limits_of_another_model_are_a_warning(phantom, limits, good_answer):
    checks = assess_output(good_answer(phantom.labels), "f" * 64, limits)
    assert [check.name for check in checks if check.verdict == WARN and check.name == "model"] == ["model"]


def test_a_sentence_says_what_was_found_and_expected(phantom, limits):
    checks = {check.name: check for check in assess_input(phantom.image[8:-8], limits)}
    low, high = limits.ranges["size_x"].fail
    assert f"is {phantom.image.shape[0] - 16} mm, expected {low:.3g} to {high:.3g} mm" in checks["size_x"].sentence
    assert checks["size_y"].verdict == PASS
    assert checks["size_y"].sentence.endswith(f"is {phantom.image.shape[1]} mm.")


def test_importing_the_checks_does_not_import_scipy():
    source = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import checks.quality; "
    subprocess.run([sys.executable, "-c", source + "assert 'scipy' not in sys.modules"], check=True)


# --- the limits ----------------------------------------------------------------------------------------------------


def test_the_shipped_limits_are_complete_and_say_where_they_come_from():
    limits = Limits.load(DEFAULT_MODEL.parent)
    measures = (*INPUT_MEASURES, *OUTPUT_MEASURES)
    assert set(limits.ranges) == {measure.name for measure in measures}
    for measure in measures:
        one = limits.ranges[measure.name]
        assert one.source
        for ends in (one.warn, one.fail):
            assert [end is not None for end in ends] == [bool(measure.too_low), bool(measure.too_high)]
        assert one.fail[0] is None or one.fail[0] <= one.warn[0]
        assert one.fail[1] is None or one.fail[1] >= one.warn[1]
    assert limits.fitted_on
    assert limits.template.ndim == 3


def test_the_shipped_limits_were_fitted_on_the_shipped_model():
    model = hashlib.sha256(DEFAULT_MODEL.read_bytes()).hexdigest()
    assert Limits.load(DEFAULT_MODEL.parent).model_sha256 == model, "the model was replaced: run fit_quality_limits.py"


def test_values_at_and_beyond_the_limits():
    one = Range(warn=(2, 3), fail=(1, None), source="")
    found = [one.verdict(value) for value in (0.9, 1, 2, 3, 3.1, 1e9, np.nan)]
    assert found == [FAIL, WARN, PASS, PASS, WARN, WARN, FAIL]


def test_coarse_voxels_are_doubted():
    fine, coarse = (assess_spacing((1.0, 1.0, wide)) for wide in (1.5, 2.0))
    assert (fine.verdict, coarse.verdict) == (PASS, WARN)
    assert (coarse.name, coarse.limit) == ("voxel_size", "none")  # the page names it; no limit refuses
    assert coarse.value == 2 and coarse.sentence.startswith("Volumes may come out too small: ")


def test_limits_survive_their_files(tmp_path, limits):
    limits.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LIMITS_FILE, TEMPLATE_FILE}
    back = Limits.load(tmp_path)
    assert (back.ranges, back.model_sha256, back.fitted_on) == (limits.ranges, limits.model_sha256, limits.fitted_on)
    np.testing.assert_allclose(back.template, limits.template, atol=1 / TEMPLATE_SCALE)


def test_a_folder_without_limits_has_none(tmp_path):
    assert Limits.load(tmp_path) is None
    assert Limits.load(tmp_path / "no such folder") is None


@pytest.mark.parametrize("name", [LIMITS_FILE, TEMPLATE_FILE])
def test_half_of_the_limits_is_a_failure(name, tmp_path, limits):
    limits.save(tmp_path)
    (tmp_path / name).unlink()
    assert str(tmp_path / name) in _assert_bad(tmp_path).reason


@pytest.mark.parametrize("name", [LIMITS_FILE, TEMPLATE_FILE])
def test_limits_that_cannot_be_opened_are_a_failure(name, tmp_path, limits):
    limits.save(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()  # its rights would not stop root
    assert str(tmp_path / name) in _assert_bad(tmp_path).reason


BROKEN: list[Callable[[bytes], bytes]] = [
    lambda content: b"",
    lambda content: b"\x00" * 100,
    lambda content: b"null",
    lambda content: content[: len(content) // 2],
    lambda content: content[:4],
    lambda content: content[:60] + bytes(255 - byte for byte in content[60:90]) + content[90:],
]


@pytest.mark.parametrize("break_it", BROKEN)
@pytest.mark.parametrize("name", [LIMITS_FILE, TEMPLATE_FILE])
def test_damaged_limits_are_a_failure(name, break_it, tmp_path, limits):
    limits.save(tmp_path)
    (tmp_path / name).write_bytes(break_it((tmp_path / name).read_bytes()))
    _assert_bad(tmp_path)


@pytest.mark.parametrize("key", ["ranges", "model_sha256", "fitted_on"])
def test_limits_that_lack_something_are_a_failure(key, tmp_path, limits):
    limits.save(tmp_path)
    content = json.loads((tmp_path / LIMITS_FILE).read_text())
    del content[key]
    (tmp_path / LIMITS_FILE).write_text(json.dumps(content))
    _assert_bad(tmp_path)


@pytest.mark.parametrize("measure", [INPUT_MEASURES[0], OUTPUT_MEASURES[-1]])
def test_limits_that_lack_a_measure_are_a_failure(measure, tmp_path, limits):
    limits.save(tmp_path)
    content = json.loads((tmp_path / LIMITS_FILE).read_text())
    del content["ranges"][measure.name]
    (tmp_path / LIMITS_FILE).write_text(json.dumps(content))
    _assert_bad(tmp_path)


def _assert_bad(folder: Path) -> Failure:
    with pytest.raises(Failure) as failed_to_load:
        Limits.load(folder)
    assert failed_to_load.value.code == "bad-model"
    return failed_to_load.value


class OnceReadable(dict):
    """A folder whose files, bytes by name, say something else when they are read again."""

    def __truediv__(self, name: str) -> "OnceReadable.File":
        return self.File(self, name)

    class File:
        def __init__(self, folder: dict, name: str):
            self.folder, self.name = folder, name

        def read_bytes(self) -> bytes:
            content, self.folder[self.name] = self.folder[self.name], b"changed meanwhile"
            return content


def test_the_digest_is_of_what_was_read(tmp_path, limits):
    assert limits.sha256 is None
    limits.save(tmp_path)
    content = [(tmp_path / name).read_bytes() for name in (LIMITS_FILE, TEMPLATE_FILE)]
    sha256 = hashlib.sha256(b"".join(content)).hexdigest()
    assert Limits.load(tmp_path).sha256 == sha256
    assert Limits.load(OnceReadable(zip((LIMITS_FILE, TEMPLATE_FILE), content, strict=True))).sha256 == sha256
