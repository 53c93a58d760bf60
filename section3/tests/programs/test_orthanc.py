"""Sending to, reading from and proving against a real archive: Orthanc with its DICOMweb plugin."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from archive.dimse import DimseArchive
from archive.sending import ArchiveError, send_to_archive
from inference_dcm import main
from phantom import write_study
from reading.dicom_series import list_files
from servers import LOCALHOST

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished_study(tmp_path_factory, threshold_model) -> Path:
    """The output folder of a study with a small crop."""
    folder = tmp_path_factory.mktemp("finished")
    volume = np.full((12, 14, 8), 300, np.int16)
    volume[3:7, 7:11, 2:6], volume[3:7, 3:7, 2:6] = 500, 100
    study = write_study(folder / "study", volume, brain_series=0)
    assert main([str(study), "--output-dir", str(folder / "out"), "--model-path", str(threshold_model)]) == 0
    return folder / "out"


@pytest.fixture
def results(finished_study, tmp_path) -> list[Path]:
    """The DICOM objects that a study becomes."""
    return sorted(shutil.copytree(finished_study, tmp_path / "results").rglob("*.dcm"))


@pytest.mark.parametrize("kind", ["dicomweb", "dimse"])
def test_results_are_stored_and_proven_however_often(orthanc, archives, kind, results):
    for _ in range(2):
        outcome = send_to_archive(results, archives[kind])
        assert (outcome.sent, outcome.stored) == (True, True), outcome.detail
    assert len(orthanc.rest("/instances")) == len(results)


@pytest.mark.parametrize("kind", ["dicomweb", "dimse"])
def test_an_archive_that_keeps_something_else_is_found_out(archives, kind, results, edit):
    """This one does not overwrite: it confirms, and keeps what it had."""
    assert send_to_archive(results, archives[kind]).stored
    edit(results[:1], lambda dataset: setattr(dataset, "AccessionNumber", "other"))
    outcome = send_to_archive(results, archives[kind])
    assert (outcome.sent, outcome.stored) == (True, False)
    assert "AccessionNumber" in outcome.detail and "other" not in outcome.detail


@pytest.mark.parametrize("kind", ["dicomweb", "dimse"])
def test_it_tells_how_much_it_holds_of_a_study_and_our_results_do_not_count(archives, kind, make_study, results, edit):
    files = list_files(make_study())
    assert archives[kind].count_instances("1.2.3") == 0
    study_uid = pydicom.dcmread(files[0]).StudyInstanceUID
    edit(results, lambda dataset: setattr(dataset, "StudyInstanceUID", study_uid))
    for sent, count in ((files[:5], 5), (files, len(files)), (results, len(files))):
        assert send_to_archive(sent, archives["dimse"]).stored
        assert archives[kind].count_instances(study_uid) == count


@pytest.mark.parametrize("kind", ["dicomweb", "dimse"])
def test_who_may_not_ask_is_told(orthanc, archives, kind, monkeypatch):
    monkeypatch.setenv("DICOMWEB_PASSWORD", "wrong")
    archives["dimse"] = DimseArchive(LOCALHOST, orthanc.dicom_port, "WRONG")
    with pytest.raises(ArchiveError, match=r"401|Rejected"):
        archives[kind].count_instances("1.2.3")


def test_a_wrong_password_is_a_failure(orthanc, archives, results, monkeypatch):
    monkeypatch.setenv("DICOMWEB_PASSWORD", "wrong")
    outcome = send_to_archive(results, archives["dicomweb"])
    assert not outcome.sent
    assert "401" in outcome.detail and "wrong" not in outcome.detail
    assert orthanc.rest("/instances") == []


def test_a_wrong_ae_title_is_a_failure(orthanc, results):
    outcome = send_to_archive(results, DimseArchive(LOCALHOST, orthanc.dicom_port, "WRONG"))
    assert not outcome.sent
    assert "Rejected" in outcome.detail
    assert orthanc.rest("/instances") == []


def test_what_is_no_dicom_is_refused(archives, tmp_path, results):
    pydicom.dcmread(results[0]).save_as(tmp_path / "damaged.dcm")
    content = (tmp_path / "damaged.dcm").read_bytes()
    (tmp_path / "damaged.dcm").write_bytes(content[:1000])
    assert not send_to_archive([tmp_path / "damaged.dcm"], archives["dicomweb"]).sent


# --- whole programs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(threshold_model, tmp_path, capfd):
    """run(*options) -> exit code, stdout, stderr, result.json; the results go to tmp_path/out."""

    def run_main(*options: str):
        code = main([*options, "--output-dir", str(tmp_path / "out"), "--model-path", str(threshold_model)])
        return code, *capfd.readouterr(), json.loads((tmp_path / "out" / "result.json").read_text())

    return run_main


@pytest.fixture
def temporary_folder(tmp_path, monkeypatch) -> Path:
    """Where programs put what they do not keep."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_study_from_the_archive_gives_what_its_files_give(orthanc, archived_study, run, tmp_path, temporary_folder):
    before = orthanc.rest("/instances")
    code, _, err, fetched = run("--dicomweb", orthanc.dicomweb, "--study", archived_study)
    assert (code, err) == (0, "")
    assert orthanc.rest("/instances") == before  # nobody asked to send anything back
    assert list(temporary_folder.iterdir()) == []
    *_, local = run(str(tmp_path / "study"))
    for key in ("volumes_mm3", "series_instance_uid", "series_considered", "setup_sha256"):
        assert fetched[key] == local[key]
    assert (fetched["files"]["found"], fetched["files"]["not_dicom"]) == (len(before), 0)
    assert [one["sop_instance_uid"] for one in fetched["outputs"]] == [
        one["sop_instance_uid"] for one in local["outputs"]
    ]
    assert (fetched["sent"], fetched["stored"]) == (None, None)


