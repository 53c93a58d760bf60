"""What the tests have engines do. A module of its own, as processes and clusters must be able to import it."""

import gc
import os
import signal
import struct
import threading
from multiprocessing.connection import Connection
from pathlib import Path


def square(number: int) -> int:
    if number < 0:
        raise ArithmeticError(number)
    return number * number


def die(*_: object) -> None:
    os._exit(1)


def die_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        die()
    return "alive"


def swell(size: int) -> int:
    return len(bytearray(size))


def take_long() -> None:
    """As good as no end, for whoever waits 600 s at most."""
    threading.Event().wait(1200)


def say_and_wait(fifo: Path) -> str:
    """Print a line when `fifo` is open, end when all that write to it have closed it."""
    with fifo.open() as file:
        print("at work", flush=True)
        return file.read()


def stop_half_way_through_the_answer() -> None:
    _half_an_answer()
    os.kill(os.getpid(), signal.SIGSTOP)


def die_half_way_through_the_answer() -> None:
    _half_an_answer()
    die()


def _half_an_answer() -> None:
    """The length of an answer, and less of it."""
    (connection,) = (one for one in gc.get_objects() if isinstance(one, Connection) and not one.closed)
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"half")
