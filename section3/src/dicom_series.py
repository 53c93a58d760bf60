"""Files to series, and which series is the input, and why.

Everything is decided by the content of the files. Their names and folders mean nothing.
"""

import hashlib
import logging
import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage, MRImageStorage

from refusal import Refusal

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

# What pydicom and its decoders raise on damaged files.
DICOM_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)

# Digits and dots, ending in a digit: fit to name a folder, though DICOM asks for more (PS3.5, 9.1).
UID_TEXT = re.compile(r"[0-9.]{0,63}[0-9]")

# Formal faults of the headers are no concern of the user, and pydicom's messages quote values that may name a patient.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")


@dataclass(frozen=True)
class Instance:
    """One DICOM image: its file, and its header without the pixel data."""

    path: Path
    header: Dataset

    def text(self, keyword: str) -> str:
        """An attribute as stripped text, "" where it is absent or cannot be decoded."""
        try:
            value = self.header.get(keyword)
            return "" if value is None else str(value).strip()
        except DICOM_ERRORS:
            return ""


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


@dataclass(frozen=True)
class Study:
    """One study, and how many files there were, how many of them no DICOM image, how many repeated ones."""

    uid: str
    series: list[Series]
    files: int
    not_dicom: int
    duplicates: int

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
    """All files in or below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_study(files: Iterable[Path], max_workers: int = 8) -> Study:
    """Read the headers of all files, which must belong to one study of one patient.

    Files that are no DICOM image are passed over and counted; a SOP Instance UID that comes again is counted once.
    Raises Refusal: no-dicom, unreadable-dicom, several-studies, several-patients.
    """
    files = list(files)
    with ThreadPoolExecutor(max_workers) as pool:  # reading waits for the disk, or the network behind it
        found = [instance for instance in pool.map(_read_instance, files) if instance]
    if not found:
        raise Refusal("no-dicom", f"no DICOM image among {len(files)} files; expected a study's DICOM files")

    by_uid = {instance.text("SOPInstanceUID"): instance for instance in found}
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
        not_dicom=len(files) - len(found),
        duplicates=len(found) - len(by_uid),
    )


def study_uid_of(path: Path) -> str | None:
    """The StudyInstanceUID of a file, None where it is no DICOM image. Raises Refusal: unreadable-dicom."""
    instance = _read_instance(path)
    return instance.text("StudyInstanceUID") if instance else None


def _read_instance(path: Path) -> Instance | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
    except InvalidDicomError:
        return None
    except DICOM_ERRORS as error:
        raise Refusal("unreadable-dicom", f"{path.name} cannot be read ({type(error).__name__})") from error
    instance = Instance(path, header)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not UID_TEXT.fullmatch(instance.text(keyword)):
            raise Refusal("unreadable-dicom", f"{path.name} is a DICOM file without a valid {keyword}; is it damaged?")
    return instance


@dataclass(frozen=True)
class Condition:
    """One requirement on the input series."""

    name: str
    expected: str
    attribute: str
    is_met: Callable[[str], bool]


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()


# In this order: the first one that a series does not meet is the reason given for its rejection.
CONDITIONS = (
    Condition(
        "not-our-result",
        f"not {OWN_DESCRIPTION}",
        "SeriesDescription",
        lambda text: not _squeezed(text).startswith(_squeezed(OWN_DESCRIPTION)),
    ),
    Condition("modality", "MR", "Modality", lambda text: text == "MR"),
    Condition("sop-class", "MR Image Storage", "SOPClassUID", lambda text: text == MRImageStorage),
    Condition("description", "HippoCrop", "SeriesDescription", lambda text: _squeezed(text) == "hippocrop"),
)


@dataclass(frozen=True)
class ConsideredSeries:
    """The verdict on one series: `condition` names what decided a rejection and is None for an accepted series."""

    series: Series
    condition: str | None
    reason: str

    @property
    def accepted(self) -> bool:
        return self.condition is None


def consider_series(study: Study, series_uid: str | None = None) -> list[ConsideredSeries]:
    """The verdict on every series of the study; `series_uid`, where given, is one more condition.

    Raises Refusal: no-such-series.
    """
    conditions = CONDITIONS
    if series_uid is not None:
        if series_uid not in {series.uid for series in study.series}:
            raise Refusal("no-such-series", f"study {study.uid} has no series {series_uid}")
        conditions += (Condition("chosen", series_uid, "SeriesInstanceUID", lambda text: text == series_uid),)
    return [_consider(series, conditions) for series in study.series]


def _consider(series: Series, conditions: Iterable[Condition]) -> ConsideredSeries:
    for condition in conditions:
        for instance in series.instances:
            value = instance.text(condition.attribute)
            if not condition.is_met(value):
                reason = f"{condition.attribute} is {value!r}, expected {condition.expected}"
                return ConsideredSeries(series, condition.name, reason)
    return ConsideredSeries(series, None, "meets all conditions")


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
