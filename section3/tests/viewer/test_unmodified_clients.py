"""The service as the clients of 3D Slicer and of OHIF ask it, as they are published: nothing in them is changed.

Both lie in the package of MONAI Label, which is fetched but not installed: Slicer's is Python and runs here, OHIF's
runs in a browser, on a page of another address than the service's.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import nibabel as nib
import nrrd
import numpy as np
import pytest
from playwright.sync_api import Page, sync_playwright

from makers import make_blocks
from servers import LIMIT, LOCALHOST

pytestmark = pytest.mark.slow

PACKAGE = "monailabel==0.8.5"
SLICER_CLIENT = "slicer/MONAILabel/MONAILabelLib/client.py"
OHIF_EXTENSION = "ohifv3/extensions/monai-label"
OHIF_NEEDS = ["axios@0.21.4", "nrrd-js@0.2.1", "pako@2.0.3", "assert@2.1.0", "buffer@6.0.3", "esbuild@0.21.5"]
LABELS = np.where(make_blocks() >= 400, 1, np.where(make_blocks() < 200, 2, 0)).astype(np.uint8)
NAME = "4: T1 MPRAGE / crop é"


def fetch(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{command} cannot fetch it: {done.stderr[-300:]}")


@pytest.fixture(scope="session")
def plugins(tmp_path_factory) -> Path:
    """Those in MONAI Label's package, for several viewers."""
    folder = tmp_path_factory.mktemp("monailabel")
    fetch([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE], folder)
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(folder)
    return next(folder.glob("*.data/data/monailabel/plugins"))


