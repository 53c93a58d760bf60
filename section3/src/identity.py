"""Who must not be named: nobody in logs, ever; nobody on the pages of the pseudonymous mode."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_series import Study
from refusal import Refusal

REMOVED = "***"
IDENTIFIERS = ("PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs", "AccessionNumber")
LETTERS = 4  # so long a word is taken out of longer ones too; a shorter one only where it stands alone


def pseudonym(study_uid: str) -> str:
    """The same for the same study, always; only who has the study's UID can tell which one it is."""
    return f"HV-{hashlib.sha256(study_uid.encode()).hexdigest()[:10].upper()}"


def pseudonymous_header(name: str) -> Dataset:
    """What a page may say of a patient and the study: a pseudonym, and nothing else."""
    ds = Dataset()
    ds.PatientName = name
    return ds


@dataclass(frozen=True)
class Identity:
    """The words by which a study names its patient. They come with the names of its files and series."""

    words: frozenset[str]

    @classmethod
    def of(cls, study: Study) -> Identity:
        """The identity in all instances of the study, as they may differ in how they write it."""
        values = {one.text(keyword) for series in study.series for one in series.instances for keyword in IDENTIFIERS}
        words = {word for value in values for word in (value, *re.split(r"[\^=\\,\s]+", value))}
        return cls(frozenset(word for word in words if len(word) > 1))

    def removed_from(self, text: str) -> str:
        """`text` without the patient."""
        if not self.words:
            return text
        longest_first = sorted(self.words, key=lambda word: (-len(word), word))
        return re.sub("|".join(map(_pattern, longest_first)), REMOVED, text, flags=re.IGNORECASE)

    def removed_from_row(self, row: dict) -> dict:
        """`row` with the patient removed from its texts."""
        return {key: self.removed_from(value) if isinstance(value, str) else value for key, value in row.items()}

    @contextmanager
    def kept_out_of_refusals(self) -> Iterator[None]:
        """A refusal that leaves the block names nobody."""
        try:
            yield
        except Refusal as refusal:
            raise Refusal(refusal.code, self.removed_from(refusal.reason)) from None


def _pattern(word: str) -> str:
    if re.fullmatch(r"[\d.]+", word):  # not within a longer number, nor within a UID
        return rf"(?<![\d.]){re.escape(word)}(?!\d|\.\d)"
    if len(word) >= LETTERS:
        return re.escape(word)
    return rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
