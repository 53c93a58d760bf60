"""The queue of studies: one SQLite file, and the only source that speaks SQL.

studies      one row a study, by its StudyInstanceUID, in one of STATES. Late slices begin its next round; they wait
             while somebody works on it. `files` is what lies there of it: path in the incoming folder, size, time.
deliveries   one row a study and destination; it counts while its round is the study's, and its study is sending.
transitions  what became of a study and when, for people and tests. Nothing here is read by the node itself.

Who works on a row has its claim: a token, and a lease that ends by itself when its node is no more. Whoever writes
without the claim, because it ended and another took it, is told so by ClaimLost and has changed nothing.

Times are seconds of the machine's monotonic clock, which all processes of a machine share and nobody can set; when the
machine was started again, all leases and pauses have ended. The file must lie on a disk of this machine, as SQLite's
write-ahead log asks for.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.database import open_database

DISCOVERED, VALIDATING, LOADING, INFERRING = "discovered", "validating", "loading", "inferring"
REPORTING, SENDING, DONE, WARNING, FAILED = "reporting", "sending", "done", "warning", "failed"
STATES = (DISCOVERED, VALIDATING, LOADING, INFERRING, REPORTING, SENDING, DONE, WARNING, FAILED)
IN_WORK = (VALIDATING, LOADING, INFERRING, REPORTING)
FINAL = (DONE, WARNING, FAILED)
PENDING, STORED, ASIDE = "pending", "stored", "aside"  # of deliveries

Files = dict[str, list[int]]  # size and time by path

SCHEMA = """
CREATE TABLE IF NOT EXISTS machine (boot TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS studies (
    study_uid TEXT PRIMARY KEY,
    round INTEGER NOT NULL DEFAULT 1,
    state TEXT NOT NULL DEFAULT 'discovered',
    complete INTEGER NOT NULL DEFAULT 0,  -- nothing more is waited for
    files TEXT NOT NULL,                  -- none once they are put away
    arrived INTEGER NOT NULL DEFAULT 0,   -- how many
    seen REAL NOT NULL,                   -- the first file of this round
    due REAL NOT NULL DEFAULT 0,          -- not before
    attempts INTEGER NOT NULL DEFAULT 0,  -- claims, as a node that dies can count nothing afterwards
    token TEXT,
    lease REAL NOT NULL DEFAULT 0,
    outcome TEXT,                         -- the state when all is sent
    code TEXT,
    reason TEXT,
    tidy INTEGER NOT NULL DEFAULT 0,      -- its input was put away
    changed TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS deliveries (
    study_uid TEXT NOT NULL REFERENCES studies,
    destination TEXT NOT NULL,
    round INTEGER NOT NULL,
    content TEXT NOT NULL,                -- a digest of what is sent
    state TEXT NOT NULL DEFAULT 'pending',
    due REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    token TEXT,
    lease REAL NOT NULL DEFAULT 0,
    code TEXT,
    detail TEXT,
    PRIMARY KEY (study_uid, destination)
);
CREATE INDEX IF NOT EXISTS studies_by_state ON studies (state, due);
CREATE INDEX IF NOT EXISTS untidy_studies ON studies (state) WHERE NOT tidy;
CREATE INDEX IF NOT EXISTS studies_by_token ON studies (token) WHERE token IS NOT NULL;
CREATE INDEX IF NOT EXISTS deliveries_by_token ON deliveries (token) WHERE token IS NOT NULL;
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (destination, state, due);
CREATE TABLE IF NOT EXISTS transitions (
    number INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL,
    round INTEGER NOT NULL,
    state TEXT NOT NULL,
    code TEXT,
    at TEXT NOT NULL
);
"""


class QueueError(Exception):
    """The database cannot be read or written now."""


class ClaimLost(BaseException):
    """The claim is not ours any more, or nobody can tell. No Exception: who works must stop, and write nothing down."""


class NothingToRetryError(Exception):
    """Why there is nothing to mend, in one line."""


@dataclass(frozen=True)
class Pauses:
    """Growing pauses in seconds between so many attempts."""

    first: float
    factor: float
    longest: float
    attempts: int

    def after(self, attempts: int) -> float | None:
        """How long to wait after so many; None where no more are made."""
        if attempts >= self.attempts:
            return None
        return min(self.first * self.factor ** (attempts - 1), self.longest)


WORK_PAUSES = Pauses(first=5, factor=5, longest=600, attempts=4)
SEND_PAUSES = Pauses(first=5, factor=2, longest=1800, attempts=56)  # a day, as an archive may be down over night


@dataclass(frozen=True)
class Claim:
    """The right to work on a study."""

    study_uid: str
    round: int
    files: Files
    token: str


@dataclass(frozen=True)
class Delivery:
    """The right to send the results of a study to a destination."""

    study_uid: str
    round: int
    destination: str
    token: str


@dataclass(frozen=True)
class Report:
    """What came out of the work on a study: its state when all is sent, and a digest of what is to be sent."""

    outcome: str
    code: str | None = None
    reason: str | None = None
    content: str = ""


def boot_id() -> str:
    """What tells this start of the machine from all others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class StudyQueue:
    """The queue in the file at `path`, which is made where there is none. Raises QueueError, as all it does."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, boot: str | None = None):
        self._clock = clock
        try:
            self._database = open_database(path)
            with self._transaction() as now:
                for statement in SCHEMA.split(";\n"):
                    self._run(statement)
                self._notice_boot(boot or boot_id(), now)
        except sqlite3.Error as error:
            raise QueueError(f"{path}: {error}") from error

    def __enter__(self) -> StudyQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    # --- what arrives -------------------------------------------------------------------------------------------------

    def observe(
        self, study_uid: str, files: Files, quiet: bool, longest: float, still: Callable[[Files], Files] = dict
    ) -> bool:
        """Note what is there of a study. Returns whether all of it belongs to a round that is complete.

        still(files): those that are there still. It is asked when nobody can write to the queue: what another node
        finished and put away since somebody looked must not be taken for something new.
        It is complete when it is quiet, or `longest` seconds after its first file. What comes while somebody works on
        it waits until that is over; what comes later is a new round.
        """
        with self._transaction() as now:
            row, files = self._study(study_uid), still(files)
            if not files:
                return False
            if row is None:
                self._run(
                    "INSERT INTO studies (study_uid, files, seen) VALUES (:uid, '{}', :now)", uid=study_uid, now=now
                )
                self._to(study_uid, DISCOVERED, files=json.dumps(files), arrived=len(files))
            else:
                known = json.loads(row["files"])
                is_new = any(known.get(path) != one for path, one in files.items())
                if is_new and row["state"] in IN_WORK:
                    return False
                if is_new:
                    merged = {**known, **files}
                    self._set(study_uid, files=json.dumps(merged), arrived=len(merged), complete=0, tidy=0)
                if is_new and row["state"] != DISCOVERED:
                    fresh = {"round": row["round"] + 1, "seen": now, "attempts": 0, "due": 0}
                    self._to(study_uid, DISCOVERED, code=None, reason=None, outcome=None, **fresh)
            row = self._study(study_uid)
            if row["state"] == DISCOVERED and not row["complete"] and (quiet or now - row["seen"] >= longest):
                self._set(study_uid, complete=1, due=now)
                return True
            return bool(row["complete"])

    def complete_overdue(self, longest: float) -> None:
        """Wait no more for studies whose first file is so old, though nothing of them may be left."""
        overdue = "state = 'discovered' AND NOT complete AND seen <= :limit"
        if self._rows(f"SELECT 1 FROM studies WHERE {overdue} LIMIT 1", limit=self._clock() - longest):
            with self._transaction() as now:
                self._run(f"UPDATE studies SET complete = 1, due = :now WHERE {overdue}", now=now, limit=now - longest)

    # --- work ---------------------------------------------------------------------------------------------------------

    def claim(self, lease: float, pauses: Pauses = WORK_PAUSES) -> Claim | None:
        """The study that waits longest, for so many seconds. One whose claims all ended by death is set aside."""
        if not self._rows(f"{_CLAIMABLE} LIMIT 1", now=self._clock()):
            return None  # reading locks nobody out
        with self._transaction() as now:
            for row in self._rows(f"{_CLAIMABLE} ORDER BY due, study_uid", now=now):
                uid, attempts = row["study_uid"], row["attempts"]
                if attempts >= pauses.attempts:
                    self._close(uid, FAILED, "worker-died", f"whoever worked on it died, {attempts} times")
                    continue
                claim = Claim(uid, row["round"], json.loads(row["files"]), uuid.uuid4().hex)
                self._to(uid, VALIDATING, token=claim.token, lease=now + lease, attempts=attempts + 1)
                return claim
        return None

    def renew(self, tokens: Iterable[str], lease: float) -> None:
        """Let the claims with these tokens, on studies or deliveries, last so many seconds from now."""
        tokens = list(tokens)
        if tokens:
            with self._transaction() as now:
                for token in tokens:
                    for table in ("studies", "deliveries"):
                        self._run(f"UPDATE {table} SET lease = :end WHERE token = :token", end=now + lease, token=token)

    def enter(self, claim: Claim, state: str) -> None:
        """The next state of the work. Raises ClaimLost, and no QueueError: who cannot tell must stop too."""
        try:
            with self._transaction():
                self._require(claim)
                self._to(claim.study_uid, state)
        except QueueError as error:
            raise ClaimLost from error

    def reported(self, claim: Claim, report: Report, destinations: Iterable[str] = ()) -> str:
        """The work is done; what it made goes to the destinations, but to none that has the same already.

        Returns the state. Raises ClaimLost.
        """
        with self._transaction():
            self._require(claim)
            for destination in destinations:
                self._run(
                    _DELIVERY,
                    study_uid=claim.study_uid,
                    destination=destination,
                    round=claim.round,
                    content=report.content,
                )
            values = {"outcome": report.outcome, "code": report.code, "reason": report.reason, "attempts": 0}
            self._to(claim.study_uid, SENDING, token=None, lease=0, **values)
            return self._close_if_sent(claim.study_uid)

    def postpone(self, claim: Claim, code: str, reason: str, pauses: Pauses = WORK_PAUSES) -> str:
        """The work failed and may go well another time; the last time it is set aside. Raises ClaimLost."""
        with self._transaction() as now:
            self._require(claim)
            pause = pauses.after(self._study(claim.study_uid)["attempts"])
            if pause is None:
                return self._close(claim.study_uid, FAILED, code, reason)
            return self._to(claim.study_uid, DISCOVERED, token=None, lease=0, due=now + pause, code=code, reason=reason)

    def set_aside(self, claim: Claim, code: str, reason: str) -> str:
        """The work failed, and would again. Raises ClaimLost."""
        with self._transaction():
            self._require(claim)
            return self._close(claim.study_uid, FAILED, code, reason)

    # --- sending ------------------------------------------------------------------------------------------------------

    def claim_delivery(self, destination: str, lease: float) -> Delivery | None:
        """What waits longest to be sent there, for so many seconds."""
        if not self._rows(f"{_SENDABLE} LIMIT 1", now=self._clock(), destination=destination):
            return None
        with self._transaction() as now:
            for row in self._rows(f"{_SENDABLE} ORDER BY d.due LIMIT 1", now=now, destination=destination):
                delivery = Delivery(row["study_uid"], row["round"], destination, uuid.uuid4().hex)
                self._set_delivery(delivery, token=delivery.token, lease=now + lease, attempts=row["attempts"] + 1)
                return delivery
        return None

    def delivered(self, delivery: Delivery, stored: bool, detail: str, pauses: Pauses = SEND_PAUSES) -> str | None:
        """What became of it: proven stored, or tried again later, the last time set aside.

        Returns the state of the delivery; None where its claim was lost, so that this counts for nothing.
        """
        with self._transaction() as now:
            mine = self._rows("SELECT attempts FROM deliveries WHERE token = :token", token=delivery.token)
            if not mine:
                return None
            pause = 0 if stored else pauses.after(mine[0]["attempts"])
            state = STORED if stored else ASIDE if pause is None else PENDING
            code = None if stored else "not-stored"
            values = {"state": state, "due": now + (pause or 0), "code": code, "detail": detail}
            self._set_delivery(delivery, token=None, lease=0, **values)
            self._close_if_sent(delivery.study_uid)
            return state

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def untidy(self) -> list[tuple[str, Files, bool]]:
        """The studies whose input can be put away now: UID, files, and whether all went well with them."""
        sql = (
            "SELECT *, EXISTS (SELECT 1 FROM deliveries AS d WHERE d.study_uid = s.study_uid AND d.round = s.round "
            "AND d.state = 'aside') AS unsent FROM studies AS s INDEXED BY untidy_studies "
            "WHERE NOT tidy AND state IN ('done', 'warning', 'failed') AND due <= :now"
        )
        rows = self._rows(sql, now=self._clock())
        return [
            (row["study_uid"], json.loads(row["files"]), row["state"] != FAILED and not row["unsent"]) for row in rows
        ]

    def tidied(self, study_uid: str, pause: float | None = None) -> None:
        """Its input was put away; with `pause`, it could not be, and shall be tried again after so many seconds."""
        with self._transaction() as now:
            if self._study(study_uid)["state"] in FINAL:
                self._set(study_uid, **({"tidy": 1, "files": "{}"} if pause is None else {"due": now + pause}))

    def retry(self, study_uid: str) -> str:
        """Begin again with what was set aside: the sending where that failed, else the work. Returns the state.

        Raises NothingToRetryError.
        """
        with self._transaction() as now:
            row = self._study(study_uid)
            if row is None:
                raise NothingToRetryError(f"{study_uid} is no study of this node")
            if row["state"] not in (WARNING, FAILED):
                raise NothingToRetryError(f"{study_uid} is {row['state']}: there is nothing to mend")
            again = (
                "UPDATE deliveries SET state = 'pending', attempts = 0, due = :now "
                "WHERE study_uid = :study_uid AND round = :round AND state = 'aside'"
            )
            if self._run(again, now=now, study_uid=study_uid, round=row["round"]):
                return self._to(study_uid, SENDING, tidy=0)
            return self._to(study_uid, DISCOVERED, complete=1, attempts=0, due=now, tidy=0, code=None, reason=None)

    def studies(self) -> list[dict]:
        """All studies with their deliveries, those that changed last first; for people and programs."""
        now, found = self._clock(), []
        deliveries: dict[str, list[dict]] = {}
        for row in self._rows("SELECT d.* FROM deliveries AS d JOIN studies AS s USING (study_uid, round)"):
            one = {key: row[key] for key in ("destination", "state", "attempts", "code", "detail")}
            one["next_try_in"] = round(max(0, row["due"] - now), 1) if row["state"] == PENDING else None
            deliveries.setdefault(row["study_uid"], []).append(one)
        for row in self._rows("SELECT * FROM studies ORDER BY changed DESC, study_uid"):
            keys = ("study_uid", "round", "state", "code", "reason", "attempts", "changed")
            one = {**{key: row[key] for key in keys}, "files": row["arrived"]}
            waits = row["state"] == DISCOVERED and row["complete"]
            one["next_try_in"] = round(max(0, row["due"] - now), 1) if waits else None
            found.append({**one, "deliveries": deliveries.get(row["study_uid"], [])})
        return found

    def transitions(self, study_uid: str) -> list[tuple[int, str]]:
        """The rounds and states of a study, in their order."""
        rows = self._rows("SELECT * FROM transitions WHERE study_uid = :uid ORDER BY number", uid=study_uid)
        return [(row["round"], row["state"]) for row in rows]

    # --- below --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[float]:
        """All or nothing, and nobody else meanwhile; the time at which it began."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._clock()
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise QueueError(str(error)) from error

    def _run(self, sql: str, **values: object) -> int:
        return self._database.execute(sql, values).rowcount

    def _rows(self, sql: str, **values: object) -> list[sqlite3.Row]:
        try:
            return self._database.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise QueueError(str(error)) from error

    def _study(self, study_uid: str) -> sqlite3.Row | None:
        rows = self._rows("SELECT * FROM studies WHERE study_uid = :uid", uid=study_uid)
        return rows[0] if rows else None

    def _set(self, study_uid: str, **values: object) -> None:
        columns = ", ".join(f"{column} = :{column}" for column in values)
        self._run(f"UPDATE studies SET {columns} WHERE study_uid = :study_uid", study_uid=study_uid, **values)

    def _set_delivery(self, delivery: Delivery, **values: object) -> None:
        columns = ", ".join(f"{column} = :{column}" for column in values)
        key = {"study_uid": delivery.study_uid, "destination": delivery.destination}
        where = "study_uid = :study_uid AND destination = :destination"
        self._run(f"UPDATE deliveries SET {columns} WHERE {where}", **values, **key)

    def _to(self, study_uid: str, state: str, **values: object) -> str:
        """The one place where a study changes its state."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())  # for people
        self._set(study_uid, state=state, changed=at, **values)
        row = self._study(study_uid)
        self._run(
            "INSERT INTO transitions (study_uid, round, state, code, at) VALUES (:uid, :round, :state, :code, :at)",
            **{"uid": study_uid, "round": row["round"], "state": state, "code": row["code"], "at": at},
        )
        return state

    def _close(self, study_uid: str, state: str, code: str | None, reason: str | None) -> str:
        return self._to(study_uid, state, code=code, reason=reason, token=None, lease=0, due=0, tidy=0)

    def _close_if_sent(self, study_uid: str) -> str:
        """The final state of a study that waits for no delivery any more, else the one it has."""
        row = self._study(study_uid)
        sql = "SELECT state, detail FROM deliveries WHERE study_uid = :uid AND round = :round"
        found = self._rows(sql, uid=study_uid, round=row["round"])
        if row["state"] != SENDING or any(one["state"] == PENDING for one in found):
            return row["state"]
        if any(one["state"] == ASIDE for one in found):
            return self._close(study_uid, WARNING, row["code"] or "not-stored", row["reason"])
        return self._close(study_uid, row["outcome"], row["code"], row["reason"])

    def _require(self, claim: Claim) -> None:
        if self._study(claim.study_uid)["token"] != claim.token:
            raise ClaimLost

    def _notice_boot(self, boot: str, now: float) -> None:
        """After the machine was started again its clock began anew, and nobody of before works any more."""
        if [row["boot"] for row in self._rows("SELECT boot FROM machine")] != [boot]:
            self._run("DELETE FROM machine")
            self._run("INSERT INTO machine VALUES (:boot)", boot=boot)
            self._run("UPDATE studies SET due = 0, lease = 0, seen = :now", now=now)
            self._run("UPDATE deliveries SET due = 0, lease = 0")


# Not while its results are on their way: they would change under the hands of who sends them.
_CLAIMABLE = """
SELECT * FROM studies AS s
WHERE complete AND state IN ('discovered', 'validating', 'loading', 'inferring', 'reporting')
AND due <= :now AND lease <= :now
AND NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.study_uid = s.study_uid AND d.lease > :now)
"""
_SENDABLE = """
SELECT d.* FROM deliveries AS d JOIN studies AS s USING (study_uid, round)
WHERE d.destination = :destination AND d.state = 'pending' AND s.state = 'sending' AND d.due <= :now AND d.lease <= :now
"""
_DELIVERY = """
INSERT INTO deliveries (study_uid, destination, round, content) VALUES (:study_uid, :destination, :round, :content)
ON CONFLICT (study_uid, destination) DO UPDATE SET
    state = CASE WHEN state = 'stored' AND content = :content THEN 'stored' ELSE 'pending' END,
    round = :round, content = :content, due = 0, attempts = 0, token = NULL, lease = 0, code = NULL, detail = NULL
"""
