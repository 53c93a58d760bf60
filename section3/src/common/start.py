"""How a program that measures begins, and each of its workers: how many, and within which limits."""

import argparse
import ctypes
import gc
import resource
from contextlib import suppress

M_TRIM_THRESHOLD = -1  # of mallopt, as malloc.h has it
MEMORY = 1 << 30  # bytes; a study takes 0.3 GiB, a hostile one as much as it gets


def limit_memory() -> None:
    """Beyond MEMORY Python raises MemoryError, instead of the machine coming to a stop."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > MEMORY:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, most))


def give_memory_back() -> None:
    """Of a program that goes on for days: what large arrays took goes back to the machine when they are gone.

    Else the C library learns from their sizes to keep it, and the memory of several threads falls to pieces: 384 MB in
    place of 207 after 200 images of the service for viewers.
    """
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 1 << 16)


def start_program() -> None:
    """Of a program that measures one study: within limits, and without a search for garbage of which it makes little.

    To walk all that the imports have made, again and again, takes a tenth of the time of a study.
    """
    limit_memory()
    gc.disable()


def positive(text: str) -> int:
    """A whole number above 0, of an option. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)
