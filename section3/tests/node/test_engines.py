"""Calls go the same way through every engine, and none that dies or hangs takes others with it."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from batches import engines
from batches.engines import LOCAL_ENGINES, ProcessExecutor, local_engine
from common import start

pytestmark = pytest.mark.slow

LONG = 600  # seconds: for what should take none, on the busiest machine


def processes(workers: int = 1, timeout: float = LONG, grace: float = LONG) -> ProcessExecutor:
    return ProcessExecutor(workers, threads=1, timeout=timeout, grace=grace)


def is_running(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("name", LOCAL_ENGINES)
def test_every_call_gets_its_answer_or_its_error(calls, name):
    engine = local_engine(name, 2, timeout=LONG)
    with engine.executor:
        answers = dict(engine.completed(calls.square, [3, -1, 4, 5, 6]))
    assert {number: future.result() for number, future in answers.items() if number > 0} == {3: 9, 4: 16, 5: 25, 6: 36}
    with pytest.raises(ArithmeticError):
        answers[-1].result()


def test_the_serial_engine_tells_of_each_call_before_the_next(calls):
    engine = local_engine("serial", 2, timeout=LONG)
    submitted = []
    for number, _ in engine.completed(calls.square, (submitted.append(number) or number for number in range(3))):
        assert submitted[-1] == number


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 2, 4), (2, 2, 1), (2, 8, 1), (None, 1, 1)])
def test_workers_share_the_cores(monkeypatch, cores, workers, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert local_engine("threads", workers, LONG).threads == threads


def test_a_call_whose_process_dies_gets_a_second_chance(calls, tmp_path):
    with processes() as executor:
        assert executor.submit(calls.die_once, tmp_path / "died").result() == "alive"


@pytest.mark.parametrize("end", ["die", "die_half_way_through_the_answer"])
def test_a_call_that_kills_two_processes_fails_alone(calls, end):
    with processes() as executor:
        deadly, harmless = executor.submit(getattr(calls, end)), executor.submit(calls.square, 3)
        with pytest.raises(BrokenExecutor):
            deadly.result()
        assert harmless.result() == 9


@pytest.mark.parametrize("end", ["take_long", "stop_half_way_through_the_answer"])
def test_a_call_beyond_its_deadline_is_ended(calls, end):
    with processes() as executor:
        process = executor.submit(os.getpid).result()
        executor.timeout = 0.5
        endless = executor.submit(getattr(calls, end))
        endless.add_done_callback(lambda _: setattr(executor, "timeout", LONG))  # before the next call begins
        harmless = executor.submit(calls.square, 3)
        with pytest.raises(TimeoutError, match=r"not done within 0\.5 s"):
            endless.result(LONG)
        assert harmless.result(LONG) == 9
        assert not is_running(process)


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_a_process_that_was_stopped_is_ended_too(calls, size):
    """Even where what it is sent does not fit into the connection."""
    with processes() as executor:
        process = executor.submit(os.getpid).result()
        os.kill(process, signal.SIGSTOP)
        executor.timeout = 0.5
        with pytest.raises(TimeoutError):
            executor.submit(len, bytes(size)).result(LONG)
        assert not is_running(process)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_deadline_may_lie_beyond_all_clocks(calls):
    with processes(timeout=10**12) as executor:
        assert executor.submit(calls.square, 3).result() == 9


def test_memory_is_bounded(calls):
    with processes() as executor:
        assert executor.submit(calls.swell, 100 << 20).result() == 100 << 20
        with pytest.raises(MemoryError):
            executor.submit(calls.swell, start.MEMORY).result()
        assert executor.submit(calls.square, 3).result() == 9


def test_nothing_is_left_running(calls):
    with processes(2) as executor:
        started = [executor.submit(os.getpid).result() for _ in range(2)]
    assert not any(map(is_running, started))


def test_an_idle_process_that_was_stopped_does_not_hold_up_the_end(calls):
    executor = processes(2, grace=0.2)
    started = {future.result() for future in [executor.submit(os.getpid) for _ in range(4)]}
    for process in started:
        os.kill(process, signal.SIGSTOP)
    end = threading.Thread(target=executor.shutdown, daemon=True)
    end.start()
    end.join(LONG)
    assert not end.is_alive()
    assert not any(map(is_running, started))


def test_who_does_not_wait_for_the_end_gets_the_answers_all_the_same(calls, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    executor = processes(grace=0)
    answer = executor.submit(calls.say_and_wait, fifo)
    executor.shutdown(wait=False)
    fifo.write_text("go")
    assert answer.result(LONG) == "go"
    executor.shutdown()


PARENT = """
import sys
from pathlib import Path

import engine_calls
from batches.engines import ProcessExecutor

if __name__ == "__main__":
    with ProcessExecutor(2, threads=1, timeout=600) as executor:
        assert executor.submit(engine_calls.square, 2).result() == 4
        for _ in range(2):
            executor.submit(engine_calls.say_and_wait, Path(sys.argv[1]))
"""


def test_a_parent_that_is_killed_leaves_no_traceback(calls, tmp_path):
    """Its processes end their calls, have nobody to answer, and go."""
    (tmp_path / "parent.py").write_text(PARENT)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source, here = Path(engines.__file__).parents[1], Path(calls.__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{source}:{here}"}
    command = [sys.executable, tmp_path / "parent.py", fifo]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    release = os.open(fifo, os.O_RDWR)  # to read too, so that it opens without a reader
    with subprocess.Popen(command, env=environment, **pipes) as parent:
        try:
            assert [parent.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
            parent.kill()
            parent.wait(LONG)
        finally:
            os.close(release)
        assert parent.communicate(timeout=LONG) == ("", "")  # until all of them have closed their ends
