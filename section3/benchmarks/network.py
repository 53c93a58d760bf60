"""How fast the whole network is and what it costs: archive, router, listener and AI node, as their scripts start them.

    python network.py [--alone N] [--together N] [--quiet-seconds S]

Makes phantom studies as the real ones are (a HippoCrop series and four brain series, some 120 files). Sends `--alone`
of them one after the other, each once the one before is done, and tells the time from the last slice that the listener
wrote to the results read back from the archive, less the quiet time that the node waits by choice. Then sends
`--together` of them as fast as the archive takes them, and tells how many a minute arrive as results, what each piece
needs of the processors, and how much memory the node and its workers have on the way. Prints tables in Markdown.

It needs what `make hospital` needs, but for the viewer. All of it runs on this machine, the scanner too.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmark import BRAIN_SERIES, PHANTOM, SECTION, machine, positive, seconds_of

sys.path.insert(0, str(SECTION / "src"))

from node.study_queue import FINAL, StudyQueue

SCRIPTS = SECTION / "src" / "deploy_scripts"
PORTS = ("ARCHIVE_DICOM_PORT", "ARCHIVE_HTTP_PORT", "NODE_PORT", "SCANNER_PORT", "VIEWER_PORT")
PIECES = ("archive", "listener", "AI node")
LIMIT = 600  # seconds without anything new: then it has come to a halt
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Network:
    """The three pieces that run, on free ports, and what they wrote below `folder`."""

    folder: Path
    quiet: float
    pieces: dict[str, subprocess.Popen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            ports = {f"HIPPO_{name}": str(one.getsockname()[1]) for name, one in zip(PORTS, sockets, strict=True)}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HIPPO_")},
            **ports,
            "HIPPO_NETWORK_DIR": str(self.folder),
            "HIPPO_STABLE_SECONDS": "1",
        }
        self.database, self.incoming = self.folder / "node.sqlite", self.folder / "incoming"

    def start(self) -> None:
        self.incoming.mkdir(parents=True)
        self._start("listener", SCRIPTS / "start_listener.sh")
        self._start("archive", SCRIPTS / "launch_orthanc.sh")
        for name in ("listener", "archive"):
            self._wait(name, lambda log: " answers: " in log.read_text())
        folders = ["--incoming", self.incoming, "--output-dir", self.folder / "results", "--database", self.database]
        archive = ["--send-to-orthanc", "--orthanc-port", self.environment["HIPPO_ARCHIVE_DICOM_PORT"]]
        quiet = ["--quiet-seconds", self.quiet]
        self._start("AI node", sys.executable, SECTION / "src" / "ai_server.py", *folders, *archive, *quiet)
        self._wait("AI node", lambda _: self.database.exists())

    def _start(self, name: str, *command: object) -> None:
        with self._log(name).open("w") as log:
            self.pieces[name] = subprocess.Popen(
                [*map(str, command)], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _wait(self, name: str, ready: Callable[[Path], bool]) -> None:
        give_up = time.monotonic() + LIMIT
        while not ready(self._log(name)):
            if self.pieces[name].poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the {name} does not start:\n{self._log(name).read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        for piece in reversed(self.pieces.values()):
            piece.terminate()
        for piece in self.pieces.values():
            piece.wait()

    def states(self) -> dict[str, str]:
        """Of the studies that are finished, by their UID."""
        with StudyQueue(self.database) as queue:
            return {one["study_uid"]: one["state"] for one in queue.studies() if one["state"] in FINAL}

    def send(self, study: Path) -> None:
        """What a scanner does. Raises RuntimeError where the archive did not take it."""
        command = [str(SCRIPTS / "send_volume.sh"), str(study)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def wait_for(self, count: int, look: Callable[[], None] = lambda: None) -> None:
        """Until so many studies are finished; look() is called on the way. Raises RuntimeError at a halt."""
        known, news = -1, time.monotonic()
        while known < count:
            if (found := len(self.states())) != known:
                known, news = found, time.monotonic()
            if time.monotonic() > news + LIMIT:
                raise RuntimeError(f"{known} of {count} studies are finished, and nothing goes on")
            look()
            time.sleep(0.05)


@dataclass(frozen=True)
class Use:
    """Of a process and all below it."""

    processor: float  # seconds so far, with those of its children that have ended
    memory: float  # MB now


def uses_of(pids: list[int]) -> list[Use]:
    """Of each with all below it, as /proc has it now."""
    own, children = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = stat.read_text().rpartition(")")[2].split()
            pid, seconds, pages = int(stat.parent.name), sum(map(int, words[11:15])) / TICKS, int(words[21])
            own[pid] = Use(seconds, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            children.setdefault(int(words[1]), []).append(pid)

    def whole(pid: int) -> Use:
        all_of_it = [own.get(pid, Use(0, 0)), *map(whole, children.get(pid, []))]
        return Use(sum(one.processor for one in all_of_it), sum(one.memory for one in all_of_it))

    return [whole(pid) for pid in pids]


def alone(network: Network, studies: list[Path]) -> list[float]:
    """Seconds from the last slice that the listener wrote to the results read back, less the quiet time; for each."""
    seconds = []
    for number, study in enumerate(studies, start=1):
        network.send(study)
        network.wait_for(number)
        told = time.time()
        last = max(path.stat().st_mtime for path in network.incoming.rglob("*.dcm"))
        seconds.append(told - last - network.quiet)
    return seconds


@dataclass(frozen=True)
class Together:
    """What many studies took."""

    sent: float  # seconds until the archive had them
    finished: float  # seconds until all results were read back
    processor: dict[str, float]  # seconds by piece
    memory: list[tuple[int, float, float]]  # studies finished; MB of the node itself, MB with its workers


def together(network: Network, studies: list[Path], before: int) -> Together:
    """Sends all, and waits for them; `before` were finished already."""
    memory: list[tuple[int, float, float]] = []
    pids = [network.pieces[name].pid for name in PIECES]
    portion = max(1, len(studies) // 8)

    def look() -> None:
        finished = len(network.states()) - before
        if finished // portion >= len(memory):
            node = network.pieces["AI node"].pid
            own = int(Path(f"/proc/{node}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
            memory.append((finished, own, uses_of([node])[0].memory))

    def send_all() -> float:
        for study in studies:
            network.send(study)
        return time.perf_counter() - begin

    begin, used = time.perf_counter(), uses_of(pids)
    with ThreadPoolExecutor(1) as scanner:
        sending = scanner.submit(send_all)
        network.wait_for(before + len(studies), look)
        finished = time.perf_counter() - begin
    used_since = [now.processor - then.processor for now, then in zip(uses_of(pids), used, strict=True)]
    return Together(sending.result(), finished, dict(zip(PIECES, used_since, strict=True)), memory)


def print_tables(seconds: list[float], work: list[float], count: int, took: Together) -> None:
    print("\n| from the last slice to the results read back, quiet time apart | s |\n|---|---|")
    for name, values in (
        (f"least / median / most of {len(seconds)}", seconds),
        ("of these, the work on the study", work),
    ):
        print(f"| {name} | {min(values):.2f} / {median(values):.2f} / {max(values):.2f} |")
    print(f"\n| {count} studies together | |\n|---|---|")
    print(f"| the archive had them after | {took.sent:.0f} s |")
    print(f"| all results were read back after | {took.finished:.0f} s |")
    print(f"| studies per minute | {60 * count / took.finished:.0f} |")
    for name, processor in took.processor.items():
        print(f"| processor seconds a study, {name} | {processor / count:.2f} |")
    print("\n| studies finished | node, MB | with its workers, MB |\n|---|---|---|")
    for finished, own, whole in took.memory:
        print(f"| {finished} | {own:.0f} | {whole:.0f} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="How fast the whole network is, and what it costs.")
    parser.add_argument("--alone", type=positive, default=10, metavar="N", help="one after the other (%(default)s)")
    parser.add_argument("--together", type=positive, default=200, metavar="N", help="as fast as may be (%(default)s)")
    parser.add_argument("--quiet-seconds", type=float, default=1, metavar="S", help="of the node (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        root, count = Path(name) / "studies", args.alone + args.together
        options = ["--out", root, "--count", count, "--brain-series", BRAIN_SERIES]
        subprocess.run([sys.executable, PHANTOM, "dicom", *map(str, options)], check=True, stdout=subprocess.DEVNULL)
        studies = sorted(root.iterdir())
        network = Network(Path(name) / "network", args.quiet_seconds)
        try:
            network.start()
            seconds = alone(network, studies[: args.alone])
            work = [sum(steps.values()) for steps in seconds_of(network.folder / "results")]
            took = together(network, studies[args.alone :], args.alone)
            states = Counter(network.states().values())
        finally:
            network.stop()
    print_tables(seconds, work, args.together, took)
    print(f"\nHow they ended: {', '.join(f'{count} {state}' for state, count in states.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
