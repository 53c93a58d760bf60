"""The service as viewers use it: masks lie on the grid of the image, segments keep their names, people their work."""

import io
import json
import os
import stat
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff

from makers import make_blocks
from teaching.nrrd_image import write_nrrd

pytestmark = pytest.mark.slow

AFFINE = np.array([[1, 0, 0, -20.0], [0, 1, 0, 3.5], [0, 0, 1, -40], [0, 0, 0, 1]])
LABELS = np.where(make_blocks() >= 400, 1, np.where(make_blocks() < 200, 2, 0)).astype(np.uint8)


def turned(voxels: np.ndarray, axes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same image with other axes, and its affine."""
    turns = axcodes2ornt(tuple(axes))
    from_ras = np.array(
        [[np.flatnonzero(turns[:, 0] == axis)[0], turns[turns[:, 0] == axis, 1][0]] for axis in range(3)]
    )
    own = apply_orientation(voxels, from_ras)
    return own, AFFINE @ inv_ornt_aff(from_ras, voxels.shape)


def read_nrrd(content: bytes) -> tuple[np.ndarray, dict]:
    file = io.BytesIO(content)
    header = nrrd.read_header(file)
    return nrrd.read_data(header, file), header


def lps_of(affine: np.ndarray) -> np.ndarray:
    return np.diag([-1.0, -1, 1, 1]) @ affine


def test_what_the_viewer_asks_before_all_else(service):
    assert service.ask("GET", "/auth/").json == {"enabled": False}
    assert service.ask("GET", "/auth/token/valid").status == 200
    info = service.ask("GET", "/info/").json
    assert info["config"] == {} and isinstance(info["labels"], list) and info["scoring"] == {}
    for model in info["models"].values():
        assert model["type"] == "segmentation" and model["description"] and set(model["labels"]) <= set(info["labels"])
        assert sorted(model["labels"].values()) == list(range(1, len(model["labels"]) + 1))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz_") for name in info["models"])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "ASR", "SLA", "PIR"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_masks_lie_on_the_grid_of_the_image_whatever_its_axes(service, packed, axes, ending):
    own, affine = turned(make_blocks().astype(np.uint16), axes)
    assert "".join(nib.aff2axcodes(affine)) == axes
    content = write_nrrd(own, affine) if ending == ".nrrd" else packed(own, affine)
    if ending == ".nii":
        import gzip

        content = gzip.decompress(content)
    name = f"7: T1 {axes} / crop, Größe{ending}"
    assert service.upload(name, content, f"C:\\Users\\x{ending}").json == {"image": name}

    answer = service.infer("hippocampus", name)
    assert answer.status == 200 and "content-length" in answer.headers and "transfer-encoding" not in answer.headers
    assert set(answer.parts) == {"params", "hippocampus.nrrd"}
    params = json.loads(answer.parts["params"])
    assert params["label_names"] == {"anterior": 1, "posterior": 2}
    assert params["volumes_mm3"] == {"anterior": 120, "posterior": 168, "total": 288}
    labels, header = read_nrrd(answer.parts["hippocampus.nrrd"])
    np.testing.assert_array_equal(labels, turned(LABELS, axes)[0])
    assert answer.parts["hippocampus.nrrd"].startswith(b"NRRD0004\n") and header["encoding"] == "gzip"
    np.testing.assert_allclose(header["space directions"].T, lps_of(affine)[:3, :3])
    np.testing.assert_allclose(header["space origin"], lps_of(affine)[:3, 3])


def test_ohif_gets_the_file_alone_and_unpacked(service, crop):
    service.upload("1.2.3.4", crop)
    answer = service.infer("hippocampus", "1.2.3.4", "&output=image", result_compress=False, restore_label_idx=False)
    labels, header = read_nrrd(answer.body)
    assert header["encoding"] == "raw" and labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, LABELS)
    assert service.infer("hippocampus", "1.2.3.4", "&output=json").json["volumes_mm3"]["total"] == 288


def test_an_image_may_come_with_the_question(service, crop):
    answer = service.form("POST", "/infer/hippocampus", {"params": "{}"}, {"file": ("x.nii.gz", crop)})
    assert answer.status == 200 and b"NRRD0004" in answer.body


def test_a_correction_is_mapped_by_the_names_of_its_segments(service, crop, packed):
    """A segment drawn anew stands last, so that the values of the voxels say nothing."""
    service.upload("corrected", crop)
    drawn = np.where(LABELS == 1, 2, np.where(LABELS == 2, 1, 0)).astype(np.uint8)
    saved = service.save("corrected", packed(drawn, np.eye(4)), ["posterior", "anterior"])
    assert saved.json == {"image": "corrected", "label": "corrected"}
    answer = service.ask("GET", "/datastore/label?label=corrected&tag=final")
    assert answer.headers["content-disposition"].endswith('.nrrd"')
    np.testing.assert_array_equal(read_nrrd(answer.body)[0], LABELS)

    # The newest counts; both are kept.
    service.save("corrected", packed((LABELS == 1).astype(np.int16), np.eye(4)), ["anterior"])
    newest = read_nrrd(service.ask("GET", "/datastore/label?label=corrected&tag=final").body)[0]
    np.testing.assert_array_equal(newest, LABELS == 1)
    assert len(list((service.folder / "store" / "labels").glob("*.nii.gz"))) >= 2
    assert service.ask("GET", "/datastore/?output=all").json["objects"]["corrected"]["labels"].keys() == {"final"}


@pytest.mark.parametrize(
    ("voxels", "affine", "segments", "says"),
    [
        (LABELS[1:], np.eye(4), ["anterior", "posterior"], "[geometry-conflict]"),
        (LABELS, np.diag([1, 1, 1.1, 1]), ["anterior", "posterior"], "[geometry-conflict]"),
        (LABELS, np.eye(4), ["anterior", "amygdala"], "'amygdala'"),
        (LABELS, np.eye(4), ["anterior"], "the value 2"),
        (LABELS, np.eye(4), ["anterior", "anterior"], "two segments are called anterior"),
        (LABELS * 0.5, np.eye(4), ["anterior", "posterior"], "other values"),
    ],
)
def test_a_mask_that_is_not_of_this_image_is_refused_in_one_line(service, crop, packed, voxels, affine, segments, says):
    service.upload("refused", crop)
    answer = service.save("refused", packed(voxels, affine), segments)
    assert answer.status == 422 and says in answer.detail and "\n" not in answer.detail
    assert "final" not in service.ask("GET", "/datastore/?output=all").json["objects"]["refused"]["labels"]


def test_a_segment_of_another_name_may_stand_there_empty(service, crop, packed):
    service.upload("empty", crop)
    assert service.save("empty", packed(LABELS, np.eye(4)), ["anterior", "posterior", "doubt"]).status == 200


def test_the_same_name_with_another_image_inherits_nothing(service, crop, packed):
    service.upload("T1", crop)
    service.save("T1", packed(LABELS, np.eye(4)), ["anterior", "posterior"])
    service.upload("T1", crop)
    assert service.ask("GET", "/datastore/label?label=T1&tag=final").status == 200
    service.upload("T1", packed(make_blocks() + 1, np.eye(4)))
    assert service.ask("GET", "/datastore/label?label=T1&tag=final").status == 404


def test_the_next_sample_is_one_that_nobody_has_corrected(service, packed):
    content = packed(make_blocks() + 2, np.eye(4))
    service.upload("next", content)
    seen = {}
    while "next" not in seen:  # chance brings it
        answer = service.ask(
            "POST", "/activelearning/random", b'{"client_id": "x"}', **{"Content-Type": "application/json"}
        )
        seen[answer.json["id"]] = answer.json
    objects = service.ask("GET", "/datastore/?output=all").json["objects"]
    assert all("final" not in objects[name]["labels"] for name in seen)
    assert seen["next"]["name"].endswith(".nii.gz") and seen["next"]["checksum"].startswith("SHA256:")
    assert service.ask("GET", "/datastore/image?image=next").body == content


def test_what_is_not_there_is_404_and_what_cannot_be_used_422(service, crop):
    service.upload("there", crop)
    for method, path in (
        ("GET", "/datastore/image?image=none"),
        ("GET", "/datastore/label?label=none"),
        ("GET", "/session/none"),
        ("DELETE", "/session/none"),
        ("POST", "/activelearning/best"),
        ("GET", "/nowhere"),
    ):
        answer = service.ask(method, path)
        assert answer.status == 404 and answer.detail.startswith("["), path
    assert service.infer("deepedit", "there").status == 404
    assert service.infer("hippocampus", "none").status == 404
    for content, file in ((b"broken", "x.nii.gz"), (b"NRRD0004\n", "x.nrrd"), (crop, "x.png"), (b"", "x.mgz")):
        answer = service.upload("broken", content, file)
        assert answer.status == 422 and answer.detail.startswith("[unreadable-pixels]")
    other = service.infer("hippocampus_head", "there")
    assert other.status == 422 and "choose hippocampus" in other.detail


def test_a_session_keeps_an_image_for_a_while(service, crop):
    begun = service.form("PUT", "/session/?expiry=60", {"client_id": "x"}, {"files": ("x.nii.gz", crop)}).json
    assert service.ask("GET", f"/session/{begun['session_id']}").json["kind"] == "crop"
    answer = service.form("POST", f"/infer/hippocampus?session_id={begun['session_id']}", {"params": "{}"}, {})
    assert answer.status == 200
    assert service.ask("DELETE", f"/session/{begun['session_id']}").status == 200
    assert service.ask("GET", f"/session/{begun['session_id']}").status == 404


def test_the_store_is_for_its_user_alone(service, crop):
    service.upload("../../../etc/passwd", crop)
    service.upload("/etc/passwd\x00", crop)
    store = service.folder / "store"
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    paths = list(store.rglob("*"))
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in paths)
    assert not [path for path in paths if "passwd" in path.name]
    assert not list(store.rglob("*unfinished*"))
    log = (service.folder / "log.txt").read_text()
    assert len(log.splitlines()) == 1 and os.fspath(store) not in log


def test_of_a_head_both_sides_are_segments(tmp_path, serving_viewers):
    """With the models as they are shipped."""
    content = (Path(__file__).resolve().parents[3] / "data" / "demo_head.nii.gz").read_bytes()
    with serving_viewers(tmp_path) as client:
        client.upload("head", content)
        answer = client.infer("hippocampus_head", "head")
        params = json.loads(answer.parts["params"])
        labels, header = read_nrrd(answer.parts["hippocampus.nrrd"])
        refused = client.infer("hippocampus", "head")
    names = ["left_anterior", "left_posterior", "right_anterior", "right_posterior"]
    assert params["label_names"] == dict(zip(names, range(1, 5), strict=True))
    counts = np.bincount(labels.ravel(), minlength=5)
    assert {side: parts["total"] for side, parts in params["volumes_mm3"].items()} == {
        "left": counts[1] + counts[2],
        "right": counts[3] + counts[4],
    }
    left, right = (np.argwhere(np.isin(labels, parts)).mean(0) for parts in ((1, 2), (3, 4)))
    assert ((left - right) @ header["space directions"])[0] > 20  # in LPS, left is more
    assert refused.status == 422 and "choose hippocampus_head" in refused.detail


def test_where_to_look_first_is_a_map_on_the_grid_of_the_image(service, packed):
    own, affine = turned(make_blocks().astype(np.uint16) + 3, "PIR")
    service.upload("a/b c", packed(own, affine))
    answer = service.ask("GET", "/explain/a/b%20c")
    percent, header = read_nrrd(answer.body)
    np.testing.assert_array_equal(percent, 100 * (turned(LABELS, "PIR")[0] > 0))  # this model is always sure
    np.testing.assert_allclose(header["space origin"], lps_of(affine)[:3, 3])
    assert service.ask("GET", "/explain/none").status == 404


def test_a_page_lists_all_addresses_and_loads_nothing_from_elsewhere(service):
    page = service.ask("GET", "/")
    text = page.body.decode()
    assert page.headers["content-type"].startswith("text/html") and "not for diagnosis" in text
    assert "src=" not in text and "//" not in text.replace("<!--", "")
    described = service.ask("GET", "/openapi.json").json["paths"]
    assert "/drift" in described and all(path.replace("&", "&amp;") in text for path in described)
    assert all(one.get("description") for methods in described.values() for one in methods.values())
    assert service.ask("GET", "/docs").status == 404
