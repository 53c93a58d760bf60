"""Who must not be named: nobody in logs, ever; nobody on the pages of the pseudonymous mode."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from pydicom.sequence import Sequence

from common.refusal import CODES, Stop
from common.verdicts import SeriesVerdict
from reading.dicom_file import Instance
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
    "MedicalRecordLocator",
    "PatientTelephoneNumbers",
    "AdmissionID",
    "StudyID",
    "AccessionNumber",
)
MORE_IDS = "OtherPatientIDsSequence"
# How a name is written where its letters cannot be, as in the names of files.
SPELLINGS = {
    **{"ä": ("ae", "a"), "ö": ("oe", "o"), "ü": ("ue", "u"), "ß": ("ss",), "å": ("aa", "a"), "ø": ("oe", "o")},
    **{"æ": ("ae",), "œ": ("oe",), "ł": ("l",), "đ": ("d",), "ð": ("d",), "þ": ("th",), "ı": ("i",)},
}
UID = r"(?P<uid>(?<!\d)(?<!\d\.)[0-2](?:\.\d+){2,})"  # it may hold a number of the patient's, and is what we go by
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
        words = _words_of(study)
        return Nobody() if len(words) > MOST_WORDS else cls(words)

    def removed_from(self, text: str) -> str:
        """`text` without the patient; its UIDs stay."""
        if not self.words:
            return text
        return self._pattern.sub(lambda found: found["uid"] or REMOVED, unicodedata.normalize("NFC", text))

    @cached_property
    def _pattern(self) -> re.Pattern:
        words = {unicodedata.normalize("NFC", word) for word in self.words}
        longest_first = sorted(words, key=lambda word: (-len(word), word))
        return re.compile("|".join((UID, *map(_pattern, longest_first))), re.IGNORECASE)

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
    """In the place of an identity where free text is not shown at all, as no list of names is ever complete.

    Its words are those that are not even shown where they are allowed: Tse and Post are people's names too.
    """

    def __init__(self, words: frozenset[str] = frozenset()) -> None:
        super().__init__(words)

    @classmethod
    def of(cls, study: Study) -> Nobody:
        return cls(frozenset(word.casefold() for word in _words_of(study)))

    def removed_from(self, text: str) -> str:
        """Those of its words that are allowed."""
        shown = ALLOWED - self.words
        return " ".join(word for word in re.split(r"[\W_]+", text) if word.casefold() in shown)

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


def _words_of(study: Study) -> frozenset[str]:
    """All words by which any instance of the study names its patient."""
    instances = [one for series in study.series for one in series.instances]
    values = {one.text(keyword) for one in instances for keyword in IDENTIFIERS}
    for one in instances:
        items = one.value(MORE_IDS)
        values |= {
            Instance(one.path, item).text("PatientID") for item in (items if isinstance(items, Sequence) else ())
        }
    words = {word for value in values for word in (value, *re.split(r"[\^=\\,\s]+", value))}
    words |= {written for value in {one.text("PatientBirthDate") for one in instances} for written in _dates(value)}
    return frozenset(word for word in words if len(word) > 1 or _has_no_capitals(word))


def _dates(text: str) -> tuple[str, ...]:
    """How people write a date of DICOM's."""
    if not re.fullmatch(r"\d{8}", text):
        return ()
    year, month, day = text[:4], text[4:6], text[6:]
    orders = ((year, month, day), (day, month, year), (month, day, year))
    return tuple(mark.join(order) for order in orders for mark in ("-", ".", "/", "_", " ", ""))


def _has_no_capitals(word: str) -> bool:
    """Scripts without capitals, as the ideographic ones, put no space between words, and names may be one letter."""
    return any(unicodedata.category(letter) == "Lo" for letter in word)


def _pattern(word: str) -> str:
    if re.fullmatch(r"[\d.]+", word):
        if len(word) < LETTERS:  # nor a part of a number with decimals
            return rf"(?<![\d.]){re.escape(word)}(?!\d|\.\d)"
        return rf"(?<!\d){re.escape(word)}(?!\d)"
    spelled = _spelled(word)
    if len(word) >= LETTERS or _has_no_capitals(word):
        return spelled
    return rf"(?<![^\W_]){spelled}(?![^\W_])"


def _spelled(word: str) -> str:
    """A pattern for the word as it stands, and as it is written in plain letters, each letter by itself."""
    return "".join(map(_letter, word))


def _letter(letter: str) -> str:
    plain = "".join(one for one in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(one))
    ways = {letter: None, **dict.fromkeys(SPELLINGS.get(letter.lower(), (plain,)))}
    ways = [re.escape(one) for one in ways if one]
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"
