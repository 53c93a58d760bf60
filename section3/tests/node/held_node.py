"""A node that stops in a given state, for tests that kill it there. It prints "held PID" when it is so far.

    python held_node.py FOLDER MODEL STATE

A module of its own, as its worker processes must be able to import it.
"""

import os
import shutil
import sys
import threading
from functools import partial
from pathlib import Path

from batches.engines import local_engine
from choosing.series_rules import load_rules
from common.send_outcome import SendOutcome
from node import ai_node
from node.ai_node import AiNode, Settings
from node.claimed_study import ClaimedStudy, _end_with_node, work_on_claim
from node.incoming import Incoming
from node.study_queue import Pauses, StudyQueue
from study.setup import SetupFiles


def hold(folder: Path, at: str, state: str) -> None:
    """Wait here for whoever kills this process, if this is the state and nobody was held before."""
    if state == at and not (folder / "held").exists():
        (folder / "held").touch()
        print(f"held {os.getpid()}", flush=True)
        threading.Event().wait(1200)


def work_and_hold(folder: Path, at: str, one: ClaimedStudy) -> str:
    enter, reported = StudyQueue.enter, StudyQueue.reported

    def enter_and_hold(queue, claim, state):
        enter(queue, claim, state)
        hold(folder, at, state)

    def hold_and_report(*arguments):
        hold(folder, at, "written")
        return reported(*arguments)

    StudyQueue.enter, StudyQueue.reported = enter_and_hold, hold_and_report
    _end_with_node()
    try:
        hold(folder, at, "validating")
        return work_on_claim(one)
    finally:
        StudyQueue.enter, StudyQueue.reported = enter, reported


def store(folder: Path, at: str, paths: list[Path]) -> SendOutcome:
    """An archive that is a folder."""
    (folder / "archive").mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        shutil.copy(path, folder / "archive")
        if number == 1:
            hold(folder, at, "sending")
    return SendOutcome(True, "copied", True)


def main(folder: Path, model: Path, at: str) -> None:
    setup_files = SetupFiles(model, load_rules())
    put_away = Incoming.put_away

    def hold_and_put_away(*arguments):
        hold(folder, at, "done")
        put_away(*arguments)

    Incoming.put_away = hold_and_put_away
    ai_node.work_on_claim = partial(work_and_hold, folder, at)
    settings = Settings(
        database=folder / "queue.sqlite3",
        output_dir=folder / "out",
        setup_files=setup_files,
        setup_digest=setup_files.load().digest,
        destinations={"archive": partial(store, folder, at)},
        work_pauses=Pauses(0.1, 1, 1, 3),
    )
    engine = local_engine("processes", 1, 1200)
    with engine.executor:
        AiNode(settings, Incoming(folder / "incoming", 0, 900), engine).serve()


if __name__ == "__main__":
    import held_node  # under the name by which the workers know it

    held_node.main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
