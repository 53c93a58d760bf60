"""The folder in which a listener puts what it receives: which studies are there, which are complete, and where they go.

A study is known by what stands in its files, whatever they and their folders are called; it may lie in a folder of its
own or in the same one as others. Whether it is quiet is seen by its files staying as they are, not by their times: a
clock that jumps changes nothing. Beside what arrives there are folders of ours:

done/UID     input whose results are proven to be stored, or that gives none
failed/UID   input of what was set aside
own/UID      our own results, that somebody sent to us: they are no input

Input is moved there, never deleted, unless somebody says how long it shall be kept. A file whose content is there
already, by the same name, takes its place.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from choosing.series_rules import is_ours
from common.refusal import Failure
from node.asking import Ask, Asking
from node.study_queue import Files, StudyQueue
from reading.dicom_file import DICOM_ERRORS, Instance, read_instance
from reading.dicom_series import UID_TEXT, Series, list_files
from study.study_result import sha256_of

DONE, FAILED, OWN = "done", "failed", "own"
PLACES = (DONE, FAILED, OWN)
UNIDENTIFIED = "unidentified"  # in place of the UID, what belongs to no study
DAY = 86400  # seconds
PAUSE = 2  # seconds without news before an archive is asked: it may be receiving the study, too
SHARE = 5  # of the time, one part for looking and so many for other things


@dataclass(frozen=True)
class Kept:
    """What a file turned out to be, as long as it stays as it is. The UIDs are None where they cannot be told."""

    signature: list[int]
    study_uid: str | None
    instance_uid: str | None
    ours: bool


@dataclass
class Group:
    """Files of one study, and since when they are the same."""

    files: Files
    since: float
    first: float
    settled: bool = False  # the queue knows all of them in a round that is complete


class Incoming:
    """quiet: seconds after which nothing more is expected of a study. longest: after which no more is waited for.

    ask: how many instances an archive holds of a study. Where it says that no more than have come, the study is not
    waited for any longer.
    """

    def __init__(
        self,
        folder: Path,
        quiet: float,
        longest: float,
        clock: Callable[[], float] = time.monotonic,
        ask: Ask | None = None,
    ):
        self.folder, self.quiet, self.longest = folder, quiet, longest
        self._clock = clock
        self._asking = Asking(ask)
        self._kept: dict[str, Kept] = {}
        self._groups: dict[tuple[str, bool], Group] = {}
        self._empty: dict[Path, float] = {}  # since when
        self._look_at = 0.0

    def watch(self, queue: StudyQueue) -> None:
        """Tell the queue what is there. Raises QueueError, OSError where the folder cannot be listed.

        Where there is so much that looking takes long, as when no archive took results for a day, it is done less
        often.
        """
        now = self._clock()
        if now < self._look_at:
            return
        self._look()
        self._look_at = self._clock() + SHARE * (self._clock() - now)
        trouble = None
        for (study_uid, ours), group in self._groups.items():
            quiet = now - group.since >= self.quiet or (not ours and self._has_all(study_uid, group, now))
            overdue = now - group.first >= self.longest
            if ours and quiet:
                try:
                    self._put(study_uid, group.files, OWN)
                except OSError as error:  # told when all the others have had their turn
                    trouble = error
            # What belongs to no study may be half written.
            elif not ours and not group.settled and (study_uid != UNIDENTIFIED or quiet or overdue):
                group.settled = queue.observe(study_uid, group.files, quiet, self.longest, self._still)
        queue.complete_overdue(self.longest)
        self._asking.forget_all_but({study_uid for study_uid, _ in self._groups})
        if trouble:
            raise trouble

    def stop(self) -> None:
        """Nobody is asked any more."""
        self._asking.stop()

    def files_of(self, study_uid: str, files: Files) -> list[Path]:
        """All that there is of a study: what came for this round, and what was put away with earlier ones."""
        arrived = [self.folder / path for path in files if (self.folder / path).exists()]
        kept = [one for place in (DONE, FAILED) for one in _list(self.folder / place / study_uid)]
        return arrived + kept

    def put_away(self, study_uid: str, files: Files, well: bool) -> None:
        """Move the input of a study that is finished. What came since stays. Raises OSError."""
        place, other = (DONE, FAILED) if well and study_uid != UNIDENTIFIED else (FAILED, DONE)
        self._put(study_uid, files, place)
        if study_uid != UNIDENTIFIED:
            self._move(_list(self.folder / other / study_uid), self.folder / place / study_uid)
            _remove_if_empty(self.folder / other / study_uid)

    def forget(self, days: float) -> None:
        """Delete the input that was put away so long ago and went well; by the calendar, as people keep it."""
        limit = time.time() - days * DAY
        for place in (DONE, OWN):
            for folder in _folders(self.folder / place):
                if folder.stat().st_mtime < limit:
                    shutil.rmtree(folder)

    def _put(self, study_uid: str, files: Files, place: str) -> None:
        self._move([self.folder / path for path in self._still(files)], self.folder / place / study_uid)

    def _still(self, files: Files) -> Files:
        """Those that are there as they were."""
        return {path: one for path, one in files.items() if _signature(self.folder / path) == one}

    def _move(self, paths: Iterable[Path], target: Path) -> None:
        for path in paths:
            target.mkdir(parents=True, exist_ok=True)
            try:
                path.replace(_free_or_same(target / path.name, path))
            except FileNotFoundError:  # another node was faster
                continue

    def _has_all(self, study_uid: str, group: Group, now: float) -> bool:
        """Whether an archive holds no more of it. Of a later round it is not asked: much was put away before."""
        if group.settled or now - group.since < PAUSE or study_uid == UNIDENTIFIED:
            return False
        if any((self.folder / place / study_uid).exists() for place in (DONE, FAILED)):
            return False
        come = {self._kept[name].instance_uid for name in group.files} - {None}
        return self._asking.holds_no_more(study_uid, group.since, len(come))

    def _look(self) -> None:
        """See what is there now, and since when it is as it is."""
        now, found = self._clock(), self._grouped()
        groups = {}
        for key, files in found.items():
            before = self._groups.get(key)
            if before and before.files == files:
                groups[key] = before
            else:
                groups[key] = Group(files, since=now, first=before.first if before else now)
        self._groups = groups
        self._empty = {folder: since for folder, since in self._empty.items() if folder.exists()}

    def _grouped(self) -> dict[tuple[str, bool], Files]:
        """The files by study, ours apart. A damaged file may be a slice of any study that shares its folder."""
        kept, groups, folders, unplaced = {}, {}, {}, []
        for path in self._arrived():
            signature, name = _signature(path), str(path.relative_to(self.folder))
            if signature is None:
                continue
            one = self._kept.get(name)
            if one is None or one.signature != signature:
                one = Kept(signature, *_identify(path))
            kept[name] = one
            if one.study_uid is None:
                unplaced.append((path.parent, name, signature))
                continue
            groups.setdefault((one.study_uid, one.ours), {})[name] = signature
            if not one.ours and path.parent != self.folder:
                folders.setdefault(path.parent, set()).add(one.study_uid)
        for parent, name, signature in unplaced:
            for study_uid in folders.get(parent, (UNIDENTIFIED,)):
                groups.setdefault((study_uid, False), {})[name] = signature
        self._kept = kept
        return groups

    def _arrived(self) -> Iterator[Path]:
        """All files but those in our folders, and those with hidden names, which are not written to their end."""
        for entry in sorted(self.folder.iterdir()):
            if entry.name in PLACES:
                continue
            paths = list_files(entry) if entry.is_dir() and not entry.is_symlink() else [entry]
            self._sweep(entry, not paths)
            yield from (path for path in paths if not path.name.startswith("."))

    def _sweep(self, folder: Path, empty: bool) -> None:
        """Remove a folder that was empty for long: the listener makes one a study, and may still write into it."""
        if not empty:
            self._empty.pop(folder, None)
        elif self._clock() - self._empty.setdefault(folder, self._clock()) >= max(self.longest, self.quiet):
            with suppress(OSError):  # it does no harm
                for one in [*sorted(folder.rglob("*"), reverse=True), folder]:
                    _remove_if_empty(one)
            del self._empty[folder]


def _identify(path: Path) -> tuple[str | None, str | None, bool]:
    """The UIDs of a file's study and of itself, None where they cannot be told, and whether it is a result of ours."""
    try:
        instance = read_instance(path, digest=False)
        if not isinstance(instance, Instance) or not UID_TEXT.fullmatch(instance.text("StudyInstanceUID")):
            return None, None, False
        uids = (instance.text(keyword) for keyword in ("StudyInstanceUID", "SOPInstanceUID"))
        return *uids, is_ours(Series("", [instance]))
    except (Failure, MemoryError, *DICOM_ERRORS):
        return None, None, False


def _signature(path: Path) -> list[int] | None:
    """Size and time; None where there is no file any more."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _free_or_same(target: Path, path: Path) -> Path:
    """`target`, or where that is another file, the first numbered name that is free, or has the same content."""
    candidate, number = target, 1
    while candidate.exists() and not _is_same(candidate, path):
        number += 1
        candidate = target.with_name(f"{target.name}.{number}")
    return candidate


def _is_same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and sha256_of(one) == sha256_of(other)


def _list(folder: Path) -> list[Path]:
    return list_files(folder) if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
