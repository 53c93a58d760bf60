"""Who may ask, how much may come, and that nothing that comes breaks the service or leaves its store."""

import os
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from common.refusal import Failure
from teaching import image_store
from teaching.image_store import ImageStore
from viewer.access import is_key
from viewer_client import ViewerClient

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).resolve().parents[2] / "src" / "viewer_server.py"
KEY = "a-long-key-that-nobody-guesses"
ORIGIN = "http://viewer.example:3000"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, threshold_model, serving_viewers):
    """A service with a key, for one web viewer, that takes 1 MiB."""
    folder = tmp_path_factory.mktemp("guarded")
    options = ("--model-path", threshold_model, "--viewer-origin", ORIGIN, "--max-upload", 1)
    with serving_viewers(folder, *options, VIEWER_KEY=KEY) as client:
        client.folder = folder
        yield client


def with_prefix(client: ViewerClient, key: str) -> ViewerClient:
    return ViewerClient(f"{client.url.geturl()}/k/{key}")


def test_without_the_key_nothing_is_answered(guarded, crop):
    for path in ("/info/", "/auth/", "/docs", "/openapi.json", "/nowhere"):
        assert guarded.ask("GET", path).status == 401
    assert guarded.upload("x", crop).status == 401
    assert with_prefix(guarded, KEY[:-1]).ask("GET", "/info/").status == 401
    assert with_prefix(guarded, "").ask("GET", "/info/").status == 401
    for said in (f"Bearer {KEY}x", "Bearer", f"Basic {KEY}", "Bearer \xe4"):
        assert guarded.ask("GET", "/info/", Authorization=said).status == 401


def test_the_key_is_a_part_of_the_address_or_a_token(guarded, crop):
    client = with_prefix(guarded, KEY)
    assert client.upload("T1", crop).status == 200
    assert client.infer("hippocampus", "T1").status == 200
    assert client.ask("GET", "/datastore/image?image=T1").body == crop
    assert guarded.ask("GET", "/info/", Authorization=f"Bearer {KEY}").status == 200
    assert KEY not in (guarded.folder / "log.txt").read_text()


def test_a_web_viewer_may_ask_and_no_other_page(guarded):
    client = with_prefix(guarded, KEY)
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = client.ask("OPTIONS", "/infer/hippocampus", **asks)
    assert preflight.status == 200 and preflight.headers["access-control-allow-origin"] == ORIGIN
    assert {"GET", "POST", "PUT", "DELETE"} <= set(preflight.headers["access-control-allow-methods"].split(", "))
    answer = client.ask("GET", "/info/", Origin=ORIGIN)
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == ORIGIN
    for origin in ("http://evil.example", "null", f"{ORIGIN}.evil.example"):
        assert client.ask("GET", "/info/", Origin=origin).status == 403


def test_what_is_too_large_is_refused_before_it_is_read(guarded):
    client = with_prefix(guarded, KEY)
    answer = client.upload("large", bytes(2 << 20))
    assert answer.status == 413 and answer.detail.startswith("[too-large]")

    connection = HTTPConnection(guarded.url.hostname, guarded.url.port, timeout=30)
    begin = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.nii"\r\n\r\n'
    chunks = iter([begin, *[bytes(1 << 18)] * 8])  # says no length
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    connection.request("PUT", f"/k/{KEY}/datastore/?image=x", chunks, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_small_file_does_not_unpack_to_a_large_one(guarded):
    """A header that promises little and data that unpack to a gigabyte; and one that promises too much."""
    import zlib

    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(16)) + packer.flush()
    for sizes, code in (("10 10 10", "unreadable-pixels"), ("5000 5000 5000", "geometry-field-of-view")):
        header = (
            f"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
            "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: gzip\nspace origin: (0,0,0)\n\n"
        )
        answer = with_prefix(guarded, KEY).upload("bomb", header.encode() + bomb, "bomb.nrrd")
        assert answer.status == 422 and f"[{code}]" in answer.detail


