"""Servers that tests start, and waiting for them: for events, with a limit that only stops a hang."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCALHOST = "127.0.0.1"
LIMIT = 600  # seconds: against hanging alone


def wait_until(condition: Callable[[], object], told: Callable[[], str] = str, limit: float = LIMIT) -> object:
    """What the condition gives at last. told: what to say where it gives nothing in `limit` seconds."""
    give_up = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < give_up, told()
        time.sleep(0.02)
    return found


def listens(port: int) -> bool:
    """Whether somebody does at that port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) == 0


@contextmanager
def serving(command: list, answers: Callable[[], bool], log: Path) -> Iterator[None]:
    """The command, from when it answers to the end of the block. What it says is added to `log`."""
    with log.open("a") as file:
        environment = {**os.environ, "TCP_NODELAY": "1"}  # without it DCMTK and Orthanc wait at each small message
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def alive_and_answering() -> bool:
        assert process.poll() is None, log.read_text()
        return answers()

    try:
        wait_until(alive_and_answering, log.read_text)
        yield
    finally:
        process.kill()  # some take seconds to leave by themselves
        process.wait()
