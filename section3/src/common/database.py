"""An SQLite file that several processes write, each of which may be the one that makes it."""

import sqlite3
import time
from pathlib import Path

BUSY = 60  # seconds to wait for another process
PAUSE = 0.02


def open_database(path: Path, **options: object) -> sqlite3.Connection:
    """With a journal written ahead, so that readers never wait, and whose rows have names. Raises sqlite3.Error.

    SQLite does not wait by itself where two change the journal of a new file at once: one of them is told that it is
    locked.
    """
    database = sqlite3.connect(path, timeout=BUSY, isolation_level=None, **options)
    database.row_factory = sqlite3.Row
    give_up = time.monotonic() + BUSY
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")  # what is done stays done if the power fails
            return database
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                database.close()
                raise
            time.sleep(PAUSE)
