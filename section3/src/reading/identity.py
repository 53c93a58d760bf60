"""Who must not be named: nobody in logs, ever; nobody on the pages of the pseudonymous mode."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from common.refusal import CODES, Stop
from common.verdicts import SeriesVerdict
from reading.dicom_series import Study

REMOVED = "***"
IDENTIFIERS = (
    "PatientName",
    "PatientBirthName",
    "PatientMotherBirthName",
    "OtherPatientNames",
    "PatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "StudyID",
    "AccessionNumber",
)
LETTERS = 4  # so long a word is taken out of longer ones too; a shorter one only where it stands alone
MOST_WORDS = 1000  # of a study that names its patient by more, no free text is shown
# Of what a site writes about a series, all that the pseudonymous mode shows: none of it can be a name.
ALLOWED = frozenset(
    (
        *("hippocrop", "crop", "hippocampus", "brain", "head", "mr", "ct", "localizer", "survey", "scout"),
        *("t1", "t2", "t1w", "t2w", "t1pre", "t1post", "pd", "flair", "dwi", "adc", "swi", "pre", "post", "gd"),
        *("mprage", "mp2rage", "bravo", "spgr", "fspgr", "tfe", "tse", "fse", "se", "gre", "ir", "contrast"),
        *("ax", "axial", "cor", "coronal", "sag", "sagittal", "tra", "obl", "2d", "3d", "iso", "reg", "registered"),
    )
)


def pseudonym(study_uid: str) -> str:
    """The same for the same study, always; only who has the study's UID can tell which one it is."""
    return f"HV-{hashlib.sha256(study_uid.encode()).hexdigest()[:10].upper()}"


@dataclass(frozen=True)
class Identity:
    """The words by which a study names its patient. They come with the names of its files and series."""

    words: frozenset[str]

    @classmethod
    def of(cls, study: Study) -> Identity:
        """The identity in all instances of the study, as they may differ in how they write it."""
        values = {one.text(keyword) for series in study.series for one in series.instances for keyword in IDENTIFIERS}
        words = {word for value in values for word in (value, *re.split(r"[\^=\\,\s]+", value))}
        if len(words) > MOST_WORDS:
            return Nobody()
        return cls(frozenset(unicodedata.normalize("NFC", word) for word in words if len(word) > 1))

    def removed_from(self, text: str) -> str:
        """`text` without the patient."""
        return self._pattern.sub(REMOVED, unicodedata.normalize("NFC", text)) if self.words else text

    @cached_property
    def _pattern(self) -> re.Pattern:
        longest_first = sorted(self.words, key=lambda word: (-len(word), word))
        return re.compile("|".join(map(_pattern, longest_first)), re.IGNORECASE)

    def removed_from_verdict(self, verdict: SeriesVerdict) -> SeriesVerdict:
        """`verdict` with the patient removed from what it quotes."""
        quoted = {key: self.removed_from(getattr(verdict, key)) for key in ("description", "modality", "reason")}
        return replace(verdict, **quoted)

    @contextmanager
    def kept_out_of_stops(self) -> Iterator[None]:
        """A refusal or failure that leaves the block names nobody."""
        try:
            yield
        except Stop as stop:
            raise type(stop)(stop.code, self.removed_from(stop.reason)) from None


class Nobody(Identity):
    """In the place of an identity where free text is not shown at all, as no list of names is ever complete."""

    def __init__(self) -> None:
        super().__init__(frozenset())

    def removed_from(self, text: str) -> str:
        """Those of its words that are allowed."""
        return " ".join(word for word in re.split(r"[\W_]+", text) if word.casefold() in ALLOWED)

    def removed_from_verdict(self, verdict: SeriesVerdict) -> SeriesVerdict:
        """`verdict` with the name of the condition that decided in place of what it quotes."""
        reason = "meets all conditions" if verdict.accepted else f"the condition {verdict.condition} does not hold"
        description, modality = (self.removed_from(text) for text in (verdict.description, verdict.modality))
        return replace(verdict, description=description, modality=modality, reason=reason)

    @contextmanager
    def kept_out_of_stops(self) -> Iterator[None]:
        """A refusal or failure that leaves the block says what its code means, and quotes nothing."""
        try:
            yield
        except Stop as stop:
            raise type(stop)(stop.code, CODES[stop.code].meaning) from None


def _pattern(word: str) -> str:
    if re.fullmatch(r"[\d.]+", word):  # not within a longer number, nor within a UID
        return rf"(?<![\d.]){re.escape(word)}(?!\d|\.\d)"
    # Scripts without capitals, as the ideographic ones, put no space between words.
    if len(word) >= LETTERS or any(unicodedata.category(letter) == "Lo" for letter in word):
        return re.escape(word)
    return rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
