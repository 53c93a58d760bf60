"""How a process begins that measures: the program for one study, and each worker of a batch."""

import gc
import resource

MEMORY = 1 << 30  # bytes; a study takes 0.3 GiB, a hostile one as much as it gets


def limit_memory() -> None:
    """Beyond MEMORY Python raises MemoryError, instead of the machine coming to a stop."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > MEMORY:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, most))


def start_program() -> None:
    """Of a program that measures one study: within limits, and without a search for garbage of which it makes little.

    To walk all that the imports have made, again and again, takes a tenth of the time of a study.
    """
    limit_memory()
    gc.disable()
