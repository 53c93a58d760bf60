"""How long each step of a study took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """seconds: by the name of the step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note the seconds that the block takes, also when it is left by an exception."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0) + time.perf_counter() - start, 3)
