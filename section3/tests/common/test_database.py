import multiprocessing
import sqlite3
import time

import pytest

from common.database import open_database

AT_ONCE, ROUNDS = 4, 100


def write(path, begin):
    while time.time() < begin:
        pass
    database = open_database(path)
    database.execute("CREATE TABLE IF NOT EXISTS writers (number INTEGER)")
    database.execute("INSERT INTO writers VALUES (1)")
    database.close()


def test_all_that_open_a_new_file_at_once_may_write_it(tmp_path):
    """With SQLite's own waiting alone one of twenty fails."""
    with multiprocessing.get_context("spawn").Pool(AT_ONCE) as pool:
        for n in range(ROUNDS):
            pool.starmap(write, [(tmp_path / str(n), time.time() + 0.01)] * AT_ONCE, chunksize=1)
            database = open_database(tmp_path / str(n))
            assert database.execute("SELECT count(*) AS n FROM writers").fetchone()["n"] == AT_ONCE
            database.close()


def test_what_is_no_database_is_told(tmp_path):
    (tmp_path / "text").write_text("no database, by far" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        open_database(tmp_path / "text")
    with pytest.raises(sqlite3.OperationalError):
        open_database(tmp_path / "missing" / "file")
