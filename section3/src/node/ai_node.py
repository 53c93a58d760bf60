"""The AI node: what arrives is claimed, worked on in worker processes, sent, and put away.

One thread watches and hands out work; each destination has a courier, a thread of its own, so that one which is down or
slow holds up nobody else. All of them meet in the queue alone, and so do several nodes with one database and folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from batches.engines import Engine, failure_of
from batches.study_worker import StudyTask
from common.send_outcome import SendOutcome
from node.claimed_study import LOST, ClaimedStudy, outputs_to_send, warm_up, work_on_claim
from node.incoming import UNIDENTIFIED, Incoming
from node.modules import Module
from node.study_queue import (
    SEND_PAUSES,
    WORK_PAUSES,
    Claim,
    ClaimLost,
    Delivery,
    Pauses,
    QueueError,
    StudyQueue,
)
from study.process_study import Send, folder_name
from study.setup import SetupFiles
from study.study_result import read_result

TICK = 0.2  # seconds between two looks at the folder
LEASE = 60  # seconds that a study of a node which was killed must wait; renewed at every tick
TIDY_PAUSE = 60  # seconds before input that could not be put away is tried again
FORGET_PAUSE = 3600  # seconds between two looks for input that was kept long enough

Tell = Callable[[str], None]


def print_line(line: str) -> None:
    with suppress(OSError):  # nobody reads any more: no reason to stop
        print(line, flush=True)


@dataclass(frozen=True)
class Settings:
    """How a node works. destinations: how to send, by name. keep_days: of input that went well; None: for ever."""

    database: Path
    output_dir: Path
    setup_files: SetupFiles
    setup_digest: str
    destinations: Mapping[str, Send] = field(default_factory=dict)
    modules: tuple[Module, ...] = ()
    keep_days: float | None = None
    lease: float = LEASE
    work_pauses: Pauses = WORK_PAUSES
    send_pauses: Pauses = SEND_PAUSES
    clock: Callable[[], float] = time.monotonic
    tell: Tell = print_line  # UIDs, states and codes, and no reasons: they may quote the name of a file

    def queue(self) -> StudyQueue:
        """One for each thread."""
        return StudyQueue(self.database, self.clock)

    def results_of(self, study_uid: str) -> Path:
        return self.output_dir / folder_name(None if study_uid == UNIDENTIFIED else study_uid)


class AiNode:
    """From the folder to `done`: serve() goes on until it is stopped, step() is one round of it."""

    def __init__(self, settings: Settings, incoming: Incoming, engine: Engine):
        self.settings, self.incoming, self.engine = settings, incoming, engine
        self.couriers = [Courier(settings, name) for name in settings.destinations]
        self._running: dict[Future, Claim] = {}
        self._awake = threading.Event()
        self._stop_asked = False
        self._renew_at = self._forget_at = 0.0
        self._stopping = threading.Event()
        self._troubles: dict[str, str] = {}  # told once, not at every step
        self._stepped = settings.clock()

    def stop(self) -> None:
        """Finish what is in work, and begin nothing new. No more than this, as handlers of signals may call it."""
        self._stop_asked = True

    def serve(self) -> None:
        """Work until stop() is called, and finish what is in work. Raises QueueError if it cannot even begin."""
        with self.settings.queue() as queue:
            setup_files, setup_digest = self.settings.setup_files, self.settings.setup_digest
            for _ in range(self.engine.workers):  # what goes wrong with it will go wrong with a study, and be told
                self.engine.executor.submit(warm_up, setup_files, setup_digest, self.engine.threads)
            threads = [threading.Thread(target=courier.serve, args=(self._stopping,)) for courier in self.couriers]
            for thread in threads:
                thread.start()
            try:
                while not self._stopping.is_set() or self._running or any(one.is_alive() for one in threads):
                    self.step(queue)
                    self._awake.wait(TICK)
                    self._awake.clear()
                    if self._stop_asked:
                        self._stopping.set()
            finally:
                self._stopping.set()
                self.incoming.stop()
                for thread in threads:
                    thread.join()

    def step(self, queue: StudyQueue) -> None:
        """Each part by itself: a folder that cannot be listed does not keep finished work from being told."""
        self._guarded("claims", self._renew, queue)
        self._guarded("results", self._collect, queue)
        if not self._stopping.is_set():
            self._guarded("incoming folder", self.incoming.watch, queue)
            self._guarded("work", self._hand_out, queue)
        self._guarded("finished input", self._tidy, queue)
        self._stepped = self.settings.clock()

    def idle_seconds(self) -> float:
        """Since the end of its last step."""
        return max(0.0, self.settings.clock() - self._stepped)

    def trouble(self) -> str | None:
        """What it cannot do now, in one line."""
        return next((f"trouble with the {trouble}" for trouble in list(self._troubles.values()) if trouble), None)

    def _guarded(self, name: str, part: Callable[[StudyQueue], None], queue: StudyQueue) -> None:
        trouble = ""
        try:
            part(queue)
        except QueueError as error:
            trouble = f"{name}: {error}"
        except Exception as error:  # noqa: BLE001  whatever one study brings about, the node goes on with the others
            trouble = f"{name}: {getattr(error, 'strerror', None) or type(error).__name__}"
        if trouble and self._troubles.get(name) != trouble:
            self.settings.tell(f"trouble with the {trouble}; it is tried again")
        self._troubles[name] = trouble

    def _renew(self, queue: StudyQueue) -> None:
        """Long before the claims end, and not at every step, as each time waits for the disk."""
        now = self.settings.clock()
        if now >= self._renew_at:
            tokens = [claim.token for claim in self._running.values()]
            tokens += [token for courier in self.couriers if (token := courier.token)]
            queue.renew(tokens, self.settings.lease)
            self._renew_at = now + self.settings.lease / 5

    def _collect(self, queue: StudyQueue) -> None:
        """What has become of the work that is over. What cannot be told now comes again when its lease ends."""
        for future in [one for one in self._running if one.done()]:
            claim = self._running.pop(future)
            try:
                state = future.result()
            except QueueError:
                state = LOST
            except Exception as error:  # noqa: BLE001  engines differ in what they raise
                stop = failure_of(error)
                try:
                    state = queue.postpone(claim, stop.code, stop.reason, self.settings.work_pauses)
                except ClaimLost:
                    state = LOST
            self.settings.tell(f"{claim.study_uid} round {claim.round}: {state}")
            for courier in self.couriers:
                courier.wake.set()

    def _hand_out(self, queue: StudyQueue) -> None:
        while len(self._running) < self.engine.workers:
            claim = queue.claim(self.settings.lease, self.settings.work_pauses)
            if claim is None:
                return
            future = self.engine.executor.submit(work_on_claim, self._claimed(claim))
            self._running[future] = claim
            future.add_done_callback(lambda _: self._awake.set())

    def _claimed(self, claim: Claim) -> ClaimedStudy:
        settings = self.settings
        task = StudyTask(
            study_uid=claim.study_uid,
            files=self.incoming.files_of(claim.study_uid, claim.files),
            output_dir=settings.results_of(claim.study_uid),
            setup_files=settings.setup_files,
            setup_digest=settings.setup_digest,
            threads=self.engine.threads,
        )
        names = tuple(settings.destinations)
        modules, pauses, clock = settings.modules, settings.work_pauses, settings.clock
        return ClaimedStudy(claim, task, settings.database, names, modules, pauses, clock)

    def _tidy(self, queue: StudyQueue) -> None:
        """Put away the input of what is finished; now and then, forget what was kept long enough."""
        for study_uid, files, well in queue.untidy():
            try:
                self.incoming.put_away(study_uid, files, well)
            except OSError:
                queue.tidied(study_uid, pause=TIDY_PAUSE)
                raise
            queue.tidied(study_uid)
        now = self.settings.clock()
        if self.settings.keep_days is not None and now >= self._forget_at:
            self._forget_at = now + FORGET_PAUSE
            self.incoming.forget(self.settings.keep_days)


class Courier:
    """Brings results to one destination, one study at a time; who failed waits, and the next one has its turn."""

    def __init__(self, settings: Settings, name: str):
        self.settings, self.name = settings, name
        self.wake = threading.Event()
        self.token: str | None = None  # of what is on its way now

    def serve(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            with suppress(QueueError), self.settings.queue() as queue:  # the node meets it too, and tells it
                while not stopping.is_set():
                    if not self.step(queue):
                        self.wake.wait(TICK)
                        self.wake.clear()
            stopping.wait(TICK)

    def step(self, queue: StudyQueue) -> bool:
        """Send what waits longest, if anything is due. Raises QueueError."""
        delivery = queue.claim_delivery(self.name, self.settings.lease)
        if delivery is None:
            return False
        self.token = delivery.token
        try:
            outcome = self._send(delivery)
            # Sent is only what was read back, whatever the archive says of itself.
            state = queue.delivered(delivery, outcome.stored is True, outcome.detail, self.settings.send_pauses)
        finally:
            self.token = None
        self.settings.tell(f"{delivery.study_uid} to {self.name}: {state or LOST}")
        return True

    def _send(self, delivery: Delivery) -> SendOutcome:
        folder = self.settings.results_of(delivery.study_uid)
        try:
            paths = [folder / row["file"] for row in outputs_to_send(read_result(folder), folder)]
            return self.settings.destinations[self.name](paths)
        except (OSError, ValueError, TypeError, LookupError) as error:
            return SendOutcome(False, f"the results cannot be read: {type(error).__name__}")
        except Exception as error:  # noqa: BLE001  one that errs must not end the courier
            return SendOutcome(False, f"a fault of this program: {type(error).__name__}")
