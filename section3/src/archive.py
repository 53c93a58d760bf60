"""To the PACS, and what came of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

AE_TITLE = "HIPPOAI"  # who we are to the archive
RESPONSE = re.compile(r"Received Store Response \((.*)\)")
STORED = ("Success", "Warning")  # a warning says that the archive changed or dropped something, not that it refused


@dataclass(frozen=True)
class SendOutcome:
    """Whether the archive has every file, and the reason in words."""

    sent: bool
    detail: str


def send_to_archive(paths: Sequence[Path], host: str, port: int, aec: str, timeout: float = 30) -> SendOutcome:
    """Send DICOM files (C-STORE) to the archive `aec` at host:port, giving it `timeout` seconds for all of them.

    A send that fails is an outcome, never an exception.
    """
    peer = f"{aec} at {host}:{port}"
    # Absolute paths: storescu takes names that begin with - or @ for something else.
    # -R proposes only what the files need: there are more storage classes than one association can propose.
    command = ["storescu", "-v", "-R", "-aet", AE_TITLE, "-aec", aec, host, str(port)]
    command += [str(Path(path).absolute()) for path in paths]
    try:
        result = subprocess.run(
            command,
            env={**os.environ, "TCP_NODELAY": "1"},  # without it DCMTK waits for the network at each small message
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return SendOutcome(False, f"{peer} did not take the files within {timeout:g} s")
    except OSError as error:
        return SendOutcome(False, f"cannot run storescu ({error.strerror}): install DCMTK (apt-get install dcmtk)")
    responses = RESPONSE.findall(result.stdout)
    stored = [response for response in responses if response.startswith(STORED)]
    if result.returncode == 0 and len(stored) == len(paths):
        return SendOutcome(True, f"{peer} stored {len(stored)} of {len(paths)} files")
    refusals = [response for response in responses if not response.startswith(STORED)]
    errors = re.findall(r"^[EF]: (.*?):?$", result.stdout, re.MULTILINE)
    reason = "; ".join([*refusals, *errors]) or f"storescu ended with status {result.returncode}"
    return SendOutcome(False, f"{peer} stored {len(stored)} of {len(paths)} files: {reason}")
