"""What is fetched of a study, and for how long it is there. The archive here is a folder; servers: test_dicomweb.py."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from archive.fetching import fetched_study
from archive.sending import ArchiveError
from choosing.series_rules import Condition, load_rules
from common.refusal import Failure
from phantom import BRAIN_SERIES
from reading.dicom_series import Series, list_files


class FolderArchive:
    """Gives the headers of a study on disk. chosen: the UIDs of the series whose pixels were wanted."""

    def __init__(self, study: Path):
        self.study, self.chosen, self.folder = study, None, None

    def fetch_study(self, study_uid: str, folder: Path, choose: Callable[[list[Path]], list[Series]]) -> list[Path]:
        self.folder = folder
        files = []
        for number, path in enumerate(list_files(self.study)):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            assert header.StudyInstanceUID == study_uid
            files.append(folder / f"{number}.dcm")
            header.save_as(files[-1])
        self.chosen = [series.uid for series in choose(files)]
        return files


def _uids(files: list[Path], keyword: str) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True)[keyword].value) for path in files}


@pytest.fixture
def study(make_study) -> Path:
    return make_study()


@pytest.fixture
def uid(study) -> str:
    (uid,) = _uids(list_files(study), "StudyInstanceUID")
    return uid


@pytest.fixture
def crop_uid(study, crop_files) -> str:
    (uid,) = _uids(crop_files(study), "SeriesInstanceUID")
    return uid


def test_all_headers_come_and_the_pixels_of_the_crop(study, uid, crop_uid):
    archive = FolderArchive(study)
    with fetched_study(archive, uid, load_rules()) as files:
        assert archive.chosen == [crop_uid]
        assert _uids(files, "SOPInstanceUID") == _uids(list_files(study), "SOPInstanceUID")
        assert {path.parent for path in files} == {archive.folder}
    assert not archive.folder.exists()


def test_nothing_stays_where_the_work_fails(study, uid):
    archive = FolderArchive(study)
    with pytest.raises(ZeroDivisionError), fetched_study(archive, uid, load_rules()) as files:
        assert all(path.exists() for path in files)
        raise ZeroDivisionError
    assert not archive.folder.exists()


def test_the_rules_of_a_site_choose(study, uid, crop_uid):
    archive = FolderArchive(study)
    with fetched_study(archive, uid, [Condition("any other", "SeriesDescription", "is", BRAIN_SERIES)]):
        assert {*archive.chosen, crop_uid} == _uids(list_files(study), "SeriesInstanceUID")


def test_the_series_that_was_asked_for_is_fetched(study, uid, crop_uid, add_series):
    other = _uids(add_series(study), "SeriesInstanceUID")
    for asked in (crop_uid, *other):
        archive = FolderArchive(study)
        with fetched_study(archive, uid, load_rules(), series_uid=asked):
            assert archive.chosen == [asked]


def _a_second_crop(study: Path, add_series: Callable) -> None:
    add_series(study)


def _no_crop(study: Path, add_series: Callable) -> None:
    for path in list_files(study):
        header = pydicom.dcmread(path)
        header.SeriesDescription = "T1"
        header.save_as(path)


def _two_patients(study: Path, add_series: Callable) -> None:
    path = list_files(study)[0]
    header = pydicom.dcmread(path)
    header.PatientID = "another"
    header.save_as(path)


@pytest.mark.parametrize("change", [_a_second_crop, _no_crop, _two_patients])
def test_of_a_study_that_will_be_refused_no_pixels_are_fetched(study, uid, add_series, change):
    change(study, add_series)
    archive = FolderArchive(study)
    with fetched_study(archive, uid, load_rules()) as files:
        assert archive.chosen == []
        assert len(files) == len(list_files(study))


def test_what_the_archive_does_not_do_is_an_error_that_leaves_nothing(uid):
    folders = []

    class Refusing:
        def fetch_study(self, study_uid, folder, choose):
            folders.append(folder)
            (folder / "half.dcm").write_bytes(b"half")
            raise ArchiveError("it does not answer")

    with pytest.raises(ArchiveError, match="it does not answer"), fetched_study(Refusing(), uid, load_rules()):
        pytest.fail("there is nothing to work on")
    assert not folders[0].exists()


def test_a_disk_that_fails_is_no_refusal(uid, tmp_path):
    class Forgetful:
        def fetch_study(self, study_uid, folder, choose):
            return choose([folder / "gone.dcm"])

    with pytest.raises(Failure, match=r"\[cannot-read\]"), fetched_study(Forgetful(), uid, load_rules()):
        pytest.fail("there is nothing to work on")


def test_without_a_place_for_it_nothing_is_fetched(study, uid, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ArchiveError, match="no temporary folder"), fetched_study(FolderArchive(study), uid, ()):
        pytest.fail("there is nothing to work on")
