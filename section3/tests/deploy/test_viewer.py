"""The viewer's server, and OHIF itself in a browser."""

import base64
import json
import os
import shutil
import signal
import socket
import urllib.request
from contextlib import suppress

import numpy as np
import pydicom
import pytest
from playwright.sync_api import sync_playwright

from servers import LIMIT, wait_until

from .conftest import SCRIPTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_network")]
# A browser in a container, without a graphics card, that can reach nothing but this machine.
BROWSER = [
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
THUMBNAIL = '[data-cy="study-browser-thumbnail"], [data-cy="study-browser-thumbnail-no-image"]'
# Of each picture that OHIF draws: the brightest value, and the boxes [left, top, right, bottom] of what is not black
# and of what has a colour; none where nothing has.
PICTURES = """() => [...document.querySelectorAll('.cornerstone-canvas')].map(canvas => {
  const copy = document.createElement('canvas');
  copy.width = canvas.width; copy.height = canvas.height;
  const context = copy.getContext('2d');
  context.drawImage(canvas, 0, 0);
  const values = context.getImageData(0, 0, copy.width, copy.height).data;
  let brightest = 0;
  const boxes = {image: null, coloured: null};
  const widen = (name, x, y) => {
    const box = boxes[name] || [x, y, x, y];
    boxes[name] = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
  };
  for (let i = 0; i < values.length; i += 4) {
    const most = Math.max(values[i], values[i + 1], values[i + 2]);
    const [x, y] = [(i / 4) % copy.width, Math.floor(i / 4 / copy.width)];
    brightest = Math.max(brightest, most);
    if (most > 10) widen('image', x, y);
    if (most - Math.min(values[i], values[i + 1], values[i + 2]) > 10) widen('coloured', x, y);
  }
  return {brightest, ...boxes}; })"""


def _start(network, ohif_package, **settings):
    network.start("launch_orthanc.sh", **settings)
    network.start("launch_OHIF.sh", HIPPO_OHIF_TARBALL=str(ohif_package), **settings)
    return f"http://127.0.0.1:{network['VIEWER_PORT']}"


def _get(url, **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=LIMIT) as answer:
        return answer.headers, answer.read()


def test_the_viewer_is_served_with_the_archive_behind_it(network, ohif_package, small_study, uid):
    url = _start(network, ohif_package)
    assert network.run("send_volume.sh", small_study).returncode == 0
    for page in ("/", f"/viewer?StudyInstanceUIDs={uid(small_study)}"):
        headers, text = _get(url + page)
        assert b"OHIF" in text and headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert _get(f"{url}/app-config.js")[1] == (SCRIPTS / "ohif_config.js").read_bytes()
    (study,) = json.loads(_get(f"{url}/dicom-web/studies", Accept="application/dicom+json")[1])
    # The addresses that the archive tells lead back here.
    assert study["00081190"]["Value"] == [f"{url}/dicom-web/studies/{uid(small_study)}"]

    assert network.status(f"{url}/nowhere.js") == 404
    assert network.status(f"{url}/dicom-web/nowhere") == 404
    assert network.status(f"{url}/dicom-web/studies", Host="elsewhere.example:80") == 421
    for method in ("POST", "PUT", "DELETE"):
        assert network.status(f"{url}/dicom-web/studies", method) == 501
    for path in ("/../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"):
        with socket.create_connection(("127.0.0.1", int(network["VIEWER_PORT"]))) as connection:
            head = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{network['VIEWER_PORT']}\r\n\r\n"
            connection.sendall(head.encode())
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        assert b"root:" not in answer


def test_the_archives_accounts_are_asked_for_by_the_browser(network, ohif_package):
    url = _start(network, ohif_package, HIPPO_ACCOUNT="reader:secret")
    assert network.status(f"{url}/dicom-web/studies") == 401
    word = base64.b64encode(b"reader:secret").decode()
    assert network.status(f"{url}/dicom-web/studies", Authorization=f"Basic {word}") == 200


def test_an_archive_that_is_down_is_told(network, ohif_package):
    network.start("launch_OHIF.sh", HIPPO_OHIF_TARBALL=str(ohif_package))
    assert network.status(f"http://127.0.0.1:{network['VIEWER_PORT']}/dicom-web/studies") == 502


def test_another_package_is_not_unpacked(network, tmp_path):
    (tmp_path / "ohif.tgz").write_bytes(b"something else")
    done = network.run("launch_OHIF.sh", HIPPO_OHIF_TARBALL=str(tmp_path / "ohif.tgz"))
    assert done.returncode == 1 and "checksum" in done.stderr
    assert list((network.folder / "viewer").iterdir()) == []


def test_stopped_while_it_is_fetched_it_leaves_nothing(network, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho fetching >&2\nexec sleep 600\n")
    npm.chmod(0o755)
    process = network.start("launch_OHIF.sh", until="fetching", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert network.stop(process) == 1
    assert network.processes() == []
    assert list((network.folder / "viewer").iterdir()) == []


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_no_process(network, ohif_package, by):
    process = network.start("launch_OHIF.sh", HIPPO_OHIF_TARBALL=str(ohif_package))
    assert network.stop(process, by) == 0
    assert network.processes() == []


@pytest.fixture
def page(tmp_path, need_program):
    """A page of a headless browser, Debian's own."""
    need_program("chromium")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=BROWSER)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(LIMIT * 1000)
        # OHIF would lay its tour over the pictures.
        page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        yield page
        browser.close()


def _place_of_colour(page, columns):
    """Where colour begins and ends: in voxels from the left of the image, then from its bottom; none where it is grey.

    OHIF shows all columns, and may cut a row at the top.
    """
    for one in page.evaluate(PICTURES):
        if one["image"] and one["coloured"]:
            (left, _, right, bottom), box = one["image"], one["coloured"]
            voxel = (right - left) / columns
            return [
                (box[0] - left) / voxel,
                (box[2] - left) / voxel,
                (bottom - box[3]) / voxel,
                (bottom - box[1]) / voxel,
            ]
    return None


def _show(page, series, seen):
    """Asks for a series until it is seen: on a busy machine OHIF drew nothing when it was asked once."""
    for _ in range(10):
        page.locator(THUMBNAIL).filter(has_text=series).first.dblclick()
        page.locator('[data-cy="viewport-overlay-top-left"]').filter(has_text=series).first.wait_for()
        with suppress(AssertionError):
            return wait_until(seen, limit=60)
    raise AssertionError(f"OHIF does not draw {series}")


def test_report_and_masks_are_seen_in_ohif(network, ohif_package, small_study, result, uid, page, tmp_path):
    url = _start(network, ohif_package)
    assert network.run("send_volume.sh", small_study).returncode == 0
    assert network.run("send_result.sh", result).returncode == 0
    report, masks = (
        pydicom.dcmread(result / f"{name}.dcm", stop_before_pixels=True).SeriesDescription
        for name in ("report", "segmentation")
    )
    page.goto(f"{url}/viewer?StudyInstanceUIDs={uid(small_study)}")
    for label in ("HippoCrop", report, masks):
        page.locator(THUMBNAIL).filter(has_text=label).first.wait_for()

    _show(page, report, lambda: any(one["brightest"] > 200 for one in page.evaluate(PICTURES)))
    page.screenshot(path=tmp_path / "report.png")

    _show(page, masks, lambda: _place_of_colour(page, 20))  # the crop itself is grey
    page.screenshot(path=tmp_path / "masks.png")
    # Both structures lie at 5-12 of 20 voxels from the patient's left and 6-20 from behind; right is shown at the left.
    np.testing.assert_allclose(_place_of_colour(page, 20), (20 - 12, 20 - 5, 6, 20), atol=0.3)
