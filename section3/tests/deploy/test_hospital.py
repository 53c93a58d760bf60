"""The whole network by one command."""

import os
import signal
import subprocess

import pytest

from servers import wait_until

from .conftest import SCRIPTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_network")]
SERVER = SCRIPTS.parent / "ai_server.py"


@pytest.fixture
def started(network, ohif_package, small_study):
    """hospital.sh, once it says where the study is to be seen."""
    return network.start(
        "hospital.sh",
        small_study,
        until="Ctrl-C stops everything.",
        HIPPO_OHIF_TARBALL=str(ohif_package),
        HIPPO_QUIET_SECONDS="1",
    )


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_says_where_the_study_is_and_leaves_no_process(network, started, small_study, uid, by):
    said = network.said("hospital.sh")
    address = f"http://127.0.0.1:{network['VIEWER_PORT']}/viewer?StudyInstanceUIDs={uid(small_study)}"
    assert said.splitlines().count(address) == 1
    assert ("There is no AI node yet" in said) is not SERVER.exists()
    if SERVER.exists():
        assert "The report is there" in said
    assert network.status(address) == 200
    assert network.stop(started, by) == 0
    assert network.processes() == []


def test_ctrl_c_in_a_terminal_reaches_all_of_them_at_once(network, started):
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait(600) == 0
    assert network.processes() == []


def test_a_piece_that_ends_takes_the_others_with_it(network, started):
    command = ["pgrep", "-P", str(started.pid), "-f", "start_listener"]
    listener = int(subprocess.run(command, capture_output=True, text=True, timeout=600).stdout)
    os.kill(listener, signal.SIGTERM)
    assert started.wait(600) == 1
    assert "the listener ended by itself" in network.said("hospital.sh")
    assert network.processes() == []


@pytest.mark.parametrize("piece", ["accept_dicom", "Orthanc", "serve_viewer"])
def test_stopped_during_its_start_it_leaves_no_process(network, ohif_package, small_study, piece):
    process = network.start("hospital.sh", small_study, until="", HIPPO_OHIF_TARBALL=str(ohif_package))
    wait_until(lambda: any(piece in line for line in network.processes()))
    assert network.stop(process, signal.SIGINT) == 1
    wait_until(lambda: network.processes() == [])  # python3 may be a script (pyenv), whose helpers end by themselves


def test_a_port_that_is_taken_ends_it(network, ohif_package):
    taken = network.start("start_listener.sh")
    done = network.run("hospital.sh", HIPPO_OHIF_TARBALL=str(ohif_package))
    assert done.returncode == 1 and "already listens" in done.stderr
    assert network.stop(taken) == 0
    assert network.processes() == []