@pytest.fixture(scope="session")
def slicer(plugins) -> ModuleType:
    """The module that speaks for Slicer. It imports cgi, which Python 3.13 has no more."""
    if sys.version_info >= (3, 13):
        pytest.skip("3D Slicer's client runs in Python up to 3.12, as Slicer's own is")
    spec = importlib.util.spec_from_file_location("slicer_client", plugins / SLICER_CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ask_slicer(slicer, service, tmp_path) -> Callable:
    """A client for one call, as Slicer makes them."""
    return lambda: slicer.MONAILabelClient(service.url.geturl(), str(tmp_path), "doctor")


def image_file(folder: Path, content: bytes) -> str:
    path = folder / "image.nii.gz"
    path.write_bytes(content)
    return str(path)


def label_file(folder: Path, labels: np.ndarray) -> str:
    path = folder / "label.nii.gz"
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    return str(path)


def test_slicer_sends_an_image_and_reads_the_masks(ask_slicer, crop, tmp_path):
    assert not ask_slicer().auth_enabled()
    info = ask_slicer().info()
    assert {"hippocampus", "hippocampus_head"} <= set(info["models"])
    assert ask_slicer().upload_image(image_file(tmp_path, crop), NAME)["image"] == NAME
    options = {"result_extension": ".nrrd", "result_dtype": "uint8"}
    file, params = ask_slicer().infer("hippocampus", NAME, options)
    masks, header = nrrd.read(file)
    np.testing.assert_array_equal(masks, LABELS)
    assert header["space"] == "left-posterior-superior"
    assert params["label_names"] == {"anterior": 1, "posterior": 2}
    assert ask_slicer().datastore()["objects"][NAME]["image"]


def test_slicer_keeps_a_correction_and_reads_it_again(ask_slicer, crop, tmp_path):
    ask_slicer().upload_image(image_file(tmp_path, crop), NAME)
    ask_slicer().infer("hippocampus", NAME, {"result_extension": ".nrrd"})
    remade = np.where(LABELS == 1, 2, np.where(LABELS == 2, 1, 0)).astype(np.uint8)  # segments in another order
    info = {"label_info": [{"name": "posterior", "idx": 0}, {"name": "anterior", "idx": 1}], "model": "hippocampus"}
    saved = ask_slicer().save_label(NAME, label_file(tmp_path, remade), params=info)
    file = ask_slicer().download_label(saved["label"], "final")
    np.testing.assert_array_equal(nrrd.read(file)[0], LABELS)


def test_slicer_shows_why_an_image_is_refused(ask_slicer, slicer, packed, tmp_path):
    ask_slicer().upload_image(image_file(tmp_path, packed(np.zeros((30, 30, 30), np.int16), np.eye(4))), "empty")
    with pytest.raises(slicer.MONAILabelClientException) as refused:
        ask_slicer().infer("hippocampus", "empty", {"result_extension": ".nrrd"})
    assert refused.value.msg.startswith("Status: 422; Response: ") and "[nothing-found]" in refused.value.msg


def test_slicer_asks_for_samples_sessions_and_training(ask_slicer, slicer, crop, tmp_path):
    ask_slicer().upload_image(image_file(tmp_path, crop), "next one")
    assert ask_slicer().next_sample("random", {})["id"]
    session = ask_slicer().create_session(image_file(tmp_path, crop))["session_id"]
    assert ask_slicer().get_session(session)
    masks = nrrd.read(ask_slicer().infer("hippocampus", "", {}, session_id=session)[0])[0]
    np.testing.assert_array_equal(masks, LABELS)
    ask_slicer().remove_session(session)
    with pytest.raises(slicer.MONAILabelClientException):
        ask_slicer().get_session(session)
    assert not ask_slicer().train_status(check_if_running=True)
    (trainer, *_) = ask_slicer().info()["trainers"]
    with pytest.raises(slicer.MONAILabelClientException, match="too-little-to-learn"):
        ask_slicer().train_start(trainer, {})


DRIVER = """
import Client from './extension/src/services/MonaiLabelClient.js';
import Reader from './extension/src/utils/SegmentationReader.js';
const bytes = buffer => Array.from(new Uint8Array(buffer));
window.ask = async (server, name) => {
  const client = new Client(server);
  const info = (await client.info()).data;
  const answer = await client.infer('hippocampus', name, {});
  const {header, image} = Reader.parseNrrdData(answer.data);
  const refused = await client.infer('hippocampus', 'no such image', {});
  return {
    models: Object.keys(info.models), sizes: header.sizes, masks: bytes(image), refused: refused.response.status,
    sample: (await client.next_sample('random', {})).data, training: await client.is_train_running(),
    started: (await client.run_train({})).response.status, stopped: (await client.stop_train()).response?.status ?? 200,
  };
};
"""


AS_BUNDLED_BY_OHIF = "<script>global = window; process = {env: {}};</script>"


@pytest.fixture(scope="session")
def ohif_page(plugins, tmp_path_factory, need_program) -> Iterator[tuple[str, Page]]:
    """The address of a page with OHIF's client, and the page in a browser."""
    need_program("npm")
    need_program("chromium")
    folder = tmp_path_factory.mktemp("ohif_client")
    shutil.copytree(plugins / OHIF_EXTENSION, folder / "extension")
    (folder / "driver.js").write_text(DRIVER)
    (folder / "index.html").write_text(AS_BUNDLED_BY_OHIF + "<script src='bundle.js'></script>")
    fetch(["npm", "install", "--silent", "--no-audit", "--no-fund", *OHIF_NEEDS], folder)
    bundled = ["node_modules/.bin/esbuild", "driver.js", "--bundle", "--outfile=bundle.js", "--log-level=error"]
    subprocess.run(bundled, cwd=folder, check=True, timeout=LIMIT)
    server = ThreadingHTTPServer((LOCALHOST, 0), functools.partial(SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        address = f"http://{LOCALHOST}:{server.server_port}"
        page = browser.new_page()
        page.goto(address)
        yield address, page
        browser.close()
    server.shutdown()
    server.server_close()


def test_ohif_reads_the_masks_in_a_browser(ohif_page, serving_viewers, threshold_model, crop, tmp_path):
    origin, page = ohif_page
    options = ["--model-path", threshold_model, "--viewer-origin", origin]
    with serving_viewers(tmp_path / "service", *options) as service:
        assert service.upload("1.2.3", crop).status == 200
        told = page.evaluate("([server, name]) => ask(server, name)", [service.url.geturl() + "/", "1.2.3"])
        assert "hippocampus" in told["models"] and told["sizes"] == list(LABELS.shape)
        np.testing.assert_array_equal(told["masks"], LABELS.flatten(order="F"))
        assert told["refused"] == 404 and told["sample"]["id"] == "1.2.3" and not told["training"]
        assert told["started"] == 422 and told["stopped"] in (200, 404)


def test_a_browser_keeps_other_pages_from_the_service(ohif_page, service):
    _, page = ohif_page
    failed = page.evaluate(
        "server => fetch(server + '/info/').then(() => 'read', error => String(error))", service.url.geturl()
    )
    assert "Failed to fetch" in failed
