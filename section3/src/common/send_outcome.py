"""What became of files that were sent to an archive."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SendOutcome:
    """Whether the archive confirmed every file, whether what it has was proven equal, and both in words.

    stored is None where that could not be found out.
    """

    sent: bool
    detail: str
    stored: bool | None = None
