"""Files to series, and which series is the input, and why.

Everything is decided by the content of the files. Their names and folders mean nothing.

The rules for the input are data, a JSON list of conditions (hippocrop_rules.json):

name        what the condition is called where it decides
attribute   a DICOM keyword, or `slices`: how many slices the series has
test        is: one of the values; has: one of the values of the attribute; at-least: a number
values      what is compared, without regard to case and spaces
expected    the same in words, where the values do not speak for themselves

They must hold for every instance; the first one that does not is the reason given for a rejection.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_file import DamagedFile, Instance, read_instance
from refusal import Refusal, printable

DEFAULT_RULES = Path(__file__).with_name("hippocrop_rules.json")

# Every SeriesDescription that this system writes starts so: a result is never taken as input.
OWN_DESCRIPTION = "HippoVolume.AI"

# Identity and study, taken from the whole study: series derived later often carry fewer of them, or other times.
STUDY_ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
)
# What describes the person, taken from the input series alone: another series may stem from another head.
PERSON_ATTRIBUTES = ("PatientBirthDate", "PatientSex")

# Digits and dots, ending in a digit: fit to name a folder, though DICOM asks for more (PS3.5, 9.1).
UID_TEXT = re.compile(r"[0-9.]{0,63}[0-9]")


@dataclass(frozen=True)
class Series:
    """The instances of one SeriesInstanceUID, in no particular order."""

    uid: str
    instances: list[Instance]

    @property
    def description(self) -> str:
        return self.instances[0].text("SeriesDescription")

    @property
    def modality(self) -> str:
        return self.instances[0].text("Modality")

    @property
    def slices(self) -> int:
        """How many there are; a multi-frame instance has several."""
        return sum(max(1, _count(instance, "NumberOfFrames")) for instance in self.instances)

    @property
    def stated_slices(self) -> int:
        """How many there should be, as far as the series says; 0 where it does not."""
        return max(_count(instance, "ImagesInAcquisition") for instance in self.instances)


def _count(instance: Instance, keyword: str) -> int:
    text = instance.text(keyword)
    return int(text) if text.isdecimal() else 0


@dataclass(frozen=True)
class Study:
    """One study, how many files there were, and how many of them were passed over."""

    uid: str
    series: list[Series]
    files: int
    not_dicom: int
    duplicates: int
    damaged: list[DamagedFile]

    @property
    def files_passed_over(self) -> dict[str, int]:
        """How many files there were, and how many of them are no images, repeated, or damaged by what name."""
        faults = Counter(f"damaged ({file.fault})" for file in self.damaged)
        return {"found": self.files, "not_dicom": self.not_dicom, "duplicates": self.duplicates, **faults}

    @property
    def instances_sha256(self) -> str:
        """One digest of all SOP Instance UIDs: another one, and the study has changed."""
        uids = {instance.text("SOPInstanceUID") for one in self.series for instance in one.instances}
        return hashlib.sha256("\n".join(sorted(uids)).encode()).hexdigest()

    def header_for(self, series: Series) -> Dataset:
        """Patient and study attributes for an object derived from `series`, as decoded text.

        The study's attributes and the patient's identity are the values on which most instances of the study agree;
        birth date and sex come from `series` alone. What is absent or empty is left out.
        """
        everything = [instance for one in self.series for instance in one.instances]
        header = Dataset()
        for keywords, instances in ((STUDY_ATTRIBUTES, everything), (PERSON_ATTRIBUTES, series.instances)):
            for keyword in keywords:
                counts = Counter(filter(None, (instance.text(keyword) for instance in instances)))
                if counts:
                    # The value itself breaks a tie, so that the order of the files does not.
                    setattr(header, keyword, max(counts, key=lambda value: (counts[value], value)))
        return header


def list_files(folder: Path) -> list[Path]:
    """All regular files in or below `folder`, sorted; links to folders are not followed.

    A folder that may not be listed stands for itself: it will be told as a file that cannot be read.
    """
    files, folders = [], [folder]
    while folders:
        current = folders.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(current / entry.name)
                    elif _is_file(entry):
                        files.append(current / entry.name)
        except OSError:
            files.append(current)
    return sorted(files)


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def read_study(files: Iterable[Path], max_workers: int = 8) -> Study:
    """Read the headers of all files, which must belong to one study of one patient.

    Files that are no DICOM image, or are damaged, are passed over and counted; a SOP Instance UID that comes again is
    counted once. Raises Refusal: no-dicom, unreadable-dicom (no file is whole), several-studies, several-patients.
    """
    files = list(files)
    with ThreadPoolExecutor(max_workers) as pool:  # reading waits for the disk, or the network behind it
        found = list(pool.map(_read_identified, files))
    instances = [one for one in found if isinstance(one, Instance)]
    damaged = [one for one in found if isinstance(one, DamagedFile)]
    if damaged and not instances:
        raise _damaged(damaged, "expected a study's DICOM files")
    if not instances:
        raise Refusal("no-dicom", f"no DICOM image among {len(files)} files; expected a study's DICOM files")

    by_uid = {instance.text("SOPInstanceUID"): instance for instance in instances}
    studies = {instance.text("StudyInstanceUID") for instance in by_uid.values()}
    if len(studies) > 1:
        raise Refusal("several-studies", f"found {len(studies)} studies, expected one: {', '.join(sorted(studies))}")
    uid = studies.pop()
    patients = {instance.text("PatientID") for instance in by_uid.values()} - {""}
    if len(patients) > 1:
        raise Refusal("several-patients", f"study {uid} carries {len(patients)} different PatientIDs, expected one")

    series: dict[str, list[Instance]] = {}
    for instance in by_uid.values():
        series.setdefault(instance.text("SeriesInstanceUID"), []).append(instance)
    return Study(
        uid=uid,
        series=[Series(series_uid, series[series_uid]) for series_uid in sorted(series)],
        files=len(files),
        not_dicom=found.count(None),
        duplicates=len(instances) - len(by_uid),
        damaged=damaged,
    )


def study_uid_of(path: Path) -> str | None:
    """The StudyInstanceUID of a file, None where it is no DICOM image. Raises Refusal: unreadable-dicom."""
    instance = _read_identified(path)
    if isinstance(instance, DamagedFile):
        raise _damaged([instance], "expected a DICOM image")
    return instance.text("StudyInstanceUID") if instance else None


def _read_identified(path: Path) -> Instance | DamagedFile | None:
    """A file without the three UIDs that place it in a study is damaged too."""
    instance = read_instance(path)
    if isinstance(instance, Instance):
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            if not UID_TEXT.fullmatch(instance.text(keyword)):
                return DamagedFile(path, f"no valid {keyword}")
    return instance


def _damaged(files: list[DamagedFile], expected: str) -> Refusal:
    first = f"{files[0].path.name}: {files[0].fault}"
    return Refusal("unreadable-dicom", f"{len(files)} damaged DICOM files, the first is {first}; {expected}")


def require_readable(study: Study, series: Series) -> None:
    """Refuse a series of which a damaged file may be a slice: all are there only where it says how many there are.

    Raises Refusal: unreadable-dicom.
    """
    if study.damaged and not 0 < series.stated_slices <= series.slices:
        raise _damaged(study.damaged, f"any of them may be a slice of series {series.uid}")


def require_complete(series: Series) -> None:
    """Refuse a series that lacks slices at an end, where the steps between those that are left do not show it.

    Raises Refusal: slices-missing.
    """
    if series.slices < series.stated_slices:
        found = f"{series.slices} slices, but says that there are {series.stated_slices} (ImagesInAcquisition)"
        raise Refusal("slices-missing", f"series {series.uid} has {found}")


@dataclass(frozen=True)
class Condition:
    """One requirement on the input series; the columns of a rule file."""

    name: str
    attribute: str
    test: str
    values: Sequence[str | int]
    expected: str = ""

    def is_met(self, text: str) -> bool:
        return TESTS[self.test](text, self.values)

    def rejection(self, text: str) -> str:
        return f"{self.attribute} is {text!r}, expected {self.expected or ' or '.join(map(str, self.values))}"


def _squeezed(text: object) -> str:
    return "".join(str(text).split()).casefold()


def _is(text: str, values: Sequence) -> bool:
    return _squeezed(text) in map(_squeezed, values)


def _has(text: str, values: Sequence) -> bool:
    return any(_is(part, values) for part in text.split("\\"))


def _starts_otherwise(text: str, values: Sequence) -> bool:
    return not _squeezed(text).startswith(tuple(map(_squeezed, values)))


def _at_least(text: str, values: Sequence) -> bool:
    return text.isdecimal() and int(text) >= values[0]


TESTS: dict[str, Callable[[str, Sequence], bool]] = {
    "is": _is,
    "has": _has,
    "starts-otherwise": _starts_otherwise,
    "at-least": _at_least,
}

# No site's rules can waive this one.
NOT_OUR_RESULT = Condition(
    "not-our-result", "SeriesDescription", "starts-otherwise", [OWN_DESCRIPTION], f"not {OWN_DESCRIPTION}"
)


def load_rules(path: Path = DEFAULT_RULES) -> tuple[Condition, ...]:
    """The conditions of a rule file. Raises Refusal: bad-rules."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            raise TypeError("not a list")
        rules = tuple(Condition(**rule) for rule in content)
        for rule in rules:
            rule.is_met("1")
    except OSError as error:
        raise Refusal("bad-rules", f"rules {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise Refusal("bad-rules", f"{path} is no list of conditions: {type(error).__name__}, {error}") from error
    return (NOT_OUR_RESULT, *rules)


@dataclass(frozen=True)
class ConsideredSeries:
    """The verdict on one series: `condition` names what decided a rejection and is None for an accepted series."""

    series: Series
    condition: str | None
    reason: str

    @property
    def accepted(self) -> bool:
        return self.condition is None

    def as_row(self) -> dict:
        """The verdict as result.json has it."""
        return {
            "series_instance_uid": self.series.uid,
            "description": self.series.description,
            "modality": self.series.modality,
            "instances": len(self.series.instances),
            "accepted": self.accepted,
            "condition": self.condition,
            "reason": self.reason,
        }


def consider_series(
    study: Study, series_uid: str | None = None, conditions: Sequence[Condition] | None = None
) -> list[ConsideredSeries]:
    """The verdict on every series of the study; `series_uid`, where given, is one more condition.

    Raises Refusal: bad-rules.
    """
    conditions = list(conditions or load_rules())
    if series_uid is not None:
        conditions.append(Condition("chosen", "SeriesInstanceUID", "is", [series_uid]))
    return [_consider(series, conditions) for series in study.series]


def _consider(series: Series, conditions: Iterable[Condition]) -> ConsideredSeries:
    for condition in conditions:
        for instance in series.instances:
            text = str(series.slices) if condition.attribute == "slices" else instance.text(condition.attribute)
            if not condition.is_met(text):
                return ConsideredSeries(series, condition.name, condition.rejection(text[:200]))
    return ConsideredSeries(series, None, "meets all conditions")


def series_table(rows: Sequence[dict]) -> str:
    """The verdicts (`as_row`) as text, a line each; what the files say can neither break a line nor stretch it."""
    lines = [("series", "description", "images", "verdict", "decided by", "reason")]
    for row in rows:
        verdict = "accepted" if row["accepted"] else "rejected"
        decided = row["condition"] or "all"
        cells = (row["series_instance_uid"], row["description"], row["instances"], verdict, decided, row["reason"])
        lines.append(tuple(printable(str(cell))[:100] for cell in cells))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def get_series_for_inference(considered: list[ConsideredSeries]) -> Series:
    """The one accepted series. Raises Refusal: no-hippocrop-series, several-hippocrop-series."""
    accepted = [one.series for one in considered if one.accepted]
    if not accepted:
        rejections = "; ".join(f"{one.series.description or 'unnamed'}: {one.reason}" for one in considered)
        raise Refusal("no-hippocrop-series", f"none of {len(considered)} series can be the input ({rejections})")
    if len(accepted) > 1:
        uids = ", ".join(series.uid for series in accepted)
        raise Refusal("several-hippocrop-series", f"{len(accepted)} HippoCrop series, choose one with --series: {uids}")
    return accepted[0]
