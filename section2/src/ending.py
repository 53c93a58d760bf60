"""How a program ends: with exit code 0, or with one line on stderr and the code that says why."""

import sys
from collections.abc import Callable


def told(work: Callable[[], int | None], stopped: str = "stopped") -> int:
    """Does the work; its exit code, 1 where it failed, 130 where it was stopped. stopped: what is said then."""
    try:
        return work() or 0
    except (ValueError, OSError) as error:  # a DataError is a ValueError
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
