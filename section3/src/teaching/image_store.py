"""What the service keeps: images and labels in files named by their content, and who they are in one SQLite file.

images     one row an image, by the sha256 of its file
names      which image a viewer means by an id, as it said last; ids are any text, and no path is made of them
labels     every version of every label; the newest of an image and tag counts
answers    what was found of an image each time that somebody asked, be it a refusal; for the eye on drift
sessions   images that are kept for a while only

The same id with other bytes is another image, whose labels are none of the first one's. All is for this user alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.database import open_database
from common.refusal import Failure
from common.whole_files import write_bytes

FINAL, ORIGINAL = "final", "original"  # by a person; by the model
LEAST_ROOM = 256 << 20  # bytes that stay free on the disk
JUST_ADDED = 30  # seconds for an image to be given its name
HELD_OUT_SHARE = 5  # one of so many persons is never trained on
SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    sha256 TEXT PRIMARY KEY,
    ending TEXT NOT NULL,
    kind TEXT NOT NULL,
    person TEXT NOT NULL,              -- of whom, as far as is known: a digest
    added REAL NOT NULL,
    study_uid TEXT,
    series_uid TEXT
);
CREATE TABLE IF NOT EXISTS names (id TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images, said REAL NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    number INTEGER PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images,
    tag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    at REAL NOT NULL,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    params TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS labels_by_image ON labels (image, tag, number);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY,
    image TEXT NOT NULL,
    kind TEXT NOT NULL,
    at REAL NOT NULL,
    model TEXT NOT NULL,
    code TEXT,                         -- of a refusal
    found TEXT NOT NULL                -- checks, JSON
);
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, image TEXT NOT NULL, expires REAL NOT NULL);
"""


class NoSuchThing(Exception):
    """What was asked for is not here: a line."""


