"""Archive, listener and router, as the scripts start them: what is sent arrives, and nothing goes round in circles."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import time

import pydicom
import pytest

from servers import wait_until

from .conftest import SCRIPTS, instances

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_network")]


@pytest.fixture
def running(network):
    """With archive and listener."""
    network.start("launch_orthanc.sh")
    network.start("start_listener.sh")
    return network


def _files(study):
    return sorted(path for path in study.rglob("*") if path.is_file())


def _is_stable(network):
    return all(network.ask(f"/studies/{study}")["IsStable"] for study in network.ask("/studies"))


def test_a_study_that_is_sent_arrives_in_a_folder_of_its_own(running, small_study, uid):
    done = running.run("send_volume.sh", small_study)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{uid(small_study)}\n"
    wait_until(lambda: running.received() == instances(_files(small_study)))
    (folder,) = running.incoming.iterdir()
    assert folder.name == f"study_{uid(small_study)}"
    sent = {pydicom.dcmread(path).SOPInstanceUID: path for path in _files(small_study)}
    for path in folder.iterdir():
        came = pydicom.dcmread(path)
        assert came == pydicom.dcmread(sent[came.SOPInstanceUID])
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}  # nobody else may read it


def test_without_a_name_a_synthetic_study_or_the_data_is_sent(running, small_study, tmp_path, uid):
    shutil.copytree(small_study, tmp_path / "data" / "TestVolumes" / "A")
    done = running.run("send_volume.sh", HIPPO_DATA=str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (0, f"{uid(small_study)}\n"), done.stderr
    if not (SCRIPTS.parents[2] / "data" / "TestVolumes").exists():
        done = running.run("send_volume.sh")
        assert done.returncode == 0 and "synthetic" in done.stderr, done.stderr
        assert done.stdout == f"{uid(running.folder / 'synthetic_study')}\n"


def test_other_files_in_the_folder_are_left_out(running, small_study, copy_of):
    study = copy_of(small_study)
    (study / "LICENSE.txt").write_text("words " * 100)
    (study / "-strange @ name").mkdir()
    shutil.move(_files(study)[0], study / "-strange @ name" / "@slice")
    done = running.run("send_volume.sh", study)
    assert done.returncode == 0, done.stderr
    assert len(running.ask("/instances")) == len(_files(small_study))


def test_a_file_that_the_archive_does_not_take_makes_the_exit_code_1(running, small_study, copy_of):
    study = copy_of(small_study)
    whole = _files(study)[0].read_bytes()
    _files(study)[0].write_bytes(whole[:600])
    done = running.run("send_volume.sh", study)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"confirmed {len(_files(study)) - 1} of {len(_files(study))} files" in done.stderr, done.stderr


def test_results_are_stored_and_never_routed(running, small_study, result, other_study):
    """Routes everything for a while: each round makes the study news again."""
    sources = instances(_files(small_study))
    assert running.run("send_volume.sh", small_study).returncode == 0
    wait_until(lambda: running.received() == sources)
    objects = instances(result.rglob("*.dcm"))
    for _ in range(3):
        done = running.run("send_result.sh", result)
        assert done.returncode == 0, done.stderr
        assert len(running.ask("/instances")) == len(sources | objects)
        wait_until(lambda: _is_stable(running))
    # What comes later is routed, so all that was to be routed before has been.
    assert running.run("send_volume.sh", other_study).returncode == 0
    wait_until(lambda: running.received() >= instances(_files(other_study)))
    assert running.received() == sources | instances(_files(other_study))
    wait_until(lambda: all(job["State"] == "Success" for job in running.ask("/jobs?expand")))
    assert [job["Content"]["InstancesCount"] for job in running.ask("/jobs?expand")].count(len(sources)) == 1
    assert len(running.ask("/jobs")) == 2


def test_results_that_come_with_the_study_are_left_out_too(running, small_study, result):
    assert running.run("send_result.sh", result).returncode == 0
    assert running.run("send_volume.sh", small_study).returncode == 0
    wait_until(lambda: running.received() == instances(_files(small_study)))
    wait_until(lambda: _is_stable(running))
    assert running.received() == instances(_files(small_study))


def test_a_study_in_two_halves_is_routed_again_and_one_sent_twice_is_not(running, small_study, tmp_path):
    files = _files(small_study)
    half = tmp_path / "half"
    half.mkdir()
    for number, path in enumerate(files[::2]):
        shutil.copy(path, half / f"{number}.dcm")
    assert running.run("send_volume.sh", half).returncode == 0
    wait_until(lambda: running.received() == instances(half.iterdir()))
    assert running.run("send_volume.sh", small_study).returncode == 0
    wait_until(lambda: running.received() == instances(files))
    assert running.run("send_volume.sh", small_study).returncode == 0
    wait_until(lambda: _is_stable(running))
    assert len(running.ask("/jobs")) == 2


def test_a_listener_that_was_down_gets_its_study_later(network, small_study):
    network.start("launch_orthanc.sh")
    assert network.run("send_volume.sh", small_study).returncode == 0
    wait_until(lambda: "is tried again" in network.said("launch_orthanc.sh"))
    network.start("start_listener.sh")
    wait_until(lambda: network.received() == instances(_files(small_study)))


def test_an_archive_that_was_stopped_too_early_routes_at_its_start(network, small_study):
    archive = network.start("launch_orthanc.sh", HIPPO_STABLE_SECONDS="3600")
    assert network.run("send_volume.sh", small_study).returncode == 0
    assert network.stop(archive) == 0
    network.start("start_listener.sh")
    network.start("launch_orthanc.sh")
    wait_until(lambda: network.received() == instances(_files(small_study)))


def test_only_known_titles_are_heard_and_no_script_is_run(running):
    archive, node = running["ARCHIVE_DICOM_PORT"], running["NODE_PORT"]
    assert running.echo("HIPPOSEND", "ORTHANC", archive) and running.echo("ORTHANC", "HIPPOAI", node)
    for calling, called, port in (
        ("STRANGER", "ORTHANC", archive),
        ("HIPPOSEND", "OTHER", archive),
        ("STRANGER", "HIPPOAI", node),
        ("ORTHANC", "OTHER", node),
    ):
        assert not running.echo(calling, called, port)
    url = f"http://127.0.0.1:{running['ARCHIVE_HTTP_PORT']}"
    assert running.status(f"{url}/tools/execute-script", "POST") == 403


def _other_address():
    """An address of this machine that is not the loopback; none where it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return probe.getsockname()[0]


