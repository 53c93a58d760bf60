"""Where calls are carried out, behind one interface: concurrent.futures.Executor.

engine     calls run                          at a time      a limit on time and memory, dead workers survived
---------  ---------------------------------  -------------  -------------------------------------------------
serial     in this thread, for debuggers      one            no
threads    in threads of this process         max_workers    no
processes  in processes of their own          max_workers    yes
dask       see dask_engine.py                 its workers    on time; dead workers survived
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import LifoQueue
from typing import Any

from common.refusal import Failure, Stop
from common.start import limit_memory

LOCAL_ENGINES = ("processes", "threads", "serial")
ATTEMPTS = 2  # a worker may have died of what other programs did to the machine, so its call gets a second chance
GRACE = 10  # seconds for an idle worker to leave; one that does not is killed, and nothing is lost

# Spawned: a fork would copy the threads' locks of this process in whatever state they are.
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Engine:
    """An executor, how many calls it carries out at a time, and how many threads each of these may use."""

    executor: Executor
    workers: int
    threads: int

    def completed(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Future]]:
        """Each item with the future of function(item), in the order in which they finish.

        No more are submitted than there are workers: whoever stops listening has none left waiting.
        """
        running: dict[Future, Any] = {}
        for item in items:
            running[self.executor.submit(function, item)] = item
            if len(running) == self.workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)


def failure_of(error: Exception) -> Stop:
    """What an engine raises where a call has no answer, in our own words."""
    if isinstance(error, Stop):
        return error
    if isinstance(error, TimeoutError):
        return Failure("timed-out", f"the work was {error}")
    return Failure(
        "worker-died", f"the process that did the work was killed ({type(error).__name__}); is memory short?"
    )


def _finished(running: dict[Future, Any]) -> Iterator[tuple[Any, Future]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future


def local_engine(name: str, max_workers: int, timeout: float) -> Engine:
    """One of LOCAL_ENGINES, the cores shared out among its workers. Only processes keep to `timeout`, in seconds."""
    cores = os.cpu_count() or 1
    if name == "serial":
        return Engine(SerialExecutor(), 1, cores)
    threads = max(1, cores // max_workers)
    if name == "threads":
        return Engine(ThreadPoolExecutor(max_workers), max_workers, threads)
    return Engine(ProcessExecutor(max_workers, threads, timeout), max_workers, threads)


class SerialExecutor(Executor):
    """Carries out a call when it is submitted."""

    def submit(self, function: Callable, /, *args: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:  # noqa: BLE001  the future hands it on
            future.set_exception(error)
        return future


class ProcessExecutor(Executor):
    """Carries out calls in processes. Unlike ProcessPoolExecutor it knows whose call it was that killed a process.

    Only this call fails, with BrokenExecutor, when it has killed two of them. A call that takes longer than `timeout`
    seconds is ended with its process and fails with TimeoutError. At the end an idle process has `grace` seconds to
    leave by itself.
    """

    def __init__(self, max_workers: int, threads: int, timeout: float, grace: float = GRACE):
        self.timeout = timeout  # of the calls that begin from now on
        self._callers = ThreadPoolExecutor(max_workers)
        self._workers = [_Worker(threads, grace) for _ in range(max_workers)]
        self._idle: LifoQueue[_Worker] = LifoQueue()  # last in, first out: no process is started that is not needed
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, function: Callable, /, *args: Any) -> Future:
        return self._callers.submit(self._call, function, args)

    def _call(self, function: Callable, args: tuple) -> Any:
        worker = self._idle.get()
        try:
            for _ in range(ATTEMPTS - 1):
                with suppress(BrokenExecutor):
                    return worker.call(function, args, self.timeout)
            return worker.call(function, args, self.timeout)
        finally:
            self._idle.put(worker)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._callers.shutdown(wait, cancel_futures=cancel_futures)
        if wait:  # else some are at work still; they end with this process
            for worker in self._workers:
                worker.stop()


class _Worker:
    """A process for one call at a time: started with the first one, and again after its death."""

    def __init__(self, threads: int, grace: float):
        self._threads, self._grace = threads, grace
        self._process = None

    def call(self, function: Callable, args: tuple, timeout: float) -> Any:
        """function(*args). Raises what it raises, BrokenExecutor, TimeoutError."""
        if self._process is None:
            self._start()
        began = time.monotonic()
        # It kills from beside: a process that was stopped may leave what is sent half read, or its answer half sent.
        watchdog = threading.Timer(min(timeout, threading.TIMEOUT_MAX), self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._connection.send((function, args))
            value, error = self._connection.recv()
        except (EOFError, OSError) as death:
            watchdog.cancel()
            is_late = time.monotonic() - began >= timeout
            self.stop()
            if is_late:
                raise TimeoutError(f"not done within {timeout:g} s") from death
            raise BrokenExecutor("the process was killed") from death
        finally:
            watchdog.cancel()
        if error is not None:
            raise error
        return value

    def _start(self) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        # Inherited: libraries with threads of their own shall neither oversubscribe the cores nor spin.
        os.environ.update(OMP_NUM_THREADS=str(self._threads), OMP_WAIT_POLICY="PASSIVE")
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """End the process. It leaves when its connection is closed, unless somebody has stopped it."""
        if self._process is not None:
            self._connection.close()
            self._process.join(self._grace)
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(connection: Connection) -> None:
    """What a worker's process does until its parent closes the connection, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    limit_memory()
    with suppress(EOFError, OSError):
        while True:
            function, args = connection.recv()
            try:
                answer = (function(*args), None)
            except Exception as error:  # noqa: BLE001  the parent raises it
                answer = (None, error)
            connection.send(answer)
