"""The second configuration: DICOM TLS and HTTPS, and who has no certificate of the authority is not heard."""

import http.client
import ssl
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.dimse import DimseArchive
from archive.sending import Patience, send_to_archive
from archive.tls import TlsFiles
from common.send_outcome import SendOutcome
from servers import LIMIT, LOCALHOST, wait_until

from .conftest import instances

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_network")]


@pytest.fixture
def network(make_network, find_port):
    """With the certificates of a test authority."""
    network = make_network(HIPPO_SITE="site.env", HIPPO_TLS="true", HIPPO_ARCHIVE_INNER_PORT=str(find_port()))
    done = network.run("make_certificates.sh")
    assert done.returncode == 0, done.stderr
    return network


@pytest.fixture
def stranger(network, tmp_path) -> Path:
    """The certificates of another authority."""
    folder = tmp_path / "stranger"
    assert network.run("make_certificates.sh", HIPPO_CERTIFICATES=str(folder)).returncode == 0
    return folder


def _tls(trusted, folder, who="scanner"):
    """How echoscu shows a certificate."""
    return "+tls", folder / f"{who}.key", folder / f"{who}.crt", "+cf", trusted / "authority.crt"


def test_certificates_are_made_once_and_read_by_their_owner_alone(network):
    folder = network.folder / "certificates"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {
        "authority.crt",
        "authority.key",
        *(f"{who}.{kind}" for who in ("archive", "node", "scanner", "viewer") for kind in ("crt", "key")),
    }
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}
    done = network.run("make_certificates.sh")
    assert done.returncode == 1 and "already" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("script", ["launch_orthanc.sh", "start_listener.sh", "launch_OHIF.sh"])
def test_without_certificates_nothing_starts(network, tmp_path, script):
    done = network.run(script, HIPPO_CERTIFICATES=str(tmp_path / "none"))
    assert done.returncode == 1 and "make_certificates.sh" in done.stderr


def test_a_study_goes_through_and_its_results_back(network, small_study, result, uid):
    network.start("launch_orthanc.sh")
    network.start("start_listener.sh")
    done = network.run("send_volume.sh", small_study)
    assert (done.returncode, done.stdout) == (0, f"{uid(small_study)}\n"), done.stderr
    wait_until(lambda: network.received() == instances(small_study.rglob("*")))
    done = network.run("send_result.sh", result)
    assert done.returncode == 0, done.stderr
    # DICOMweb too.
    (study,) = network.ask("/dicom-web/studies")
    assert study["0020000D"]["Value"] == [uid(small_study)]


def test_who_has_no_certificate_is_refused_by_dicom(network, stranger):
    network.start("launch_orthanc.sh")
    network.start("start_listener.sh")
    ours = network.folder / "certificates"
    for calling, called, port in (
        ("HIPPOSEND", "ORTHANC", network["ARCHIVE_DICOM_PORT"]),
        ("ORTHANC", "HIPPOAI", network["NODE_PORT"]),
    ):
        assert network.echo(calling, called, port, *_tls(ours, ours))
        assert not network.echo(calling, called, port)
        assert not network.echo(calling, called, port, "+tla", "+cf", ours / "authority.crt")
        assert not network.echo(calling, called, port, *_tls(ours, stranger))
        assert not network.echo(calling, called, port, *_tls(stranger, ours))  # nor do we speak to strangers
    assert not network.echo("STRANGER", "ORTHANC", network["ARCHIVE_DICOM_PORT"], *_tls(ours, ours))


def test_who_has_no_certificate_is_refused_by_https(network, stranger):
    network.start("launch_orthanc.sh", HIPPO_ACCOUNT="reader:secret")
    url = f"https://127.0.0.1:{network['ARCHIVE_HTTP_PORT']}/dicom-web/studies"
    account = {"Authorization": "Basic cmVhZGVyOnNlY3JldA=="}
    assert network.status(url, context=network.tls("node"), **account) == 200
    assert network.status(url, context=network.tls("node")) == 401
    other = ssl.create_default_context(cafile=network.folder / "certificates" / "authority.crt")
    other.load_cert_chain(stranger / "node.crt", stranger / "node.key")
    for context in (network.tls(None), other):
        with pytest.raises((urllib.error.URLError, OSError, http.client.HTTPException)):
            network.status(url, context=context, **account)
    with pytest.raises((urllib.error.URLError, OSError, http.client.HTTPException)):
        network.status(url.replace("https", "http"), **account)


def test_the_viewer_speaks_https_and_shows_the_archive_its_certificate(network, ohif_package, small_study):
    network.start("launch_orthanc.sh")
    network.start("launch_OHIF.sh", HIPPO_OHIF_TARBALL=str(ohif_package))
    assert network.run("send_volume.sh", small_study).returncode == 0
    url = f"https://127.0.0.1:{network['VIEWER_PORT']}"
    for path in ("/", "/dicom-web/studies"):
        assert network.status(f"{url}{path}", context=network.tls(None)) == 200
    with pytest.raises((urllib.error.URLError, OSError, http.client.HTTPException)):
        network.status(url.replace("https", "http"))


def test_a_transfer_that_failed_is_tried_again_by_https(network, small_study):
    network.start("launch_orthanc.sh")
    assert network.run("send_volume.sh", small_study).returncode == 0
    wait_until(lambda: "is tried again" in network.said("launch_orthanc.sh"))
    network.start("start_listener.sh")
    wait_until(lambda: network.received() == instances(small_study.rglob("*")))


@pytest.fixture
def send(network, result) -> Callable[..., SendOutcome]:
    """send(folder, authority, host): what becomes of results that are sent as the node of those certificates."""
    network.start("launch_orthanc.sh")
    ours = network.folder / "certificates"

    def send(folder: Path = ours, authority: Path = ours, host: str = LOCALHOST) -> SendOutcome:
        tls = TlsFiles(authority / "authority.crt", (folder / "node.key", folder / "node.crt"))
        port = int(network["ARCHIVE_DICOM_PORT"])
        archive = DimseArchive(host, port, "ORTHANC", timeout=LIMIT, patience=Patience(()), tls=tls)
        return send_to_archive(sorted(result.glob("*.dcm")), archive)

    return send


def test_results_are_sent_and_read_back_by_tls(network, send, result):
    outcome = send()
    assert outcome.stored is True, outcome.detail
    assert len(network.ask("/instances")) == len(list(result.glob("*.dcm")))


def test_an_archive_refuses_a_node_of_another_authority(network, send, stranger):
    outcome = send(folder=stranger)
    assert outcome.sent is False and "TLS: " in outcome.detail and "unknown ca" in outcome.detail
    assert network.ask("/instances") == []


@pytest.mark.parametrize(
    ("wrong", "told"), [("authority", "certificate verify failed: "), ("name", "certificate verify failed: IP address")]
)
def test_a_node_sends_nothing_to_an_archive_that_it_cannot_trust(network, send, stranger, wrong, told):
    outcome = send(authority=stranger) if wrong == "authority" else send(host="127.0.0.2")
    assert outcome.sent is False and told in outcome.detail
    assert "\n" not in outcome.detail and "node.key" not in outcome.detail
    assert network.ask("/instances") == []


def test_the_hospital_runs_by_tls(network, ohif_package, small_study):
    hospital = network.start(
        "hospital.sh",
        small_study,
        until="Ctrl-C stops everything.",
        HIPPO_OHIF_TARBALL=str(ohif_package),
        HIPPO_QUIET_SECONDS="1",
    )
    assert "The report is there" in network.said("hospital.sh")
    assert network.stop(hospital) == 0
    assert network.processes() == []
