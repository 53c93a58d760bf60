"""The service beside a real archive: OHIF names a series of it, programs name a study."""

import io
import json
from pathlib import Path

import nrrd
import numpy as np
import pydicom
import pytest
from PIL import Image

from archive.dicomweb import DicomWebArchive, NotFoundError
from archive.sending import ArchiveError
from reading.dicom_series import list_files, read_study
from reading.dicom_volume import load_head
from servers import wait_until
from viewer_client import serving_viewers

pytestmark = pytest.mark.slow

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def service(tmp_path, orthanc, threshold_model):
    with serving_viewers(
        tmp_path / "service", "--model-path", threshold_model, "--dicomweb", orthanc.dicomweb
    ) as client:
        yield client


@pytest.fixture
def crop(archived_study, tmp_path, crop_files) -> Path:
    """The first file of the crop that the archive has."""
    return crop_files(tmp_path / "study")[0]


def test_a_series_is_named_by_its_uid_and_its_masks_count_voxels_as_the_series_does(
    service, crop, archived_study, tmp_path
):
    header = pydicom.dcmread(crop)
    answer = service.infer("hippocampus", header.SeriesInstanceUID, "&output=image", result_compress=False)
    assert answer.status == 200, answer.body
    file = io.BytesIO(answer.body)
    told = nrrd.read_header(file)
    labels = nrrd.read_data(told, file)
    assert labels.shape[:2] == (header.Columns, header.Rows)
    np.testing.assert_allclose(
        told["space origin"], header.ImagePositionPatient, atol=1e-4
    )  # slices ascend from the first
    row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    directions = told["space directions"] / np.linalg.norm(told["space directions"], axis=1, keepdims=True)
    np.testing.assert_allclose(directions, [row, column, np.cross(row, column)], atol=1e-4)
    # Each voxel of a mask lies on one that the model takes for this structure.
    series = read_study(list_files(tmp_path / "study")).series_of(header.SeriesInstanceUID)
    source = load_head(series)
    voxels = source.by_slice(source.voxels).transpose(2, 1, 0)
    assert (voxels[labels == 1] >= 400).all() and (voxels[labels == 2] < 200).all() and (labels > 0).sum() == 288
    sample = service.ask("POST", "/activelearning/random", b"{}", **JSON).json
    assert (sample["StudyInstanceUID"], sample["SeriesInstanceUID"]) == (archived_study, header.SeriesInstanceUID)


def test_a_series_that_is_not_there_is_404(service, orthanc, archives):
    assert service.infer("hippocampus", "1.2.3.999").status == 404
    assert service.infer("hippocampus", "no uid").status == 404
    with pytest.raises(NotFoundError):
        archives["dicomweb"].study_of("1.2.3.999")


def test_programs_have_a_study_measured(service, archived_study):
    asked = service.ask("POST", "/studies", json.dumps({"study_instance_uid": archived_study}).encode(), **JSON)
    assert asked.status == 202 and asked.json["state"] in ("waiting", "working", "done")
    done = wait_until(
        lambda: (told := service.ask("GET", f"/studies/{archived_study}").json)["state"] == "done" and told
    )
    assert done["result"]["status"] == "success" and done["result"]["volumes_mm3"]["total"] == 288
    page = service.ask("GET", f"/studies/{archived_study}/report.png")
    assert page.headers["content-type"] == "image/png" and Image.open(io.BytesIO(page.body)).size == (1400, 1000)


def test_what_goes_wrong_with_a_study_is_in_its_result(service, orthanc):
    assert service.ask("GET", "/studies/1.2.3.4").status == 404
    assert service.ask("GET", "/studies/..%2f..%2fetc").status == 404
    service.ask("POST", "/studies", b'{"study_instance_uid": "1.2.3.4"}', **JSON)
    done = wait_until(lambda: (told := service.ask("GET", "/studies/1.2.3.4").json)["state"] == "done" and told)
    assert (done["result"]["status"], done["result"]["code"]) == ("failed", "cannot-fetch")
    assert service.ask("GET", "/studies/1.2.3.4/report.png").status == 404
    for body in (b'{"study_instance_uid": "../x"}', b'{"study_instance_uid": 3}', b"[]", b"{}", b""):
        assert service.ask("POST", "/studies", body, **JSON).status in (404, 422)


def test_an_archive_that_lies_about_a_series_is_not_followed(archives, monkeypatch):
    archive = archives["dicomweb"]
    for content in (b"{}", b"[1]", b'[{"0020000D": {"vr": "UI", "Value": ["../x"]}}]', b"nonsense"):
        monkeypatch.setattr(DicomWebArchive, "_request", lambda *_, content=content, **__: (None, content))
        with pytest.raises(ArchiveError):
            archive.study_of("1.2.3")
