"""Where calls are carried out, behind one interface: concurrent.futures.Executor.

engine     calls run                          at a time      a limit on time and memory, dead workers survived
---------  ---------------------------------  -------------  -------------------------------------------------
serial     in this thread, for debuggers      one            no
threads    in threads of this process         max_workers    no
processes  in processes of their own          max_workers    yes
dask       in the workers of a Dask cluster   its workers    no limit on memory; the rest with nannies, as is usual

A Dask cluster runs what its scheduler is sent and sends it unencrypted: keep it in a network that you trust.
"""

import faulthandler
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import LifoQueue
from typing import Any

from refusal import Refusal

LOCAL_ENGINES = ("processes", "threads", "serial")
ATTEMPTS = 2  # a worker may have died of what other programs did to the machine, so its call gets a second chance
WORKER_MEMORY = 1 << 30  # bytes; a study takes 0.3 of them, a hostile one as many as it gets
CONNECT_TIMEOUT = 10  # seconds

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


def dask_engine(address: str, timeout: float) -> Engine:
    """The cluster of the Dask scheduler at `address` (tcp://host:port). Raises Refusal: no-scheduler."""
    executor = DaskExecutor(address, timeout)
    return Engine(executor, executor.workers, threads=1)


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
    seconds is ended with its process and fails with TimeoutError.
    """

    def __init__(self, max_workers: int, threads: int, timeout: float):
        self._timeout = timeout
        self._callers = ThreadPoolExecutor(max_workers)
        self._workers = [_Worker(threads) for _ in range(max_workers)]
        self._idle: LifoQueue[_Worker] = LifoQueue()  # last in, first out: no process is started that is not needed
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, function: Callable, /, *args: Any) -> Future:
        return self._callers.submit(self._call, function, args)

    def _call(self, function: Callable, args: tuple) -> Any:
        worker = self._idle.get()
        try:
            for _ in range(ATTEMPTS - 1):
                try:
                    return worker.call(function, args, self._timeout)
                except BrokenExecutor:
                    pass
            return worker.call(function, args, self._timeout)
        finally:
            self._idle.put(worker)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._callers.shutdown(wait, cancel_futures=cancel_futures)
        for worker in self._workers:
            worker.stop()


class _Worker:
    """A process for one call at a time: started with the first one, and again after its death."""

    def __init__(self, threads: int):
        self._threads = threads
        self._process = None

    def call(self, function: Callable, args: tuple, timeout: float) -> Any:
        if self._process is None:
            self._start()
        try:
            self._connection.send((function, args))
            if not self._connection.poll(timeout):
                raise TimeoutError(f"not done within {timeout:g} s")
            value, error = self._connection.recv()
        except (TimeoutError, EOFError, ConnectionError) as death:
            self._process.kill()
            self.stop()
            if isinstance(death, TimeoutError):
                raise
            raise BrokenExecutor("the process was killed") from death
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
        if self._process is not None:
            self._connection.close()
            self._process.join()
            self._process = None


def _serve(connection: Connection) -> None:
    """What a worker's process does until its parent closes the connection, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > WORKER_MEMORY:
        resource.setrlimit(resource.RLIMIT_DATA, (WORKER_MEMORY, most))  # beyond it Python raises MemoryError
    while True:
        try:
            function, args = connection.recv()
        except EOFError:
            return
        try:
            answer = (function(*args), None)
        except Exception as error:  # noqa: BLE001  the parent raises it
            answer = (None, error)
        connection.send(answer)


class DaskExecutor(Executor):
    """Carries out calls in a Dask cluster whose workers have this code on their path and the same files in their reach.

    What takes longer than `timeout` seconds ends its worker, for which its nanny starts another. The scheduler gives
    the call of a dead worker to others, as often as its setting `allowed-failures` says.
    """

    def __init__(self, address: str, timeout: float):
        try:
            from distributed import Client
        except ImportError as error:
            raise Refusal("no-scheduler", "Dask is not installed: pip install distributed") from error
        try:
            self._client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Refusal("no-scheduler", f"no Dask scheduler answers at {address}") from error
        threads = self._client.nthreads().values()
        self.workers = len(threads)
        if set(threads) != {1}:
            self._client.close()
            found = f"{self.workers} workers with {sum(threads)} threads"
            raise Refusal("no-scheduler", f"{address} has {found}, expected workers started with --nthreads 1")
        self._timeout = timeout
        self._executor = self._client.get_executor(pure=False)  # pure: the same call would not be carried out again

    def submit(self, function: Callable, /, *args: Any) -> Future:
        return self._executor.submit(_within, self._timeout, function, *args)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait)
        self._client.close()


def _within(timeout: float, function: Callable, *args: Any) -> Any:
    """function(*args), or the end of the process: a watchdog that waits for no lock of Python ends it."""
    faulthandler.dump_traceback_later(timeout, exit=True)
    try:
        return function(*args)
    finally:
        faulthandler.cancel_dump_traceback_later()
