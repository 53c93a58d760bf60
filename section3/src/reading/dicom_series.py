"""Files to series of one study.

Everything is decided by the content of the files. Their names and folders mean nothing.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common.refusal import Refusal
from reading.dicom_compare import differences
from reading.dicom_file import DICOM_ERRORS, DamagedFile, Instance, read_dicom, read_instance

# What a study says about its patient and itself; every object of it has them, empty where the study says nothing.
# Identity and study come from the whole study: series derived later often carry fewer of them, or other times ...
STUDY_ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
# ... what describes the person from the input series alone: another series may stem from another head.
PERSON_ATTRIBUTES = ("PatientBirthDate", "PatientSex")
# What is left out where the study says nothing.
OPTIONAL_ATTRIBUTES = ("StudyDescription", "IssuerOfPatientID")

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
    doubles: dict[str, list[Instance]]  # by SOP Instance UID: what comes in files of unequal bytes

    def series_of(self, uid: str) -> Series | None:
        return next((one for one in self.series if one.uid == uid), None)

    @property
    def files_passed_over(self) -> dict[str, int]:
        """How many files there were, and how many of them are no images, repeated, or damaged by what name."""
        faults = Counter(f"damaged ({file.fault})" for file in self.damaged)
        return {"found": self.files, "not_dicom": self.not_dicom, "duplicates": self.duplicates, **faults}

    @property
    def instances_sha256(self) -> str:
        """One digest of the contents of all instances: another one, and the study has changed."""
        digests = {instance.sha256 for one in self.series for instance in one.instances}
        return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()

    def header_for(self, series: Series | None) -> dict[str, str]:
        """Patient and study attributes for what is derived from `series`, as text by DICOM keyword.

        The study's attributes and the patient's identity are the values on which most instances of the study agree;
        birth date and sex come from `series` alone. What is absent or empty is left out.
        """
        everything = [instance for one in self.series for instance in one.instances]
        header = {"StudyInstanceUID": self.uid}
        for keywords, instances in (
            (STUDY_ATTRIBUTES + OPTIONAL_ATTRIBUTES, everything),
            (PERSON_ATTRIBUTES, series.instances if series else ()),
        ):
            for keyword in keywords:
                counts = Counter(filter(None, (instance.text(keyword) for instance in instances)))
                if counts:
                    # The value itself breaks a tie, so that the order of the files does not.
                    header[keyword] = max(counts, key=lambda value: (counts[value], value))
        return header


def list_files(folder: Path) -> list[Path]:
    """All regular files in or below `folder`, sorted; links to folders are not followed.

    A folder that may not be listed stands for itself: whoever reads it as a file will learn that it cannot be read.
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
    counted once. Raises Refusal: no-dicom, unreadable-dicom (no file is whole), several-studies, several-patients;
    Failure: cannot-read.
    """
    files = list(files)
    to_read = _each_once(files)
    with ThreadPoolExecutor(max_workers) as pool:  # reading waits for the disk, or the network behind it
        found = list(pool.map(_read_identified, to_read))
    instances = [one for one in found if isinstance(one, Instance)]
    damaged = [one for one in found if isinstance(one, DamagedFile)]
    if damaged and not instances:
        raise _damaged(damaged, "expected a study's DICOM files")
    if not instances:
        raise Refusal("no-dicom", f"no DICOM image among {len(files)} files; expected a study's DICOM files")

    same: dict[str, list[Instance]] = {}
    for instance in instances:
        same.setdefault(instance.text("SOPInstanceUID"), []).append(instance)
    by_uid = {uid: first for uid, (first, *_) in same.items()}
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
        duplicates=len(files) - len(to_read) + len(instances) - len(by_uid),
        damaged=damaged,
        doubles={uid: ones for uid, ones in same.items() if len({one.sha256 for one in ones}) > 1},
    )


def _each_once(files: list[Path]) -> list[Path]:
    """`files` without further links to the same content. What cannot be looked at is left to whoever reads it."""
    found = {}
    for path in files:
        try:
            status = path.stat()
            found.setdefault((status.st_dev, status.st_ino), path)
        except OSError:
            found[path] = path
    return list(found.values())


def study_uid_of(path: Path) -> str | None:
    """The StudyInstanceUID of a file, None where it is no DICOM image. Raises Refusal: unreadable-dicom; Failure."""
    instance = _read_identified(path, digest=False)
    if isinstance(instance, DamagedFile):
        raise _damaged([instance], "expected a DICOM image")
    return instance.text("StudyInstanceUID") if instance else None


def _read_identified(path: Path, digest: bool = True) -> Instance | DamagedFile | None:
    """A file without the three UIDs that place it in a study is damaged too."""
    instance = read_instance(path, digest)
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


def require_one_content(study: Study, series: Series) -> None:
    """Refuse a series of which a slice comes twice and not the same: nobody knows which one is right.

    How a file is written, as its transfer syntax, makes no difference. Raises Refusal: instance-conflict; Failure.
    """
    for instance in series.instances:
        for other in study.doubles.get(instance.text("SOPInstanceUID"), ()):
            if other is not instance and not _is_same(instance, other):
                uid = instance.text("SOPInstanceUID")
                names = f"{instance.path.name} and {other.path.name}"
                raise Refusal("instance-conflict", f"{names} have one SOP Instance UID, {uid}, and differ")


def _is_same(one: Instance, other: Instance) -> bool:
    try:
        first, second = (read_dicom(each.path, each.sha256) for each in (one, other))
        return not differences(first, second) and not differences(second, first)
    except DICOM_ERRORS:
        return False
