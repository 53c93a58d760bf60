"""Calls in the workers of a Dask cluster on this machine."""

import sys

import pytest

from batches.dask_engine import dask_engine
from common.refusal import Failure

pytestmark = pytest.mark.slow

LONG = 600


def test_a_cluster_hands_on_answers_and_errors(cluster, calls):
    engine = dask_engine(cluster, timeout=LONG)
    assert engine.workers == 2
    with engine.executor:
        answers = dict(engine.completed(calls.square, [3, -1, 4]))
    assert (answers[3].result(), answers[4].result()) == (9, 16)
    with pytest.raises(ArithmeticError):
        answers[-1].result()


def test_a_call_beyond_its_deadline_ends_its_cluster_worker(cluster, calls):
    engine = dask_engine(cluster, timeout=1)
    with engine.executor as executor:
        endless, harmless = executor.submit(calls.take_long), executor.submit(calls.square, 3)
        assert "KilledWorker" in type(endless.exception(LONG)).__name__
        assert harmless.result(LONG) == 9


def test_where_no_scheduler_is_there_is_no_engine(free_port, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed (section3/requirements-cluster.txt)")
    monkeypatch.setattr("batches.dask_engine.CONNECT_TIMEOUT", 0.5)
    address = f"tcp://127.0.0.1:{free_port}"
    with pytest.raises(Failure, match=rf"^no Dask scheduler answers at {address} \[no-scheduler\]$"):
        dask_engine(address, LONG)


def test_dask_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(Failure, match=r"pip install distributed \[no-scheduler\]"):
        dask_engine("tcp://127.0.0.1:1", LONG)
