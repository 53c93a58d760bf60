"""Asks an archive how much it holds of a study, in a thread of its own: one that is slow or down holds up nobody."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

Ask = Callable[[str], int]  # how many instances there are of the study with that UID; may raise anything


class Asking:
    """One question for each pause in what arrives. Without `ask` nobody is asked."""

    def __init__(self, ask: Ask | None):
        self._ask = ask
        self._thread = ThreadPoolExecutor(1)
        self._questions: dict[str, tuple[float, Future]] = {}  # by study; with the beginning of the pause

    def holds_no_more(self, study_uid: str, pause: float, come: int) -> bool:
        """Whether the archive said, after the pause began at that time, that no more than has come is there.

        One that does not know the study says nothing about it.
        """
        if self._ask is None:
            return False
        asked_for, answer = self._questions.get(study_uid, (None, None))
        if asked_for != pause:
            answer = self._thread.submit(self._ask, study_uid)
            self._questions[study_uid] = (pause, answer)
        return answer.done() and answer.exception() is None and 0 < answer.result() <= come

    def forget_all_but(self, study_uids: Collection[str]) -> None:
        self._questions = {uid: one for uid, one in self._questions.items() if uid in study_uids}

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