@dataclass(frozen=True)
class StoredImage:
    """sha256: of its file, by which it is known. kind: "crop" or "head". person: a digest of whom, or of the image."""

    sha256: str
    ending: str
    kind: str
    person: str
    study_uid: str | None = None
    series_uid: str | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether nothing is ever learned from this person: it is whom candidates are tested on."""
        return int(self.person[:8], 16) % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class StoredLabel:
    """One version. model: what it began with. params: what was said of it, JSON."""

    number: int
    image: str
    tag: str
    sha256: str
    at: float
    client: str
    model: str
    params: str


class ImageStore:
    """The store in `folder`, which is made where there is none. Raises Failure: cannot-write, as all it does."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time):
        self.folder, self._clock, self._lock = folder, clock, threading.RLock()
        with _told(folder):
            for one in (folder, folder / "images", folder / "labels"):
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._database = open_database(folder / "store.sqlite", check_same_thread=False)
            self._database.executescript(SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # --- images ---

    def add_image(
        self,
        content: bytes,
        ending: str,
        kind: str,
        name: str | None = None,
        person: str | None = None,
        dicom: tuple[str, str] | None = None,
    ) -> StoredImage:
        """Keep an image; under a name, if it has one. dicom: the UIDs of study and series that it was made of."""
        sha256 = hashlib.sha256(content).hexdigest()
        image = StoredImage(sha256, ending, kind, person or sha256, *(dicom or (None, None)))
        self._write(self._path("images", sha256, ending), content)
        with self._changing() as now:
            self._run(
                "INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)",
                (sha256, ending, kind, image.person, now, image.study_uid, image.series_uid),
            )
            if name is not None:
                self._run("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (name, sha256, now))
        return self.image_of(sha256)

    def named(self, name: str) -> StoredImage:
        """Raises NoSuchThing."""
        rows = self._rows("SELECT images.* FROM names JOIN images ON images.sha256 = image WHERE id = ?", (name,))
        if not rows:
            raise NoSuchThing("no image of that name was sent")
        return _image(rows[0])

    def image_of(self, sha256: str) -> StoredImage:
        """Raises NoSuchThing."""
        rows = self._rows("SELECT * FROM images WHERE sha256 = ?", (sha256,))
        if not rows:
            raise NoSuchThing("there is no such image")
        return _image(rows[0])

    def names(self) -> dict[str, StoredImage]:
        """All images that have a name, the oldest first."""
        rows = self._rows("SELECT * FROM names JOIN images ON images.sha256 = image ORDER BY said, id")
        return {row["id"]: _image(row) for row in rows}

    def content_of(self, image: StoredImage) -> bytes:
        return self._read(self._path("images", image.sha256, image.ending))

    # --- labels ---

    def add_label(
        self, image: StoredImage, tag: str, content: bytes, client: str = "", model: str = "", params: str = "{}"
    ) -> StoredLabel:
        """Keep one more version; the same bytes by the same client again are no new one."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._write(self._path("labels", sha256, ".nii.gz"), content)
        with self._changing() as now:
            latest = self._newest(image, tag)
            if latest and (latest.sha256, latest.client, latest.model) == (sha256, client, model):
                return latest
            self._run(
                "INSERT INTO labels (image, tag, sha256, at, client, model, params) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (image.sha256, tag, sha256, now, client, model, params),
            )
            return self._newest(image, tag)

    def label(self, image: StoredImage, tag: str) -> StoredLabel:
        """The newest. Raises NoSuchThing."""
        if found := self._newest(image, tag):
            return found
        raise NoSuchThing(f"this image has no label {tag!r}")

    def labels(self, image: StoredImage | None = None, tag: str | None = None) -> list[StoredLabel]:
        """All versions, the oldest first; of one image, of one tag, or of all."""
        rows = self._rows(
            "SELECT * FROM labels WHERE (:image IS NULL OR image = :image) AND (:tag IS NULL OR tag = :tag) "
            "ORDER BY number",
            {"image": image.sha256 if image else None, "tag": tag},
        )
        return [StoredLabel(**row) for row in rows]

    def newest_labels(self) -> dict[str, dict[str, StoredLabel]]:
        """Of each image, by its sha256, the newest of each tag."""
        found: dict[str, dict[str, StoredLabel]] = {}
        for one in self.labels():
            found.setdefault(one.image, {})[one.tag] = one
        return found

    def count(self) -> tuple[int, dict[str, int]]:
        """How many images have a name, and how many of them a label of each tag."""
        ((total,),) = self._rows("SELECT count(*) FROM names")
        tags = self._rows(
            "SELECT tag, count(*) FROM names JOIN (SELECT DISTINCT image, tag FROM labels) USING (image) GROUP BY tag"
        )
        return total, dict(map(tuple, tags))

    def content_of_label(self, label: StoredLabel) -> bytes:
        return self._read(self._path("labels", label.sha256, ".nii.gz"))

    def _newest(self, image: StoredImage, tag: str) -> StoredLabel | None:
        rows = self._rows(
            "SELECT * FROM labels WHERE image = ? AND tag = ? ORDER BY number DESC LIMIT 1", (image.sha256, tag)
        )
        return StoredLabel(**rows[0]) if rows else None

    # --- answers ---

    def add_answer(self, image: StoredImage, model: str, code: str | None, found: dict) -> None:
        with self._changing() as now:
            self._run(
                "INSERT INTO answers (image, kind, at, model, code, found) VALUES (?, ?, ?, ?, ?, ?)",
                (image.sha256, image.kind, now, model, code, json.dumps(found)),
            )

    def answers(self, kind: str, most: int) -> list[dict]:
        """The newest, the oldest of them first: of each image the last one alone, so that asking again counts once."""
        rows = self._rows(
            "SELECT max(number) AS number, at, model, code, found FROM answers WHERE kind = ? GROUP BY image "
            "ORDER BY number DESC LIMIT ?",
            (kind, most),
        )
        return [{**dict(row), "found": json.loads(row["found"])} for row in reversed(rows)]

    # --- sessions ---

    def begin_session(self, image: StoredImage, seconds: float) -> str:
        number = uuid.uuid4().hex
        with self._changing() as now:
            self._run("INSERT INTO sessions VALUES (?, ?, ?)", (number, image.sha256, now + seconds))
        return number

    def session(self, number: str) -> StoredImage:
        """Raises NoSuchThing."""
        self.end_old_sessions()
        rows = self._rows("SELECT images.* FROM sessions JOIN images ON images.sha256 = image WHERE id = ?", (number,))
        if not rows:
            raise NoSuchThing("there is no such session, or it has ended")
        return _image(rows[0])

    def end_session(self, number: str) -> None:
        """Raises NoSuchThing."""
        self.session(number)
        self._run("DELETE FROM sessions WHERE id = ?", (number,))
        self.end_old_sessions()

    def end_old_sessions(self) -> None:
        """And drop the images that only they kept."""
        with self._changing() as now:
            self._run("DELETE FROM sessions WHERE expires <= ?", (now,))
            unkept = self._rows(
                "SELECT * FROM images WHERE sha256 NOT IN (SELECT image FROM names UNION SELECT image FROM sessions "
                "UNION SELECT image FROM labels WHERE tag = 'final') AND added <= ?",
                (now - JUST_ADDED,),
            )
            for row in unkept:
                self._run("DELETE FROM labels WHERE image = ?", (row["sha256"],))
                self._run("DELETE FROM images WHERE sha256 = ?", (row["sha256"],))
        for row in unkept:
            self._path("images", row["sha256"], row["ending"]).unlink(missing_ok=True)

    # --- files and rows ---

    def require_room(self, size: int) -> None:
        """Raises Failure: cannot-write."""
        with _told(self.folder):
            if shutil.disk_usage(self.folder).free - size < LEAST_ROOM:
                raise Failure("cannot-write", "the disk of the service is full")

    def _path(self, folder: str, sha256: str, ending: str) -> Path:
        return self.folder / folder / f"{sha256}{ending}"

    def _write(self, path: Path, content: bytes) -> None:
        self.require_room(len(content))
        with _told(self.folder), self._lock:
            if not path.exists():
                write_bytes(path, content, shared=True)
                path.chmod(0o600)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise Failure("cannot-read", f"a file of the store cannot be read: {error.strerror}") from error

    def _run(self, statement: str, values: tuple | dict = ()) -> None:
        self._database.execute(statement, values)

    def _rows(self, statement: str, values: tuple | dict = ()) -> list[sqlite3.Row]:
        with _told(self.folder), self._lock:
            return self._database.execute(statement, values).fetchall()

    @contextmanager
    def _changing(self) -> Iterator[float]:
        """All that is written within, or nothing of it. Gives the time."""
        with _told(self.folder), self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._clock()
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def _image(row: sqlite3.Row) -> StoredImage:
    keys = ("sha256", "ending", "kind", "person", "study_uid", "series_uid")
    return StoredImage(**{key: row[key] for key in keys})


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Failure("cannot-write", f"the store cannot be written or read: {reason}") from error
