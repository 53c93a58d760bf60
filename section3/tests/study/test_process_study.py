"""One study from its files to its folder: whose fault it is, what is sent, and what is read how often."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest

from checks.quality_limits import Limits
from common.output_files import OUTPUTS
from common.refusal import CODES, Failure
from common.send_outcome import SendOutcome
from common.shipped import DEFAULT_MODEL
from objects.verify_objects import VerificationError
from phantom import StudyHeader, write_series
from reading.dicom_series import list_files
from study.process_study import (
    NoSuchSeriesError,
    process_single_study,
    record_stop,
    validate_study_directory,
)
from study.study_outputs import write_outputs

pytestmark = pytest.mark.slow

ANTERIOR_MM3, POSTERIOR_MM3 = 4 * 5 * 6, 4 * 7 * 6  # of the blocks


def test_volumes_are_in_mm3_of_the_series_spacing(process, add_series, tmp_path):
    spacing = (0.996, 1.004, 0.998)  # near enough to the model's grid to go in as it is
    add_series(tmp_path / "study", spacing=spacing)
    volumes = process(tmp_path / "study").volumes_mm3
    assert volumes["anterior"] == pytest.approx(ANTERIOR_MM3 * np.prod(spacing))
    assert volumes["posterior"] == pytest.approx(POSTERIOR_MM3 * np.prod(spacing))


def test_a_study_is_measured_the_same_with_its_results_in_it(make_study, process, out, digests):
    study = make_study()
    first = process(study)
    before = digests(out)
    out.rename(study / "fed_back")
    second = process(study)
    assert second.status == "success"
    assert second.volumes_mm3 == first.volumes_mm3
    assert "not-our-result" in [one["condition"] for one in second.series_considered]
    # The objects alone tell when they were made.
    after = digests(out)
    assert before.keys() == after.keys()
    assert {name for name in before if name.endswith(".png") and before[name] != after[name]} == set()


def test_the_series_that_is_asked_for_is_taken_and_none_other(make_study, add_series, process, out):
    study = make_study()
    uid = pydicom.dcmread(add_series(study)[0]).SeriesInstanceUID
    assert process(study).code == "several-hippocrop-series"
    assert process(study, series_uid=uid).series_instance_uid == uid
    result = (out / "result.json").read_bytes()
    with pytest.raises(NoSuchSeriesError, match=uid):
        process(study, series_uid="1.2.3")
    assert (out / "result.json").read_bytes() == result


def test_a_folder_is_needed(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(NotADirectoryError, match=path.name):
            validate_study_directory(path)
    assert validate_study_directory(tmp_path) == [tmp_path / "file"]


def test_where_no_study_could_be_worked_on_result_json_says_why(out):
    result = record_stop(Failure("cannot-fetch", "no answer"), out, "1.2.3")
    written = json.loads((out / "result.json").read_text())
    assert (written["status"], written["code"], written["reason"]) == ("failed", "cannot-fetch", "no answer")
    assert (written["again"], written["study_instance_uid"]) == (True, "1.2.3")
    assert result.output_dir == str(out)


# --- whose fault ------------------------------------------------------------------------------------------------------


class _Agent:
    """A model that raises `error` instead of an answer."""

    def __init__(self, agent, error: Exception):
        self.identity, self.error = agent.identity, error

    def single_volume_inference(self, _):
        raise self.error


def _raise(error: Exception, *_):
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError("Phantom^0001"), "internal-error"),
        (MemoryError("Phantom^0001"), "out-of-memory"),
        (Failure("helper-failed", "it hangs"), "helper-failed"),
    ],
)
def test_what_fails_while_measuring_is_a_failure_without_what_it_quotes(make_study, process, setup, out, error, code):
    study = make_study()
    process(study)
    result = process(study, replace(setup, agent=_Agent(setup.agent, error)))
    assert (result.status, result.code, result.again) == ("failed", code, CODES[code].again)
    assert result.volumes_mm3 is None
    assert "Phantom" not in (out / "result.json").read_text()
    assert [path.name for path in out.iterdir()] == ["result.json"]
    if code == "internal-error":
        assert "ZeroDivisionError" in result.reason and "test_process_study.py" in result.reason


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VerificationError("it is not what was measured"), "verification-failed"),
        (MemoryError("Phantom^0001"), "out-of-memory"),
        (ZeroDivisionError("Phantom^0001"), "internal-error"),
    ],
)
def test_what_fails_while_writing_is_a_failure_and_takes_the_earlier_results_away(
    make_study, process, out, error, code
):
    study = make_study()
    assert process(study).outputs
    result = process(study, write=partial(_raise, error))
    assert (result.status, result.code, result.again) == ("failed", code, CODES[code].again)
    assert (result.volumes_mm3, result.outputs) == (None, [])
    assert "Phantom" not in result.reason
    assert [path.name for path in out.iterdir()] == ["result.json"]


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("refused", [False, True])
def test_where_the_disk_does_not_take_the_outputs_the_earlier_ones_stay(
    make_study, make_refused, process, setup, out, digests, refused
):
    study = make_refused("gap") if refused else make_study()
    process(study)
    before = digests(out)
    result = process_single_study(list_files(study), setup, out, write=partial(_raise, FULL))
    assert (result.status, result.code, result.again) == ("failed", "cannot-write", True)
    assert (result.volumes_mm3, result.outputs) == (None, [])
    assert result.reason == f"cannot write to {out}: No space left on device"
    assert digests(out) == before


def test_a_slice_that_is_gone_is_a_failure_and_no_refusal(make_study, crop_files, setup, out):
    study = make_study()
    files = list_files(study)
    crop_files(study)[5].unlink()
    result = process_single_study(files, setup, out)
    assert (result.status, result.code, result.again) == ("failed", "cannot-read", True)
    assert [path.name for path in out.iterdir()] == ["result.json"]


# --- what is sent -----------------------------------------------------------------------------------------------------


class _Archive:
    """Takes all it gets, and says what it was told to say."""

    def __init__(self, outcome: SendOutcome = SendOutcome(True, "it has it", True)):  # noqa: B008  a frozen value
        self.outcome, self.sent = outcome, []

    def __call__(self, paths: list[Path]) -> SendOutcome:
        assert all(path.exists() for path in paths)
        self.sent.append(sorted(paths))
        return self.outcome


def test_all_objects_of_a_measurement_are_sent_and_nothing_else(make_study, process, out):
    archive = _Archive()
    result = process(make_study(), send=archive)
    assert archive.sent == [sorted(out.rglob("*.dcm"))]
    assert (result.status, result.sent, result.stored, result.send_detail) == ("success", True, True, "it has it")
    assert "send" in result.seconds


@pytest.mark.parametrize("reason", ["gap", "nothing found"])
def test_of_a_refusal_the_page_is_sent(make_refused, process, out, reason):
    archive = _Archive()
    result = process(make_refused(reason), send=archive)
    assert archive.sent == [[out / "report.dcm"]]
    assert (result.status, result.sent, result.stored) == ("refused", True, True)


def test_of_a_study_that_nobody_meant_for_us_no_page_is_sent(make_refused, process, out):
    """An archive that routes all its studies here shall not get a page for each of them."""
    archive = _Archive()
    result = process(make_refused("no crop"), send=archive)
    assert (result.status, archive.sent, result.sent) == ("refused", [], None)
    assert (out / "report.dcm").exists()


def test_where_a_series_has_to_be_chosen_the_page_is_sent(make_study, add_series, process, out):
    archive, study = _Archive(), make_study()
    add_series(study)
    assert process(study, send=archive).code == "several-hippocrop-series"
    assert archive.sent == [[out / "report.dcm"]]


@pytest.mark.parametrize("outcome", [SendOutcome(False, "no answer"), SendOutcome(True, "it has another", False)])
def test_a_refusal_that_the_archive_does_not_have_stays_a_refusal(make_refused, process, out, outcome):
    result = process(make_refused("gap"), send=_Archive(outcome))
    assert (result.status, result.code, result.again) == ("refused", "geometry-gap", False)
    assert (result.sent, result.stored, result.send_detail) == (outcome.sent, outcome.stored, outcome.detail)
    assert (out / "report.dcm").exists()


def test_results_that_could_not_be_sent_stay_where_they_are(make_study, process, out):
    result = process(make_study(), send=_Archive(SendOutcome(False, "no answer")))
    assert (result.status, result.sent, result.send_detail) == ("success", False, "no answer")
    assert {path.name for path in out.iterdir()} == {*OUTPUTS, "result.json"}


def test_an_archive_that_has_something_else_is_a_failure(make_study, process, out):
    result = process(make_study(), send=_Archive(SendOutcome(True, "it has another", False)))
    assert (result.status, result.code, result.again) == ("failed", "not-stored", True)
    assert (result.reason, result.volumes_mm3) == ("it has another", None)
    assert all((out / one["file"]).exists() for one in result.outputs) and result.outputs  # they can be sent again


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError(), Failure("helper-failed", "it hangs")])
def test_nothing_is_sent_of_a_failure_to_measure(make_study, process, setup, error):
    archive = _Archive()
    result = process(make_study(), replace(setup, agent=_Agent(setup.agent, error)), send=archive)
    assert (result.status, archive.sent, result.sent) == ("failed", [], None)


@pytest.mark.parametrize("error", [VerificationError("wrong"), FULL])
@pytest.mark.parametrize("refused", [False, True])
def test_nothing_is_sent_of_a_failure_to_write(make_study, make_refused, setup, out, error, refused):
    archive = _Archive()
    study = make_refused("gap") if refused else make_study()
    result = process_single_study(list_files(study), setup, out, send=archive, write=partial(_raise, error))
    assert (result.status, archive.sent, result.sent) == ("failed", [], None)


def test_nothing_is_sent_where_the_study_could_not_be_read(make_study, crop_files, setup, out):
    study, archive = make_study(), _Archive()
    files = list_files(study)
    crop_files(study)[5].unlink()
    assert process_single_study(files, setup, out, send=archive).status == "failed"
    assert archive.sent == []


# --- what is read how often -------------------------------------------------------------------------------------------


class _CountedPath(type(Path())):
    """A path that notes in `opened` whenever it is opened."""

    opened: Counter[str]

    def open(self, *arguments, **options):
        self.opened[str(self)] += 1  # reading a study opens each file in one thread only
        return super().open(*arguments, **options)


@pytest.fixture
def count_opens(setup, out):
    """count_opens(study, setup) -> its result, and how often each file of it was opened."""
    usual = setup

    def run(study: Path, setup=usual):
        path = type("CountedPath", (_CountedPath,), {"opened": Counter()})
        result = process_single_study([path(file) for file in list_files(study)], setup, out)
        return result, path.opened

    return run


HEADER, PIXELS = 1, 1  # the times that a file is opened for them


def _usual(study, **_):
    return None


def _nothing_to_see(crop_files, edit, study):
    edit(crop_files(study), lambda dataset: setattr(dataset, "PixelData", b"\x2c\x01" * (len(dataset.PixelData) // 2)))
    return "nothing-found"


def _too_long(crop_files, edit, study):
    """Of 17 slices 7 mm apart."""

    def stretch(dataset):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) * 7]

    edit(crop_files(study), stretch)
    return "geometry-spacing"


@pytest.mark.parametrize("change", [_usual, _nothing_to_see, _too_long])
def test_each_slice_is_decoded_once_and_what_is_refused_is_shown(
    make_study, crop_files, edit, count_opens, words, change
):
    study = make_study()
    code = change(crop_files=crop_files, edit=edit, study=study)
    result, opened = count_opens(study)
    assert result.code == code
    crop = {str(path) for path in crop_files(study)}
    assert opened == {str(path): HEADER + PIXELS * (str(path) in crop) for path in list_files(study)}
    assert ("Axial, middle" in [text for text, _ in words]) == (code is not None)


def test_what_is_refused_by_the_limits_is_decoded_once_and_shown(make_study, crop_files, setup, count_opens, words):
    study = make_study()
    result, opened = count_opens(study, replace(setup, limits=Limits.load(DEFAULT_MODEL.parent)))
    assert result.code == "unfit-input"
    assert {opened[str(path)] for path in crop_files(study)} == {HEADER + PIXELS}
    assert "Axial, middle" in [text for text, _ in words]


def test_what_cannot_be_decoded_is_not_tried_again(make_study, crop_files, count_opens, words):
    study = make_study()
    for path in crop_files(study):
        path.write_bytes(path.read_bytes()[:-500])
    result, opened = count_opens(study)
    assert result.code == "unreadable-pixels"
    assert sum(opened.values()) == HEADER * len(list_files(study)) + PIXELS  # of the first slice that is looked at
    assert words and "Axial, middle" not in [text for text, _ in words]


@pytest.mark.parametrize("reason", ["gap", "no crop"])
def test_what_is_no_volume_is_not_decoded_at_all(make_refused, count_opens, words, reason):
    study = make_refused(reason)
    result, opened = count_opens(study)
    assert result.status == "refused"
    assert opened == dict.fromkeys(map(str, list_files(study)), HEADER)
    assert "Axial, middle" not in [text for text, _ in words]


# --- what objects say whose they are ----------------------------------------------------------------------------------


def _uids(folder: Path) -> set[str]:
    objects = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.rglob("*.dcm")]
    return {uid for ds in objects for uid in (ds.SeriesInstanceUID, ds.SOPInstanceUID)}


def _tracking_uids(folder: Path) -> list[str]:
    return [segment.TrackingUID for segment in pydicom.dcmread(folder / "segmentation.dcm").SegmentSequence]


def test_a_pseudonymous_result_has_objects_of_its_own(make_study, process, setup, out, tmp_path):
    study = make_study()
    named = process(study)
    out.rename(tmp_path / "named")
    pseudonymous = process(study, replace(setup, pseudonymous=True))
    assert pseudonymous.setup_sha256 != named.setup_sha256
    assert not _uids(out) & _uids(tmp_path / "named")
    assert not set(_tracking_uids(out)) & set(_tracking_uids(tmp_path / "named"))


def test_a_person_is_tracked_from_visit_to_visit_whatever_measured(
    blocks, process, setup, setup_of, save_threshold_model, card, out, tmp_path
):
    later_model = save_threshold_model(tmp_path / "later.onnx", {**card, "version": "0.2"})
    later_setup = replace(setup_of(later_model), rules=setup.rules[:-1])
    person = StudyHeader.from_seed(1)
    visits = {
        "first": (person, setup),
        "later": (replace(person, study_uid="1.2.3", study_date="20230405", accession_number="7"), later_setup),
        "other": (replace(person, study_uid="1.2.4", patient_id="PHANTOM-0002"), setup),
    }
    found = {}
    for name, (header, visit_setup) in visits.items():
        write_series(tmp_path / name, blocks, study=header)
        assert process(tmp_path / name, visit_setup).status == "success"
        found[name] = _tracking_uids(out)
    assert found["first"] == found["later"]
    assert not set(found["first"]) & set(found["other"])


def test_the_outputs_are_written_by_what_was_handed_in(make_study, process):
    calls = []

    def write(study, measurement, *rest):
        calls.append((study.uid, measurement.hippocampi[0].volumes_mm3["anterior"]))
        return write_outputs(study, measurement, *rest)

    result = process(make_study(), write=write)
    assert calls == [(result.study_instance_uid, ANTERIOR_MM3)]
