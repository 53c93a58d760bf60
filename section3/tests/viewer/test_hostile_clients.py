"""Whatever a client sends, it is answered with a line, never with a fault of ours, and nothing leaves the store."""

import gzip
import json
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header

from makers import make_blocks
from teaching.nrrd_image import write_nrrd

pytestmark = pytest.mark.slow

FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NIFTI = bytearray(nib.Nifti1Image(make_blocks(), np.eye(4)).to_bytes())
NRRD = write_nrrd(make_blocks().astype(np.uint16), np.eye(4), compress=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=12), inside, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory, threshold_model, serving_viewers):
    """One of its own, as others count what theirs holds."""
    folder = tmp_path_factory.mktemp("attacked")
    with serving_viewers(folder, "--model-path", threshold_model) as client:
        client.folder = folder
        yield client
    assert len((folder / "log.txt").read_text().splitlines()) == 1


@pytest.fixture
def answered(service):
    """Raises unless the answer is one of ours, and the store holds what it should."""

    def check(answer) -> None:
        assert answer.status in (200, 400, 401, 403, 404, 405, 413, 422), (answer.status, answer.body[:300])
        if answer.status != 200:
            assert answer.detail and "\n" not in answer.detail and "Traceback" not in answer.detail
            assert str(service.folder) not in answer.detail
        names = {path.name for path in service.folder.iterdir()}
        assert names <= {"store", "log.txt"}

    return check


@FEW
@given(name=st.text(max_size=60), query=st.text(max_size=30))
@example(name="../../x", query="..%2f..")
@example(name="\x00", query="%00")
def test_any_text_is_a_name(service, crop, answered, name, query):
    safe = quote(name.encode("utf-8", "replace"), safe="")
    other = quote(query.encode("utf-8", "replace"), safe="")
    for answer in (
        service.form("PUT", f"/datastore/?image={safe}", {"params": "{}"}, {"file": ("x.nii.gz", crop)}),
        service.ask("GET", f"/datastore/image?image={safe}"),
        service.ask("GET", f"/datastore/label?label={safe}&tag={other}"),
        service.ask("GET", f"/datastore/?output={other}"),
        service.ask("GET", f"/session/{other}"),
        service.form("POST", f"/infer/{other}?image={safe}", {"params": "{}"}, {}),
        service.ask("POST", f"/activelearning/{other}", b"{}"),
        service.form(
            "PUT", f"/datastore/label?image={safe}&tag={other}", {"params": "{}"}, {"label": ("x.nii.gz", crop)}
        ),
    ):
        answered(answer)


@FEW
@given(
    params=VALUES | st.dictionaries(st.sampled_from(["label_info", "client_id", "model"]), VALUES),
    raw=st.text(max_size=40),
)
def test_any_params_are_answered(service, crop, answered, params, raw):
    service.upload("params", crop)
    for text in (json.dumps(params), raw.encode("utf-8", "replace").decode()):
        answered(service.form("POST", "/infer/hippocampus?image=params", {"params": text}, {}))
        answered(service.form("PUT", "/datastore/label?image=params", {"params": text}, {"label": ("x.nii.gz", crop)}))


@FEW
@given(
    body=st.binary(max_size=300),
    kind=st.sampled_from(["multipart/form-data; boundary=b", "multipart/form-data", "application/json", "text/x", ""]),
)
def test_any_body_is_answered(service, answered, body, kind):
    for method, path in (
        ("PUT", "/datastore/?image=x"),
        ("PUT", "/datastore/label?image=x"),
        ("PUT", "/session/"),
        ("POST", "/infer/hippocampus?image=none"),
        ("POST", "/activelearning/random"),
    ):
        answered(service.ask(method, path, body, **{"Content-Type": kind}))


@settings(FEW, max_examples=400)
@given(st.data())
def test_any_header_of_nifti_is_answered(service, answered, data):
    content = bytearray(NIFTI)
    fields = Nifti1Header.template_dtype.fields
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        kind, start = fields[name][:2]
        content[start : start + kind.itemsize] = data.draw(st.binary(min_size=kind.itemsize, max_size=kind.itemsize))
    cut = data.draw(st.none() | st.integers(0, len(content)))
    packed = data.draw(st.booleans())
    sent = gzip.compress(bytes(content[:cut]), 1) if packed else bytes(content[:cut])
    answered(service.upload("header", sent, "x.nii.gz" if packed else "x.nii"))


@settings(FEW, max_examples=400)
@given(st.data())
def test_any_header_of_nrrd_is_answered(service, answered, data):
    head, _, voxels = NRRD.partition(b"\n\n")
    lines = head.split(b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        name = lines[at].partition(b":")[0]
        value = data.draw(
            st.binary(max_size=30)
            | st.sampled_from(
                [b"block", b"float", b"0 0 0", b"-1 2 3", b"4", b"nan", b"ascii", b"hex", b"gzip", b"bzip2"]
            )
            | st.sampled_from(
                [b"(nan,0,0) (0,1,0) (0,0,1)", b"none (1,0,0) (0,1,0)", b"(0,0,0) (0,1,0) (0,0,1)", b"()"]
            )
        )
        lines[at] = data.draw(st.sampled_from([name + b": " + value, value, name, name + b":=" + value]))
    answered(service.upload("header", b"\n".join(lines) + b"\n\n" + voxels, "x.nrrd"))
