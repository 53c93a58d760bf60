"""Studies of the archive that programs ask to have measured, as the clinic does it; their results lie in the store."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from archive.dicomweb import DicomWebArchive
from archive.fetching import fetched_study
from archive.sending import ArchiveError
from common.output_files import PAGE_PICTURE, RESULT
from common.refusal import Failure, Stop
from reading.dicom_series import UID_TEXT
from study.process_study import process_single_study, record_stop
from study.study_result import StudyResult, read_result
from teaching.correction_results import CORRECTED, send_correction
from teaching.image_store import ImageStore, NoSuchThing, StoredImage
from viewer.segmenting import Segmenter

WAITING, WORKING, DONE = "waiting", "working", "done"
MOST_WAITING = 1000


class Studies:
    """What is asked for and what came of it. archive: None where none was named."""

    def __init__(self, folder: Path, archive: DicomWebArchive | None, segmenter: Segmenter):
        self._folder, self._archive, self._segmenter = folder, archive, segmenter
        self._one, self._lock = ThreadPoolExecutor(1, "study"), threading.Lock()
        self._asked: dict[str, Future] = {}

    def ask(self, study_uid: str) -> dict:
        """Have it measured, again if it was before; done later. Raises NoSuchThing; Failure: cannot-fetch."""
        if self._archive is None:
            raise Failure("cannot-fetch", "the service was started without --dicomweb: there is no archive to ask")
        self._path(study_uid)
        with self._lock:
            self._asked = {uid: one for uid, one in self._asked.items() if not one.done()}
            if study_uid not in self._asked:
                if len(self._asked) >= MOST_WAITING:
                    raise Failure("cannot-fetch", f"{MOST_WAITING} studies wait already")
                self._asked[study_uid] = self._one.submit(self._measure, study_uid)
        return self.told(study_uid)

    def send_correction(self, image: StoredImage, store: ImageStore) -> None:
        """Have the newest correction of an image of the archive sent there, later; its result.json says how it went."""
        if self._archive is not None and image.series_uid:
            self._one.submit(self._send_correction, image, store)

    def _send_correction(self, image: StoredImage, store: ImageStore) -> None:
        try:
            send_correction(self._archive, store, image, self._segmenter.setup, store.folder / CORRECTED)
        except (Stop, NoSuchThing) as error:
            print(f"the correction of {image.series_uid} was not sent: {error}", file=sys.stderr, flush=True)

    def told(self, study_uid: str) -> dict:
        """The state of a study, and its result once there is one. Raises NoSuchThing."""
        asked = self._asked.get(study_uid)
        if asked is not None and not asked.done():
            return {"study_instance_uid": study_uid, "state": WORKING if asked.running() else WAITING, "result": None}
        return {"study_instance_uid": study_uid, "state": DONE, "result": self._result(study_uid)}

    def picture(self, study_uid: str) -> bytes:
        """The page, PNG. Raises NoSuchThing."""
        self._result(study_uid)
        try:
            return (self._path(study_uid) / PAGE_PICTURE).read_bytes()
        except OSError as error:
            raise NoSuchThing("of this study there is no page") from error

    def results(self) -> list[StudyResult]:
        """Of all studies, the oldest first."""
        found = sorted(self._folder.glob(f"*/{RESULT}"), key=lambda path: path.stat().st_mtime)
        return [read_result(path.parent) for path in found]

    def close(self) -> None:
        self._one.shutdown(cancel_futures=True)

    def _measure(self, study_uid: str) -> None:
        setup, path = self._segmenter.setup, self._path(study_uid)
        try:
            with fetched_study(self._archive, study_uid, setup.rules, setup.head_rules) as files:
                process_single_study(files, setup, path)
        except ArchiveError as error:
            record_stop(Failure("cannot-fetch", f"the archive: {error}"), path, study_uid)
        except Stop as stop:
            record_stop(stop, path, study_uid)

    def _path(self, study_uid: str) -> Path:
        if not UID_TEXT.fullmatch(study_uid):
            raise NoSuchThing("that is no UID of a study")
        return self._folder / study_uid

    def _result(self, study_uid: str) -> dict:
        try:
            result = vars(read_result(self._path(study_uid)))
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise NoSuchThing("nobody asked for this study") from error
        return {key: value for key, value in result.items() if key != "output_dir"}
