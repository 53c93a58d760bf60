"""What the tests of the node share: a clock that they turn themselves, and a node whose every step they make."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batches.engines import Engine, SerialExecutor
from checks.quality_limits import Limits, Range
from choosing.series_rules import load_rules
from common.send_outcome import SendOutcome
from common.shipped import DEFAULT_MODEL
from node.ai_node import AiNode, Settings
from node.incoming import Incoming
from node.study_queue import Pauses, StudyQueue
from study.setup import SetupFiles

QUIET, LONGEST, LEASE = 30, 900, 60


class Clock:
    """Monotonic seconds; they pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Destination:
    """An archive that is up or down, and proves what it stored, or does not."""

    up: bool = True
    proves: bool | None = True
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: int = 0

    def __call__(self, paths: list[Path]) -> SendOutcome:
        self.asked += 1
        if not self.up:
            return SendOutcome(False, "connection refused")
        self.stored.update({path.name: path.read_bytes() for path in paths})
        return SendOutcome(True, "confirmed", self.proves)


@dataclass
class Bench:
    """A node with its folder, queue and destinations, in this process."""

    folder: Path
    clock: Clock
    settings: Settings
    queue: StudyQueue
    node: AiNode
    told: list[str]

    @property
    def incoming(self) -> Path:
        return self.node.incoming.folder

    def step(self, times: int = 1) -> None:
        """The node looks, works and puts away; each courier sends what is due."""
        for _ in range(times):
            self.node.step(self.queue)
            for courier in self.node.couriers:
                while courier.step(self.queue):
                    pass

    def settle(self) -> None:
        """Until what is there is quiet, worked on, sent and put away."""
        self.step()
        self.clock.wait(QUIET)
        self.step(4)

    def state(self, study_uid: str) -> str | None:
        return next((one["state"] for one in self.queue.studies() if one["study_uid"] == study_uid), None)

    def row(self, study_uid: str) -> dict:
        return next(one for one in self.queue.studies() if one["study_uid"] == study_uid)


def save_open_limits(folder: Path) -> None:
    """Limits beside the model by which everything passes."""
    anything = Range((-1e9, 1e9), (-1e9, 1e9), "none")
    limits = Limits.load(DEFAULT_MODEL.parent)
    model_sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    ranges = dict.fromkeys(limits.ranges, anything)
    dataclasses.replace(limits, ranges=ranges, model_sha256=model_sha256).save(folder)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def open_setup_files(tmp_path_factory, save_threshold_model, card) -> SetupFiles:
    """A model, with limits beside it that let everything pass."""
    folder = tmp_path_factory.mktemp("open_model")
    save_threshold_model(folder / "model.onnx", card)
    save_open_limits(folder)
    return SetupFiles(folder / "model.onnx", load_rules())


@pytest.fixture
def make_bench(tmp_path, clock, open_setup_files) -> Callable[..., Bench]:
    """make_bench(destinations): nodes made with it share folder, database and clock."""

    def make(destinations: dict[str, Destination] | None = None, **changes: object) -> Bench:
        (tmp_path / "incoming").mkdir(exist_ok=True)
        told: list[str] = []
        settings = Settings(
            database=tmp_path / "queue.sqlite3",
            output_dir=tmp_path / "out",
            setup_files=open_setup_files,
            setup_digest=open_setup_files.load().digest,
            destinations=destinations or {},
            lease=LEASE,
            work_pauses=Pauses(5, 2, 100, 3),
            send_pauses=Pauses(5, 2, 100, 4),
            clock=clock,
            tell=told.append,
        )
        settings = dataclasses.replace(settings, **changes)
        incoming = Incoming(tmp_path / "incoming", QUIET, LONGEST, clock)
        node = AiNode(settings, incoming, Engine(SerialExecutor(), 1, 1))
        return Bench(tmp_path, clock, settings, settings.queue(), node, told)

    return make


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench()


@pytest.fixture
def archive() -> Destination:
    return Destination()
