"""What is written of a study: right or not at all, the same at every run, and of a refusal a page that says why."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from common.output_files import OUTPUTS
from common.stopwatch import Stopwatch
from objects.provenance import DATES, TIMES
from objects.verify_objects import VerificationError
from reading.dicom_series import list_files, read_study
from study.output_folder import only_run_in
from study.process_study import measure_study, process_single_study
from study.study_outputs import WRITERS, Writers, write_outputs

pytestmark = pytest.mark.slow

REFUSAL_FILES = {"report.dcm", "report.png"}
LONG_AGO = ("20200101", "010203")


def _date_back(path: Path) -> None:
    """As if the run that wrote it had been long ago."""
    ds = pydicom.dcmread(path)
    for date, time in zip(DATES, TIMES, strict=True):
        setattr(ds, date, LONG_AGO[0])
        setattr(ds, time, LONG_AGO[1])
    ds.save_as(path)


def _dates(folder: Path) -> set[tuple[str, str]]:
    objects = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.rglob("*.dcm")]
    return {(ds[date].value, ds[time].value) for ds in objects for date, time in zip(DATES, TIMES, strict=True)}


def test_a_second_run_writes_the_same_bytes(make_study, process, out, digests):
    study = make_study()
    process(study)
    assert LONG_AGO not in _dates(out)
    _date_back(out / "measurements.dcm")  # they say when the result was first made
    process(study)
    assert _dates(out) == {LONG_AGO}
    second = digests(out)
    process(study)
    third = digests(out)
    assert second.keys() == third.keys()
    assert {name for name in second if second[name] != third[name]} <= {"result.json"}


# --- right, or not at all ---------------------------------------------------------------------------------------------


def _mirrored_labels(save):
    return lambda labels, *arguments: save(labels[:, :, ::-1], *arguments)


def _mirrored_contours(draw):
    return lambda grey, labels, chances, slices: draw(grey, labels[:, :, ::-1], chances, slices)


def _last_first(save):
    return lambda pictures, *arguments: save(dict(zip(pictures, reversed(pictures.values()), strict=True)), *arguments)


def _a_pixel_changed(save):
    def save_page(page, *arguments, **options):
        page = page.copy()
        page.putpixel((700, 500), (1, 2, 3))
        return save(page, *arguments, **options)

    return save_page


def _half_written(save):
    def fail(_, path, *arguments, **options):
        path.write_bytes(b"half a p")
        raise OSError(28, "No space left on device")

    return fail


def _erring(**faults) -> Writers:
    """Writers of which those named err."""
    return replace(WRITERS, **{name: fault(getattr(WRITERS, name)) for name, fault in faults.items()})


@pytest.mark.parametrize(
    "writers",
    [
        _erring(segmentation=_mirrored_labels),
        _erring(draw_overlay=_mirrored_contours),
        _erring(overlay=_last_first),
        _erring(report=_a_pixel_changed),
        _erring(series_page=_a_pixel_changed),
    ],
    ids=["segmentation", "contours", "order of the overlay", "report", "series page"],
)
def test_what_was_written_wrong_is_no_result(make_study, process, out, writers):
    study = make_study()
    process(study)
    result = process(study, write=partial(write_outputs, writers=writers))
    assert (result.status, result.code) == ("failed", "verification-failed")
    assert (result.volumes_mm3, result.outputs) == (None, [])
    assert [path.name for path in out.iterdir()] == ["result.json"]


def test_a_refusal_that_was_written_wrong_is_no_refusal(make_refused, process, out):
    study = make_refused("gap")
    process(study)
    result = process(study, write=partial(write_outputs, writers=_erring(refusal=_a_pixel_changed)))
    assert (result.status, result.code, result.outputs) == ("failed", "verification-failed", [])
    assert [path.name for path in out.iterdir()] == ["result.json"]


@pytest.mark.parametrize("writer", ["segmentation", "overlay", "report", "series_page"])
def test_an_output_that_is_left_half_written_is_no_output(make_study, setup, out, digests, process, writer):
    study = make_study()
    process(study)
    before = digests(out)
    write = partial(write_outputs, writers=_erring(**{writer: _half_written}))
    result = process_single_study(list_files(study), setup, out, write=write)
    assert (result.status, result.code, result.outputs) == ("failed", "cannot-write", [])
    assert "No space left on device" in result.reason
    assert digests(out) == before
    assert {path.name for path in out.iterdir()} == {*OUTPUTS, "result.json"}


def test_until_all_is_right_what_was_there_stays(make_study, process, setup, out, digests):
    study = make_study()
    process(study)
    before = digests(out)
    read = read_study(list_files(study))
    measurement = measure_study(read, setup, Stopwatch())
    with only_run_in(out) as folder, pytest.raises(VerificationError):
        write_outputs(read, measurement, setup, folder, Stopwatch(), _erring(series_page=_a_pixel_changed))
    assert digests(out) == before
    assert {path.name for path in out.iterdir()} == {*OUTPUTS, "result.json"}


# --- the pages --------------------------------------------------------------------------------------------------------


def test_what_could_be_read_is_shown(make_refused, process, words):
    process(make_refused("nothing found"))
    assert "Axial, middle" in [text for text, _ in words]
    words.clear()
    process(make_refused("gap"))
    assert words
    assert "Axial, middle" not in [text for text, _ in words]


def _is_crop(dataset: pydicom.Dataset) -> bool:
    return dataset.SeriesDescription == "HippoCrop"


@pytest.mark.parametrize("reason", ["gap", "no crop"])
def test_the_page_of_a_refusal_files_under_its_study(make_study, make_refused, edit, process, out, dciodvfy, reason):
    study = make_refused(reason)
    other = pydicom.dcmread(list_files(study)[0])
    edit(list_files(study), lambda dataset: setattr(dataset, "PatientSex", "F" if _is_crop(dataset) else "M"))
    result = process(study)
    page = pydicom.dcmread(out / "report.dcm")
    assert (page.StudyInstanceUID, page.PatientID) == (other.StudyInstanceUID, other.PatientID)
    assert page.StudyTime == "112200"
    assert page.PatientSex == ("F" if reason == "gap" else "")  # other series may show another head
    assert page.SeriesDescription == "HippoVolume.AI refusal (research use only)"
    assert page.BurnedInAnnotation == "YES"
    assert {one["file"] for one in result.outputs} == REFUSAL_FILES
    assert {path.name for path in out.iterdir()} == {*REFUSAL_FILES, "result.json"}
    assert page.SOPInstanceUID == next(one["sop_instance_uid"] for one in result.outputs if one["file"] == "report.dcm")
    with Image.open(out / "report.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), page.pixel_array)
    assert dciodvfy(out / "report.dcm") == []


@pytest.mark.parametrize("reason", ["nothing found", "no crop"])
def test_the_same_refusal_is_the_same_page_also_when_the_study_has_it_already(
    make_refused, process, out, digests, reason
):
    study = make_refused(reason)
    long_ago = Writers(clock=lambda: datetime.strptime("".join(LONG_AGO), "%Y%m%d%H%M%S"))
    first_result = process(study, write=partial(write_outputs, writers=long_ago))
    assert _dates(out) == {LONG_AGO}
    first = digests(out)
    (study / "fed_back").write_bytes((out / "report.dcm").read_bytes())
    second_result = process(study)
    second = digests(out)
    assert {name for name in first if first[name] != second[name]} == {"result.json"}
    assert (second_result.code, second_result.reason) == (first_result.code, first_result.reason)
    assert [one["condition"] for one in second_result.series_considered].count("not-our-result") == 1


def test_a_page_says_whose_place_it_takes(make_study, crop_files, process, out, words):
    study = make_study()
    long_ago = Writers(clock=lambda: datetime(2020, 1, 1, 1, 2, 3))
    process(study, write=partial(write_outputs, writers=long_ago))
    first = pydicom.dcmread(out / "report.dcm")
    assert "replaces" not in first.SeriesDescription
    crop_files(study)[5].unlink()
    for _ in range(2):  # the second time it is the same page
        words.clear()
        process(study)
        refused = pydicom.dcmread(out / "report.dcm")
        assert refused.SeriesDescription == "HippoVolume.AI refusal, replaces 2020-01-01 (research use only)"
        assert refused.DerivationDescription.endswith("In place of the page of 2020-01-01.")
        assert any("in place of the page of 2020-01-01" in text for text, _ in words)


def test_a_report_that_replaces_another_has_its_own_uid_and_keeps_it(make_study, process, out, setup):
    study = make_study()
    process(study, write=partial(write_outputs, writers=Writers(clock=lambda: datetime(2020, 1, 1, 1, 2, 3))))
    pages = [pydicom.dcmread(out / "report.dcm")]
    for _ in range(2):
        process(study, replace(setup, rules=setup.rules[:3]))
        pages.append(pydicom.dcmread(out / "report.dcm"))
    uids = [(page.SOPInstanceUID, page.SeriesInstanceUID) for page in pages]
    assert uids[0][0] != uids[1][0] and uids[0][1] != uids[1][1] and uids[1] == uids[2]
    assert pages[2].SeriesDescription == "HippoVolume.AI report, replaces 2020-01-01 (research use only)"


def test_another_reason_is_another_page(make_study, crop_files, process, out):
    study = make_study()
    pages = []
    for path in crop_files(study)[5], crop_files(study)[9]:
        path.unlink()
        process(study)
        pages.append(pydicom.dcmread(out / "report.dcm"))
    assert len({uid for page in pages for uid in (page.SeriesInstanceUID, page.SOPInstanceUID)}) == 4


def test_a_study_of_our_own_results_gets_no_page(make_study, process, out, tmp_path):
    process(make_study())
    out.rename(tmp_path / "ours")
    result = process(tmp_path / "ours")
    assert (result.status, result.code, result.outputs) == ("refused", "no-hippocrop-series", [])
    assert [path.name for path in out.iterdir()] == ["result.json"]


def test_the_table_of_series_is_a_page_of_its_own(make_study, add_series, process, out, dciodvfy):
    study = make_study(brain_series=2)
    pages = []
    for _ in range(2):
        process(study)
        pages.append([pydicom.dcmread(out / name) for name in ("report.dcm", "report_series.dcm")])
        add_series(study, description="T1 late")
    (report, second), (same_report, later) = pages
    assert second.SeriesInstanceUID != report.SeriesInstanceUID
    assert second.SeriesNumber > report.SeriesNumber
    assert second.SOPInstanceUID != report.SOPInstanceUID
    for keyword in ("PatientID", "StudyInstanceUID", "StudyDate", "SeriesDate", "SeriesTime"):
        assert second[keyword] == report[keyword]
    # A series more changes the second page alone, and what differs must not share a UID.
    assert same_report == report
    assert later.SeriesInstanceUID == second.SeriesInstanceUID
    assert later.SOPInstanceUID != second.SOPInstanceUID
    with Image.open(out / "report_series.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), later.pixel_array)
    assert dciodvfy(out / "report_series.dcm") == []