@pytest.mark.skipif(_other_address() is None, reason="this machine has no other address than the loopback")
def test_from_another_address_nothing_is_to_be_had(running):
    address = _other_address()
    assert running.status(f"http://{address}:{running['ARCHIVE_HTTP_PORT']}/system") in (401, 403)
    command = ["echoscu", "-aet", "HIPPOSEND", "-aec", "ORTHANC", address, running["ARCHIVE_DICOM_PORT"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0 and "Rejected" in done.stderr
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, int(running["NODE_PORT"])), timeout=600)


def test_accounts_are_switched_on_by_one_variable(make_network, small_study):
    network = make_network(HIPPO_ACCOUNT="reader:se cret")
    network.start("launch_orthanc.sh")
    url = f"http://127.0.0.1:{network['ARCHIVE_HTTP_PORT']}/dicom-web/studies"
    assert network.status(url) == 401
    for password, status in (("se cret", 200), ("wrong", 401)):
        word = base64.b64encode(f"reader:{password}".encode()).decode()
        assert network.status(url, Authorization=f"Basic {word}") == status
    settings = network.folder / "archive"
    texts = [path.read_bytes() for path in (settings / "orthanc.log", *(settings / "settings").iterdir())]
    assert not any(b"se cret" in text for text in texts)


@pytest.mark.parametrize("script", ["launch_orthanc.sh", "start_listener.sh"])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_no_process(network, script, by):
    process = network.start(script)
    assert network.processes()
    assert network.stop(process, by) == 0
    assert network.processes() == []


def test_a_peer_that_says_nothing_holds_up_nobody(running, small_study):
    port = int(running["NODE_PORT"])
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as other:
        other.sendall(b"GET / HTTP/1.1\r\nHost: nobody of DICOM would say that\r\n\r\n")
        assert running.run("send_volume.sh", small_study).returncode == 0
        wait_until(lambda: running.received() == instances(_files(small_study)))


def test_a_listener_that_is_stopped_in_an_association_ends_soon(network):
    listener = network.start("start_listener.sh")
    with socket.create_connection(("127.0.0.1", int(network["NODE_PORT"]))) as silent:
        silent.sendall(bytes([1, 0, 0, 0, 0, 200, 0, 1, 0, 0]) + b"HIPPOAI         ORTHANC         ")
        wait_until(lambda: any("storescp --inetd -aet" in one and "accept" not in one for one in network.processes()))
        begin = time.monotonic()
        assert network.stop(listener) == 0
        assert time.monotonic() - begin < 60
    assert network.processes() == []


def test_an_archive_that_dies_is_not_taken_for_one_that_was_stopped(network):
    launched = network.start("launch_orthanc.sh")
    (orthanc,) = subprocess.run(
        ["pgrep", "-P", str(launched.pid), "Orthanc"], capture_output=True, text=True, timeout=600
    ).stdout.split()
    os.kill(int(orthanc), signal.SIGKILL)
    assert launched.wait(600) == 1
    assert "the archive ended by itself" in network.said("launch_orthanc.sh")
