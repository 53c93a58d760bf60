"""To the archive, and what it then has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pydicom
from pydicom.dataset import Dataset

from common.send_outcome import SendOutcome
from reading.dicom_compare import differences
from reading.dicom_file import DICOM_ERRORS

LONGEST_PAUSE = 30  # seconds that an archive may ask for; if it wants more, the user may try again later

T = TypeVar("T")


class ArchiveError(Exception):
    """What the archive did not do, in words without a patient's data.

    transient: asking again may help. wait: not before so many seconds have passed, it says.
    """

    def __init__(self, reason: str, transient: bool = False, wait: float = 0):
        super().__init__(reason)
        self.transient = transient
        self.wait = wait


class NotStoredError(ArchiveError):
    """The archive answers, and does not have what it said it had. It may need a moment yet."""

    def __init__(self, reason: str):
        super().__init__(reason, transient=True)


@dataclass(frozen=True)
class Patience:
    """How often something is tried. pauses: in seconds before the second attempt, the third, and so on."""

    pauses: Sequence[float] = (1, 4)
    sleep: Callable[[float], None] = time.sleep

    def attempt(self, action: Callable[[], T]) -> T:
        """Do it, and a few times again where that may help. Raises the last ArchiveError.

        What is stored has the same UIDs each time, so that an archive which got it twice has it once.
        """
        for pause in self.pauses:
            try:
                return action()
            except ArchiveError as error:
                if not error.transient or error.wait > LONGEST_PAUSE:
                    raise
                pause = max(pause, error.wait)
            self.sleep(pause)
        return action()


PATIENCE = Patience()


class Archive(Protocol):
    """Where results go. Printed, it names itself."""

    patience: Patience

    def store(self, paths: Sequence[Path]) -> list[str]:
        """Send the files, with patience; returns the warnings. Raises ArchiveError unless all of them are confirmed."""

    def retrieve(self, sent: Sequence[Dataset]) -> list[Dataset]:
        """What the archive has of those instances. Raises ArchiveError where it does not let us look."""

    def count_instances(self, study_uid: str) -> int:
        """How many it says that it holds of a study, without what we made. Asked once.

        Of a study that it does not know there are 0, or it is an ArchiveError, as everything that goes wrong.
        """


def send_to_archive(paths: Sequence[Path], archive: Archive) -> SendOutcome:
    """Send DICOM files, fetch them back and compare. What goes wrong is an outcome, never an exception."""
    try:
        if not paths:
            raise ArchiveError("there is nothing to send")
        warnings = archive.store(paths)
    except (ArchiveError, OSError) as error:
        return SendOutcome(False, f"{archive}: {error}")
    told = "".join(f" ({warning})" for warning in warnings)
    detail = f"{archive} confirmed {len(paths)} of {len(paths)} files{told}"
    try:
        sent = [pydicom.dcmread(path) for path in paths]
        faults = archive.patience.attempt(lambda: _faults(sent, archive))
    except NotStoredError as error:
        return SendOutcome(True, f"{detail}, but {error}", False)
    except (ArchiveError, OSError) as error:
        return SendOutcome(True, f"{detail}; whether it has them is not proven: {error}", None)
    if faults:
        return SendOutcome(True, f"{detail}, but what it has differs from what was sent: {'; '.join(faults)}", False)
    return SendOutcome(True, f"{detail}, and gave them back as they were sent", True)


def _faults(sent: Sequence[Dataset], archive: Archive) -> list[str]:
    """A line for every instance that differs in the archive. Raises ArchiveError, NotStoredError."""
    stored = {_uid(instance): instance for instance in archive.retrieve(sent)}
    missing = [instance for instance in sent if instance.SOPInstanceUID not in stored]
    if missing:
        raise NotStoredError(f"it does not have {len(missing)} of them: {_name(missing[0])} is missing")
    found = ((instance, differences(instance, stored[instance.SOPInstanceUID])) for instance in sent)
    return [f"{_name(instance)} in {', '.join(keywords)}" for instance, keywords in found if keywords]


def _uid(instance: Dataset) -> str | None:
    """The UID of what an archive gave; None where it has none."""
    try:
        return str(instance.SOPInstanceUID)
    except DICOM_ERRORS:
        return None


def _name(instance: Dataset) -> str:
    return f"{instance.SOPClassUID.name} {instance.SOPInstanceUID}"