def test_results_go_back_where_that_is_asked_for(orthanc, archived_study, run, tmp_path):
    before = set(orthanc.rest("/instances")), set(orthanc.rest("/series"))
    for _ in range(2):  # the second time the results are there already: no input, and the same but for their times
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        code, out, err, result = run("--dicomweb", orthanc.dicomweb, "--study", archived_study, "--send-back")
        assert (code, err) == (0, "")
        assert (result["sent"], result["stored"]) == (True, True)
        assert "Sent:" in out
    instances, series = set(orthanc.rest("/instances")) - before[0], set(orthanc.rest("/series")) - before[1]
    assert len(instances) == sum(one["file"].endswith(".dcm") for one in result["outputs"])
    for uid in series:
        assert orthanc.rest(f"/series/{uid}")["MainDicomTags"]["SeriesDescription"].startswith("HippoVolume.AI")
    assert len(orthanc.rest("/studies")) == 1


def test_a_folder_is_sent_by_dicomweb(orthanc, make_study, run):
    code, _, err, result = run(str(make_study()), "--dicomweb", orthanc.dicomweb)
    assert (code, err, result["sent"], result["stored"]) == (0, "", True, True)


def test_what_the_archive_keeps_otherwise_is_a_failure(orthanc, make_study, run, edit, archives, tmp_path):
    study = make_study()
    run(str(study))
    earlier = sorted(tmp_path.glob("out/*.dcm"))[:1]
    edit(earlier, lambda dataset: setattr(dataset, "AccessionNumber", "other"))
    send_to_archive(earlier, archives["dimse"])
    code, _, err, result = run(str(study), "--dicomweb", orthanc.dicomweb)
    assert code == 1
    assert err.endswith("[not-stored]\n") and "AccessionNumber" in err
    assert (result["status"], result["sent"], result["stored"]) == ("failed", True, False)
    assert result["volumes_mm3"] is None


def test_a_study_that_is_not_there_is_a_failure(orthanc, run, tmp_path):
    code, out, err, result = run("--dicomweb", orthanc.dicomweb, "--study", "1.2.3")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "404" in err and err.endswith("[cannot-fetch]\n")
    assert (result["status"], result["study_instance_uid"]) == ("failed", "1.2.3")


def test_a_study_that_is_refused_gets_one_page_in_the_archive(orthanc, archives, add_series, run, tmp_path):
    files = add_series(tmp_path / "study")
    del files[5]  # a gap
    assert send_to_archive(files, archives["dimse"]).stored
    uid = pydicom.dcmread(files[0]).StudyInstanceUID
    for _ in range(2):  # the second time the study has the page that says why: it is no reason for another one
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        code, _, err, result = run("--dicomweb", orthanc.dicomweb, "--study", uid, "--send-back")
        assert code == 1
        assert err.endswith("[geometry-gap]\n") and err.count("\n") == 1
        assert (result["sent"], result["stored"]) == (True, True)
    assert len(orthanc.rest("/instances")) == len(files) + 1


def test_a_study_without_a_crop_is_left_alone_in_the_archive(orthanc, archives, add_series, run, tmp_path):
    files = add_series(tmp_path / "study", description="T1")
    assert send_to_archive(files, archives["dimse"]).stored
    uid = pydicom.dcmread(files[0]).StudyInstanceUID
    code, _, err, result = run("--dicomweb", orthanc.dicomweb, "--study", uid, "--send-back")
    assert code == 1
    assert err.endswith("[no-hippocrop-series]\n") and err.count("\n") == 1
    assert (result["sent"], result["stored"]) == (None, None)
    assert len(orthanc.rest("/instances")) == len(files)
