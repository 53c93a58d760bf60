"""A model that learns from corrections: jobs that train a candidate, and whoever asks how they go.

A job is a folder of the store with job.json in it. It is done by a process of its own (corrections.py train), which
lives on when the service ends: whoever asks looks at the folder and at the process, and keeps nothing in memory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.refusal import Failure, Refusal
from common.whole_files import write_json, write_text
from teaching.image_store import ImageStore
from teaching.training_pairs import corrected

ROOT = Path(__file__).resolve().parents[3]
SECTION2 = ROOT / "section2"
LEAST_PERSONS = 5
EPOCHS = 4
MOST_EPOCHS = 200
RUNNING, DONE, ERROR, STOPPED = "RUNNING", "DONE", "ERROR", "STOPPED"
JOB, LOG = "job.json", "log.txt"
WEIGHTS = "best.pt"  # beside the model of a run: what training goes on from
LINES = 20
NICE = 10
EPOCH = re.compile(r"epoch (\d+)/(\d+)")


class AlreadyRunning(Exception):
    """Another training runs."""


@dataclass(frozen=True)
class Learning:
    """What jobs need: the program that does one, the model to go on from, and the pairs that it was trained on.

    parent: a model.onnx with the weights of its run beside it. old_data: with images/ and labels/, None for none.
    """

    store: ImageStore
    program: Path
    parent: Path
    old_data: Path | None = None

    @property
    def folder(self) -> Path:
        return self.store.folder / "training"

    def jobs(self) -> list[Path]:
        """The oldest first."""
        return sorted((path.parent for path in self.folder.glob(f"*/{JOB}")), key=lambda path: int(path.name))

    def task(self, job: Path) -> dict:
        """As viewers know one: its status and the last lines that it said."""
        told = read_job(job)
        if told["status"] == RUNNING and not _lives(told.get("pid"), job):
            told = finish(job, ERROR)
        return {**told, "details": _last_lines(job) or [told["status"]]}

    def latest(self) -> dict | None:
        jobs = self.jobs()
        return self.task(jobs[-1]) if jobs else None

    def running(self) -> dict | None:
        latest = self.latest()
        return latest if latest and latest["status"] == RUNNING else None

    def start(self, request: dict) -> dict:
        """Begin a job. Raises Refusal, AlreadyRunning; Failure: cannot-write."""
        if self.running():
            raise AlreadyRunning
        epochs = request.get("epochs", EPOCHS)
        if isinstance(epochs, bool) or not isinstance(epochs, int) or not 1 <= epochs <= MOST_EPOCHS:
            raise Refusal("too-little-to-learn", f"epochs must be a number from 1 to {MOST_EPOCHS}")
        self.require_enough()
        try:
            return self.task(self._begin(request, epochs))
        except FileExistsError as error:  # two at once
            raise AlreadyRunning from error
        except OSError as error:
            raise Failure("cannot-write", f"the store cannot be written: {error.strerror}") from error

    def _begin(self, request: dict, epochs: int) -> Path:
        """The folder of a job that has begun. Raises FileExistsError, where another took its number; OSError."""
        job = self.new_folder()
        write_json(job / JOB, {"id": job.name, "status": RUNNING, "request": request, "start_ts": _now(), "pid": None})
        with (job / LOG).open("ab") as log:
            process = subprocess.Popen(
                ["nice", "-n", str(NICE), *self.command(job), "--epochs", str(epochs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        told = read_job(job)
        if told["status"] == RUNNING:
            write_json(job / JOB, {**told, "pid": process.pid})
        return job

    def new_folder(self) -> Path:
        """Of the next job, which is none before its job.json is written. Raises FileExistsError, as said; OSError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        taken = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        job = self.folder / str(1 + max(taken, default=0))
        job.mkdir(mode=0o700)
        return job

    def adopt(self, job: Path, candidate: Path, found: dict) -> None:
        """Write down a job that was done elsewhere. Raises OSError."""
        write_text(job / LOG, "trained elsewhere\n")
        told = {"id": job.name, "status": DONE, "request": {}, "start_ts": _now(), "end_ts": _now()}
        write_json(job / JOB, {**told, "candidate": os.fspath(candidate), **found})

    def command(self, job: Path) -> list[str]:
        old = ["--old-data", os.fspath(self.old_data)] if self.old_data else []
        store = ["--store", os.fspath(self.store.folder)]
        return [
            sys.executable,
            os.fspath(self.program),
            "train",
            job.name,
            *store,
            "--parent",
            os.fspath(self.parent),
            *old,
        ]

    def require_enough(self) -> None:
        """Raises Refusal: too-little-to-learn."""
        training_python()
        require_weights(self.parent)
        persons = {image.person for image, _ in corrected(self.store) if not image.is_held_out}
        if len(persons) < LEAST_PERSONS:
            raise Refusal(
                "too-little-to-learn",
                f"corrections of {len(persons)} persons can be learned from, and at least {LEAST_PERSONS} are needed "
                "(one person of five is kept to test on)",
            )

    def stop(self) -> dict | None:
        """End what runs; the job as it is then, None where none ran."""
        running = self.running()
        if running is None:
            return None
        job = self.folder / running["id"]
        finish(job, STOPPED)
        with suppress(ProcessLookupError, TypeError):
            os.killpg(running["pid"], signal.SIGTERM)
        return self.task(job)

    def log(self, lines: int) -> str:
        """What the latest job said last."""
        jobs = self.jobs()
        return "\n".join(_last_lines(jobs[-1], lines)) if jobs else "there was no training yet"

    def progress(self) -> dict:
        """Of the latest job, as viewers show it."""
        latest = self.latest()
        if latest is None:
            return {}
        found = EPOCH.findall((self.folder / latest["id"] / LOG).read_text(errors="replace"))
        epoch, total = map(int, found[-1]) if found else (0, 0)
        return {"epoch": epoch, "total_epochs": total, "best_metric": latest.get("dice_after") or 0.0}


def require_weights(model: Path) -> None:
    """Raises Refusal: too-little-to-learn."""
    if not model.with_name(WEIGHTS).is_file():
        raise Refusal("too-little-to-learn", f"the model has no {WEIGHTS} beside it: name the model of a run")


def training_python() -> Path:
    """A Python with torch: this one, or that of the environment for section 2. Raises Refusal: too-little-to-learn."""
    if importlib.util.find_spec("torch"):
        return Path(sys.executable)
    beside = ROOT / ".venv" / "bin" / "python"
    if (ROOT / ".venv" / "ready").is_file():
        return beside
    raise Refusal("too-little-to-learn", f"training needs torch: run `make .venv/ready` in {ROOT.name}/")


def read_job(job: Path) -> dict:
    return json.loads((job / JOB).read_text())


def finish(job: Path, status: str, **found: object) -> dict:
    """Write down how a job ended, unless that was done before."""
    told = read_job(job)
    if told["status"] == RUNNING:
        told |= {"status": status, "end_ts": _now(), **found}
        write_json(job / JOB, told)
    return told


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _lives(pid: int | None, job: Path) -> bool:
    """Whether it is still that job's process; None: it is just being started."""
    if pid is None:
        return time.time() - (job / JOB).stat().st_mtime < 10
    try:
        words: Sequence[bytes] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    # For a moment, while one program takes the place of another, there are no words.
    return state != "Z" and (not any(words) or (b"train" in words and job.name.encode() in words))


def _last_lines(job: Path, lines: int = LINES) -> list[str]:
    try:
        return (job / LOG).read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
