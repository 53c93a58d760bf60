"""One claimed study, in a worker process: where it stands is told to the queue before each step, and what came of it.

Whoever is killed meanwhile leaves a claim that ends and an output folder as study/output_folder.py promises; the next
one begins again, or finds that the result was whole. A claim that was lost ends the work before anything is written.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from batches.study_worker import StudyTask, load_setup, proven_result
from common.refusal import FAILED as FAILED_STATUS
from common.refusal import REFUSED, Failure, Stop
from common.verdicts import WARN
from node.incoming import UNIDENTIFIED
from node.modules import Module, outputs_of_modules, run_modules
from node.study_queue import (
    DONE,
    INFERRING,
    LOADING,
    REPORTING,
    WARNING,
    WORK_PAUSES,
    Claim,
    ClaimLost,
    Pauses,
    Report,
    StudyQueue,
)
from reading.dicom_series import read_study
from study.process_study import process_single_study
from study.setup import SetupFiles
from study.study_result import StudyResult

LOST = "lost"  # in place of a state: another works on the study now


@dataclass(frozen=True)
class ClaimedStudy:
    """All that a worker needs to know. destinations: where its results are to go, by name."""

    claim: Claim
    task: StudyTask
    database: Path
    destinations: tuple[str, ...] = ()
    modules: tuple[Module, ...] = ()
    pauses: Pauses = WORK_PAUSES
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class _ToldAgent:
    """An agent that says so when it is asked to infer."""

    agent: Any
    tell: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.agent, name)

    def single_volume_inference(self, volume: Any) -> Any:
        self.tell()
        return self.agent.single_volume_inference(volume)


@functools.cache  # once in a process
def _end_with_node() -> None:
    """In a worker process: end when its node does, at once, as its claim ends and another begins anew.

    Else it would go on, not find the files that the other has put away, and write that down in place of the results.
    """

    def wait(node: BaseProcess) -> None:
        node.join()
        os._exit(1)

    if node := multiprocessing.parent_process():
        threading.Thread(target=wait, args=(node,), daemon=True).start()


def warm_up(setup_files: SetupFiles, digest: str, threads: int) -> None:
    """Load in this process what takes a second, so that the first study need not wait. Raises Failure: bad-model."""
    import highdicom  # noqa: F401

    load_setup(setup_files, digest, threads)


def work_on_claim(one: ClaimedStudy) -> str:
    """Work on it and tell the queue; the state that it is in now. Raises QueueError."""
    _end_with_node()
    with StudyQueue(one.database, one.clock) as queue:
        try:
            return _conclude(_work(one, queue), one, queue)
        except ClaimLost:
            return LOST


def _work(one: ClaimedStudy, queue: StudyQueue) -> StudyResult:
    """The result, an earlier one where the same instances came again. Raises ClaimLost."""
    task = one.task
    if not task.files:
        return StudyResult().stopped(Failure("cannot-read", "nothing is left of what came of the study"))
    if earlier := proven_result(task, newer=False):
        return earlier
    enter = partial(queue.enter, one.claim)
    enter(LOADING)
    try:
        setup = load_setup(task.setup_files, task.setup_digest, task.threads)
    except Stop as stop:
        return StudyResult().stopped(stop)
    told_once = functools.cache(partial(enter, INFERRING))
    setup = replace(setup, agent=_ToldAgent(setup.agent, told_once))
    return process_single_study(task.files, setup, task.output_dir, before_writing=partial(enter, REPORTING))


def _conclude(result: StudyResult, one: ClaimedStudy, queue: StudyQueue) -> str:
    """Tell the queue what came of it. Raises ClaimLost, QueueError."""
    if result.status == FAILED_STATUS and result.again:
        return queue.postpone(one.claim, result.code, result.reason, one.pauses)
    if result.status == FAILED_STATUS or one.claim.study_uid == UNIDENTIFIED:
        return queue.set_aside(one.claim, result.code or "no-dicom", result.reason)
    report = _report(result, one.task.output_dir, _troubles(one))
    return queue.reported(one.claim, report, one.destinations if report.content else ())


def _troubles(one: ClaimedStudy) -> list[str]:
    """What went wrong with the other modules, after they have worked on the study. None of them keeps our results."""
    if not one.modules:
        return []
    try:
        return run_modules(one.modules, read_study(one.task.files), one.task.output_dir)
    except (Stop, OSError) as error:
        return [f"no module could work: {error.code if isinstance(error, Stop) else error.strerror}"]


def _report(result: StudyResult, folder: Path, troubles: list[str]) -> Report:
    code, reason = result.code, result.reason or _doubts(result)
    content = _digest(outputs_to_send(result, folder))
    if not troubles:
        return Report(_outcome(result), code, reason, content)
    return Report(WARNING, code or "helper-failed", "; ".join(filter(None, [reason, *troubles])), content)


def _outcome(result: StudyResult) -> str:
    """A person should look at a doubtful number and at a refusal, not at each study that was not meant for us."""
    if result.status == REFUSED:
        return DONE if result.code == "no-hippocrop-series" else WARNING
    return WARNING if result.quality_verdict == WARN else DONE


def _doubts(result: StudyResult) -> str | None:
    """The checks that call for a second look, by name."""
    names = ", ".join(check["name"] for check in result.quality if check["verdict"] == WARN)
    return f"look twice: {names}" if names else None


def outputs_to_send(result: StudyResult, folder: Path) -> list[dict]:
    """The rows of what goes to the destinations, ours and the modules'. Raises OSError, ValueError, LookupError."""
    return result.outputs_to_send + outputs_of_modules(folder)


def _digest(rows: list[dict]) -> str:
    """A digest of what is to be sent, empty where that is nothing."""
    parts = sorted((row["sop_instance_uid"], row["sha256"]) for row in rows)
    return hashlib.sha256(repr(parts).encode()).hexdigest() if parts else ""