@pytest.mark.parametrize("field", ["data file", "datafile", "byte skip", "line skip"])
def test_a_file_cannot_name_another_one_of_this_machine(guarded, tmp_path, field):
    (tmp_path / "secret.raw").write_bytes(bytes(1000))
    value = tmp_path / "secret.raw" if "data" in field else -1
    header = (
        "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 10 10 10\n"
        f"space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\n{field}: {value}\nspace origin: (0,0,0)\n\n"
    )
    answer = with_prefix(guarded, KEY).upload("elsewhere", header.encode() + bytes(1000), "x.nrrd")
    assert answer.status == 422 and "secret" not in answer.detail


def test_on_this_machine_alone_another_name_of_it_is_not_answered(service):
    """A web page whose name was bound to this machine must not read what is here."""
    assert service.ask("GET", "/info/", Host="evil.example").status == 403
    assert service.ask("GET", "/info/", Host="[").status == 403
    assert service.ask("GET", "/info/", Host="localhost:1").status == 200


def run(*options: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, PROGRAM, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)


def test_it_does_not_begin_where_others_could_ask_without_a_key(tmp_path, threshold_model):
    done = run("--port", 0, "--host", "0.0.0.0", "--store", tmp_path / "store")
    assert done.returncode == 2 and "set VIEWER_KEY" in done.stderr and not (tmp_path / "store").exists()
    done = run("--port", 0, "--store", tmp_path / "store", VIEWER_KEY="short")
    assert done.returncode == 2 and "at least 16" in done.stderr
    assert not is_key("has a blank in it...") and not is_key("/" * 20) and is_key(KEY)


def test_it_says_in_one_line_why_it_cannot_begin(tmp_path, service):
    taken = run("--port", service.url.port, "--store", tmp_path / "store")
    assert taken.returncode == 1 and len(taken.stderr.splitlines()) == 1
    (tmp_path / "file").write_text("")
    no_store = run("--port", 0, "--store", tmp_path / "file")
    assert no_store.returncode == 1 and "[cannot-write]" in no_store.stderr and len(no_store.stderr.splitlines()) == 1
    no_model = run("--port", 0, "--store", tmp_path / "store", "--model-path", tmp_path / "none.onnx")
    assert no_model.returncode == 1 and "[bad-model]" in no_model.stderr


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, monkeypatch, crop):
    store = ImageStore(tmp_path / "store")
    monkeypatch.setattr(image_store, "LEAST_ROOM", 1 << 60)
    with pytest.raises(Failure, match="full"):
        store.add_image(crop, ".nii.gz", "crop", "x")
    assert not store.names() and not list((tmp_path / "store" / "images").iterdir())


def test_an_image_of_a_session_goes_with_it_unless_it_has_a_name_or_a_correction(tmp_path):
    now = 1000.0
    store = ImageStore(tmp_path / "store", clock=lambda: now)
    images = [store.add_image(bytes([number]), ".nii", "crop", "named" if number == 1 else None) for number in range(3)]
    store.add_label(images[2], "final", b"drawn")
    sessions = [store.begin_session(image, 60) for image in images]
    now += 61
    for number in sessions:
        with pytest.raises(image_store.NoSuchThing):
            store.session(number)
    left = {path.name.removesuffix(".nii") for path in (tmp_path / "store" / "images").iterdir()}
    assert left == {images[1].sha256, images[2].sha256}


def test_images_and_labels_are_counted_by_their_names(tmp_path):
    store = ImageStore(tmp_path / "store")
    first = store.add_image(b"1", ".nii", "crop", "a")
    store.add_image(b"1", ".nii", "crop", "the same by another name")
    store.add_image(b"2", ".nii", "crop", "c")
    for content in (b"x", b"y"):
        store.add_label(first, "final", content)
    store.add_label(store.add_image(b"3", ".nii", "crop"), "original", b"z")
    assert store.count() == (3, {"final": 2})
