"""The service beside a real archive: OHIF names a series of it, programs name a study."""

import io
import json
from pathlib import Path

import highdicom as hd
import nrrd
import numpy as np
import pydicom
import pytest
from PIL import Image

import corrections
import inference_dcm
from archive.dicomweb import DicomWebArchive, NotFoundError
from archive.sending import ArchiveError, send_to_archive
from reading.dicom_series import list_files, read_study
from reading.dicom_volume import load_head
from servers import wait_until
from teaching.archive_images import correction_of
from teaching.nrrd_image import write_nrrd
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


def drawn_elsewhere(study: Path, series_uid: str, folder: Path, labels: dict[str, np.ndarray]) -> Path:
    """A DICOM segmentation of a series as another program writes it; labels: masks [X, Y, Z] by names of segments."""
    series = read_study(list_files(study)).series_of(series_uid)
    source = load_head(series)
    files = [pydicom.dcmread(path) for path in dict.fromkeys(one.path for one in source.instances)]
    for file in files:  # what highdicom asks of every image
        for keyword in ("PatientBirthDate", "PatientSex", "StudyTime", "ReferringPhysicianName", "StudyID"):
            file.setdefault(keyword, "")
        if "SharedFunctionalGroupsSequence" in file:
            file.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 1
    code = hd.sr.CodedConcept("10200004", "SCT", "Liver")  # whatever: names decide
    descriptions = [
        hd.seg.SegmentDescription(number, name, code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, name in enumerate(labels, start=1)
    ]
    masks = np.stack([source.by_slice(mask) for mask in labels.values()], axis=-1).astype(np.uint8)
    if len(files) == 1:  # of many frames, in which they are in their own order
        masks = masks[np.argsort([one.frame for one in source.instances])]
    segmentation = hd.seg.Segmentation(
        files,
        masks,
        hd.seg.SegmentationTypeValues.BINARY,
        descriptions,
        hd.UID(),
        7,
        hd.UID(),
        1,
        "A viewer",
        "V",
        "1",
        "2",
    )
    path = folder / f"{segmentation.SOPInstanceUID}.dcm"
    segmentation.save_as(path)
    return path


def test_what_was_drawn_in_another_viewer_becomes_a_correction(service, crop, archives, tmp_path, capsys):
    header = pydicom.dcmread(crop)
    uid, study = header.SeriesInstanceUID, tmp_path / "study"
    assert service.infer("hippocampus", uid).status == 200
    shape = load_head(read_study(list_files(study)).series_of(uid)).grid.shape
    anterior, posterior = np.zeros(shape, bool), np.zeros(shape, bool)
    anterior[3:7, 15:19, 8:14], posterior[3:7, 7:15, 8:14] = True, True
    names = {"Posterior hippocampus": posterior, "anterior": anterior, "Whole hippocampus": anterior | posterior}
    good = drawn_elsewhere(study, uid, tmp_path, names)
    other = drawn_elsewhere(study, uid, tmp_path, {"amygdala": anterior})
    assert send_to_archive([good, other], archives["dimse"]).stored

    pull = ["pull", "--dicomweb", archives["dicomweb"].url, "--store", str(tmp_path / "service" / "store")]
    assert corrections.main(pull) == 0
    said = capsys.readouterr()
    assert said.out == "1 new corrections of 1 images\n" and "'amygdala'" in said.err
    answer = service.ask("GET", f"/datastore/label?label={uid}&tag=final")
    file = io.BytesIO(answer.body)
    told = nrrd.read_header(file)
    labels = nrrd.read_data(told, file)
    assert [(labels == part).sum() for part in (1, 2)] == [4 * 4 * 6, 4 * 8 * 6]
    middles = [np.argwhere(labels == part).mean(0) @ told["space directions"] for part in (1, 2)]
    assert middles[0][1] < middles[1][1]  # in LPS, what is in front is less
    # Again there is nothing new, and what is in the archive by us is none.
    assert corrections.main(pull) == 0
    assert capsys.readouterr().out == "0 new corrections of 1 images\n"


def test_what_was_drawn_on_an_image_of_many_frames_is_read(crop, tmp_path, to_enhanced):
    """As what was drawn on single ones."""
    study = tmp_path / "study"
    uid = pydicom.dcmread(crop).SeriesInstanceUID
    source = load_head(read_study(list_files(study)).series_of(uid))
    drawn = np.zeros(source.grid.shape, bool)
    drawn[3:7, 15:19, 8:14] = True
    single = correction_of(drawn_elsewhere(study, uid, tmp_path, {"anterior": drawn}), source, "crop")
    to_enhanced([one.path for one in source.instances][::-1])
    source = load_head(read_study(list_files(study)).series_of(uid))
    assert [one.frame for one in source.instances] == list(range(len(source.instances)))[::-1]
    many = correction_of(drawn_elsewhere(study, uid, tmp_path, {"anterior": drawn}), source, "crop")
    assert single.sum() == 4 * 4 * 6 and np.array_equal(single, many)


def test_our_own_segmentation_is_no_correction(service, crop, archives, tmp_path, capsys, threshold_model):
    uid = pydicom.dcmread(crop).SeriesInstanceUID
    out = tmp_path / "ours"
    options = ["--output-dir", str(out), "--model-path", str(threshold_model)]
    assert inference_dcm.main([str(tmp_path / "study"), *options]) == 0
    assert send_to_archive([out / "segmentation.dcm"], archives["dimse"]).stored
    capsys.readouterr()
    pull = ["pull", "--dicomweb", archives["dicomweb"].url, "--store", str(tmp_path / "store"), "--series", uid]
    assert corrections.main(pull) == 0
    assert capsys.readouterr().out == "0 new corrections of 1 images\n"


def test_a_correction_goes_into_the_archive_as_what_a_person_made(
    service, crop, archives, orthanc, tmp_path, capsys, threshold_model, dciodvfy
):
    """And names the report of ours that it supersedes; sent again it is the same."""
    uid, study = pydicom.dcmread(crop).SeriesInstanceUID, tmp_path / "study"
    out = tmp_path / "ours"
    options = ["--output-dir", str(out), "--model-path", str(threshold_model)]
    assert inference_dcm.main([str(study), *options]) == 0
    ours = pydicom.dcmread(out / "measurements.dcm")
    assert send_to_archive(sorted(out.glob("*.dcm")), archives["dimse"]).stored
    answer = service.infer("hippocampus", uid)
    labels, header = nrrd_of(answer.parts["hippocampus.nrrd"])
    labels[np.argwhere(labels == 1)[0][0]] = 0  # a slab of it is none, the doctor says
    drawn = write_nrrd(labels, np.diag([-1, -1, 1, 1]) @ affine_of(header))
    assert service.save(uid, drawn, ["anterior", "posterior"], file="x.nrrd").status == 200

    send = ["send", "--dicomweb", archives["dicomweb"].url, "--store", str(tmp_path / "service" / "store")]
    send += ["--model-path", str(threshold_model)]
    capsys.readouterr()
    assert corrections.main(send) == 0, capsys.readouterr()
    folder = tmp_path / "service" / "store" / "corrected" / uid
    report, masks = (pydicom.dcmread(folder / f"{name}.dcm") for name in ("measurements", "segmentation"))
    assert "doctor" in str(report) and report.SeriesDescription.endswith("corrected (research use only)")
    (predecessor,) = report.PredecessorDocumentsSequence
    assert ours.SOPInstanceUID in str(predecessor)
    assert {one.SegmentAlgorithmType for one in masks.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert masks.SOPInstanceUID != pydicom.dcmread(out / "segmentation.dcm").SOPInstanceUID
    assert dciodvfy(folder / "measurements.dcm") == [] and dciodvfy(folder / "segmentation.dcm") == []
    volumes = json.loads((folder / "result.json").read_text())["volumes_mm3"]
    assert volumes["total"] == (labels > 0).sum()
    before = orthanc.rest("/instances")
    assert corrections.main(send) == 0
    assert orthanc.rest("/instances") == before
    # What we made of a person's mask is no correction that a person made elsewhere.
    assert corrections.main(["pull", *send[1:5]]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 new corrections")


def test_the_service_sends_corrections_by_itself_where_it_is_told_to(tmp_path, orthanc, threshold_model, crop):
    uid = pydicom.dcmread(crop).SeriesInstanceUID
    options = ("--model-path", threshold_model, "--dicomweb", orthanc.dicomweb, "--to-archive")
    before = set(orthanc.rest("/instances"))
    with serving_viewers(tmp_path / "sending", *options) as client:
        masks = client.infer("hippocampus", uid).parts["hippocampus.nrrd"]
        assert client.save(uid, masks, ["anterior", "posterior"], file="x.nrrd").status == 200
        result = tmp_path / "sending" / "store" / "corrected" / uid / "result.json"
        wait_until(lambda: result.exists() and json.loads(result.read_text())["stored"])
    assert len(set(orthanc.rest("/instances")) - before) > 4


def nrrd_of(content: bytes) -> tuple[np.ndarray, dict]:
    file = io.BytesIO(content)
    told = nrrd.read_header(file)
    return nrrd.read_data(told, file).copy(), told


def affine_of(header: dict) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = header["space directions"].T, header["space origin"]
    return affine
