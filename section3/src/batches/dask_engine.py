"""Calls in the workers of a Dask cluster.

A cluster runs what its scheduler is sent and sends it unencrypted: keep it in a network that you trust. It limits no
memory; what else engines.py says of processes holds where workers have nannies, as is usual.
"""

import faulthandler
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from batches.engines import Engine
from common.refusal import Failure

CONNECT_TIMEOUT = 10  # seconds


def dask_engine(address: str, timeout: float) -> Engine:
    """The cluster of the Dask scheduler at `address` (tcp://host:port). Raises Failure: no-scheduler."""
    executor = DaskExecutor(address, timeout)
    return Engine(executor, executor.workers, threads=1)


class DaskExecutor(Executor):
    """Carries out calls in a Dask cluster whose workers have this code on their path and the same files in their reach.

    What takes longer than `timeout` seconds ends its worker, for which its nanny starts another. The scheduler gives
    the call of a dead worker to others, as often as its setting `allowed-failures` says.
    """

    def __init__(self, address: str, timeout: float):
        try:
            from distributed import Client
        except ImportError as error:
            raise Failure("no-scheduler", "Dask is not installed: pip install distributed") from error
        try:
            self._client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Failure("no-scheduler", f"no Dask scheduler answers at {address}") from error
        threads = self._client.nthreads().values()
        self.workers = len(threads)
        if set(threads) != {1}:
            self._client.close()
            found = f"{self.workers} workers with {sum(threads)} threads"
            raise Failure("no-scheduler", f"{address} has {found}, expected workers started with --nthreads 1")
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
