"""Archive, router, listener and AI node together: fifty studies at once while each piece ends badly, and one alone."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import ai_server
from node.incoming import DONE
from node.study_queue import FINAL, StudyQueue
from phantom import make_phantom, write_study
from servers import wait_until
from study.study_result import read_result

from .conftest import instances

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_network")]
COUNT = 50


@pytest.fixture
def studies(tmp_path, uid):
    """The folders of fifty persons' studies, by StudyInstanceUID. One crop serves all: its file is quickly written."""
    crop = make_phantom(0)
    folders = [write_study(tmp_path / "studies" / f"{seed}", crop, seed=seed, brain_series=0) for seed in range(COUNT)]
    return {uid(folder): folder for folder in folders}


@pytest.fixture
def start_node(network) -> Callable:
    """start_node(quiet): an AI node of this network that waits so many seconds for more of a study."""
    folders = ["--incoming", network.incoming, "--output-dir", network.folder / "results"]
    archive = ["--send-to-orthanc", "--orthanc-port", network["ARCHIVE_DICOM_PORT"]]
    lease = ["--lease-seconds", "5"]  # so long the studies of the killed one wait
    command = [ai_server.__file__, "--database", network.folder / "node.sqlite", *folders, *archive, *lease]
    return lambda quiet=1: network.start(sys.executable, *command, "--quiet-seconds", quiet, until="")


@pytest.fixture
def told(network):
    """told(): what the node says of every study, by StudyInstanceUID."""

    def ask():
        with StudyQueue(network.folder / "node.sqlite") as queue:
            return {one["study_uid"]: one for one in queue.studies()}

    return ask


def _finished(told):
    return sum(one["state"] in FINAL for one in told().values())


def _send(network, study):
    """As a scanner does: until the archive has confirmed it."""
    wait_until(lambda: network.run("send_volume.sh", study).returncode == 0)


def _in_archive(network, study_uid):
    """The SOPInstanceUIDs of what the AI made of a study."""
    query = {"StudyInstanceUID": study_uid, "SeriesDescription": "HippoVolume.AI*"}
    found = network.ask("/tools/find", {"Level": "Instance", "Query": query, "Expand": True})
    return {one["MainDicomTags"]["SOPInstanceUID"] for one in found}


def test_fifty_at_once_lose_nothing_though_each_piece_ends_badly(network, studies, start_node, told):
    archive = network.start("launch_orthanc.sh")
    listener = network.start("start_listener.sh")
    node = start_node()
    with ThreadPoolExecutor(4) as scanners:
        sent = [scanners.submit(_send, network, study) for study in studies.values()]
        wait_until(lambda: (network.folder / "node.sqlite").exists() and _finished(told) >= 5)
        os.killpg(node.pid, signal.SIGKILL)
        start_node()
        wait_until(lambda: _finished(told) >= 15)
        network.stop(archive)
        network.start("launch_orthanc.sh")
        wait_until(lambda: _finished(told) >= 25)
        network.stop(listener)
        network.start("start_listener.sh")
        for one in sent:
            one.result()
    wait_until(lambda: _finished(told) == COUNT)
    wait_until(lambda: all(job["State"] == "Success" for job in network.ask("/jobs?expand")))
    wait_until(lambda: network.ask("/statistics")["CountStudies"] == COUNT == _finished(told))
    wait_until(lambda: not list(network.incoming.glob("study_*/*")))  # all input was put away

    for study_uid, one in told().items():
        assert one["code"] is None, one
        assert [to["state"] for to in one["deliveries"]] == ["stored"]
        outputs = read_result(network.folder / "results" / study_uid).outputs
        current = {output["sop_instance_uid"] for output in outputs} - {None}
        kept = _in_archive(network, study_uid)
        assert kept == current if one["round"] == 1 else kept > current, one
        assert instances((network.incoming / DONE / study_uid).rglob("*")) == instances(studies[study_uid].rglob("*"))
    assert set(told()) == set(studies)


def test_a_study_of_which_the_archive_holds_no_more_is_not_waited_for(network, studies, start_node, told):
    network.start("launch_orthanc.sh")
    network.start("start_listener.sh")
    start_node(quiet=3600)
    study_uid, folder = next(iter(studies.items()))
    _send(network, folder)
    wait_until(lambda: (network.folder / "node.sqlite").exists() and _finished(told) == 1)
    assert (told()[study_uid]["round"], told()[study_uid]["code"]) == (1, None)
