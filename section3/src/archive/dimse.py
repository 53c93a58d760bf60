"""An archive that speaks DICOM's own protocol: C-STORE to send, C-GET to fetch back. DCMTK does the talking.

By TLS it goes through a tunnel of ours.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from archive.counting import COUNT, MOST_SERIES, count_instances
from archive.received import read_received, temporary_folder
from archive.sending import PATIENCE, ArchiveError, Patience
from archive.tls import TlsFiles

AE_TITLE = "HIPPOAI"  # who we are to the archive
STORE_RESPONSE = re.compile(r"Received Store Response \((.*)\)")
FIND_RESPONSE = re.compile(r"Received Final Find Response \((.*)\)")
GET_RESPONSE = re.compile(r"Received C-GET Response \((.*)\)")
ERROR = re.compile(r"^[EF]: (.*?):?$", re.MULTILINE)
HINT = f'the archive must allow {AE_TITLE} C-GET; one line in Orthanc: "DicomAlwaysAllowGet": true'
# The archive may be starting, or busy, or full for the moment. A wrong AE title or storage class stays wrong.
TRANSIENT = re.compile(r"Connection (refused|reset|timed out)|Rejected Transient|OutOfResources")


@dataclass(frozen=True)
class DimseArchive:
    """The archive with the AE title `aec` at host:port, which has `timeout` seconds for each attempt.

    tls: how to speak DICOM TLS; None: it is spoken plainly.
    """

    host: str
    port: int
    aec: str
    timeout: float = 30
    patience: Patience = PATIENCE
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        return f"{self.aec} at {self.host}:{self.port}"

    def store(self, paths: Sequence[Path]) -> list[str]:
        """See sending.Archive."""
        return self.patience.attempt(lambda: self._store(paths))

    def _store(self, paths: Sequence[Path]) -> list[str]:
        # -R proposes only what the files need: there are more storage classes than one association can propose.
        # Absolute paths: storescu takes names that begin with - or @ for something else.
        files = [str(Path(path).absolute()) for path in paths]
        status, output = self._run("storescu", "-R", files=files)
        responses = STORE_RESPONSE.findall(output)
        # A warning says that the archive changed or dropped something, not that it refused.
        stored = [response for response in responses if response.startswith(("Success", "Warning"))]
        if status == 0 and len(stored) == len(paths):
            return sorted({response for response in stored if response.startswith("Warning")})
        refusals = [response for response in responses if response not in stored]
        reason = "; ".join([*refusals, *ERROR.findall(output)]) or f"storescu ended with status {status}"
        raise ArchiveError(
            f"stored {len(stored)} of {len(paths)} files: {reason}", transient=bool(TRANSIENT.search(reason))
        )

    def retrieve(self, sent: Sequence[Dataset]) -> list[Dataset]:
        """See sending.Archive. Series by series, as archives differ in whether they take a list of instances."""
        found = []
        for study, series in sorted({(one.StudyInstanceUID, one.SeriesInstanceUID) for one in sent}):
            keys = ("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}", f"SeriesInstanceUID={series}")
            with temporary_folder() as folder:
                options = [part for key in keys for part in ("-k", key)]
                _, output = self._run("getscu", "-S", "-od", str(folder), *options)  # its status says nothing
                final = (GET_RESPONSE.findall(output) or ["no response"])[-1]
                if final != "Success":
                    reason = "; ".join([final, *ERROR.findall(output)])
                    raise ArchiveError(f"C-GET: {reason} ({HINT})", transient=bool(TRANSIENT.search(reason)))
                found += [read_received(path) for path in sorted(folder.iterdir())]
        return found

    def count_instances(self, study_uid: str) -> int:
        """See sending.Archive. By C-FIND of its series."""
        keys = ("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study_uid}", "SeriesInstanceUID", "SeriesDescription")
        options = [part for key in (*keys, COUNT) for part in ("-k", key)]
        with temporary_folder() as folder:
            limits = ("--cancel", str(MOST_SERIES), "-Xlo", str(MOST_SERIES))
            _, output = self._run("findscu", "-S", *limits, "-X", "-od", str(folder), *options)
            final = (FIND_RESPONSE.findall(output) or ["no response"])[-1]
            if final != "Success":
                raise ArchiveError(f"C-FIND: {'; '.join([final, *ERROR.findall(output)])}")
            return count_instances([read_received(path) for path in sorted(folder.iterdir())])

    def _run(self, program: str, *options: str, files: Sequence[str] = ()) -> tuple[int, str]:
        """Exit status and output of one of DCMTK's programs."""
        command = [program, "-v", "-aet", AE_TITLE, "-aec", self.aec, *options]
        if self.tls is None:
            return self._call([*command, self.host, str(self.port), *files])
        from archive.tls_tunnel import LOCALHOST, tunnel  # here, as most need none, and it takes long to import

        with tunnel(self.host, self.port, self.tls.context(), self.timeout) as way:
            status, output = self._call([*command, LOCALHOST, str(way.port), *files])
            return status, f"{output}\nE: TLS: {way.fault}" if way.fault else output

    def _call(self, command: Sequence[str]) -> tuple[int, str]:
        program = command[0]
        try:
            result = subprocess.run(
                command,
                env={**os.environ, "TCP_NODELAY": "1"},  # without it DCMTK waits for the network at each small message
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ArchiveError(f"{program} was not done within {self.timeout:g} s", transient=True) from error
        except OSError as error:
            reason = f"cannot run {program} ({error.strerror}): install DCMTK (apt-get install dcmtk)"
            raise ArchiveError(reason) from error
        return result.returncode, result.stdout
