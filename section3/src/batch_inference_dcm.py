"""Measure the hippocampus in many DICOM studies.

    python batch_inference_dcm.py [ROOT] [--output-dir DIR] [--max-workers N] [--save-summary [FILE]]

Every study with files in or below ROOT is worked on, whatever its files and folders are called. The results of each go
to DIR/<StudyInstanceUID>/ as inference_dcm.py writes them. Without ROOT: TestVolumes of $HIPPO_DATA, or of data/.

Exit code 0: all studies succeeded. 1: any was refused or failed, or there was none. 2: usage. Research use only.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue

from archive import SendOutcome
from dicom_series import study_uid_of
from inference_dcm import (
    DEFAULT_OUTPUT,
    StudyResult,
    add_common_options,
    folder_name,
    process_single_study,
    sender,
    validate_study_directory,
    write_json,
    write_result,
)
from refusal import Refusal
from unet_inference_agent import UNetInferenceAgent

REPOSITORY = Path(__file__).resolve().parents[2]
UNKNOWN_STUDY = ""

Send = Callable[[list[Path]], SendOutcome] | None


@dataclass
class BatchProcessingStats:
    """What has become of the studies so far."""

    total: int
    workers: int
    results: list[StudyResult] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @property
    def succeeded(self) -> int:
        return sum(result.status == "success" for result in self.results)

    @property
    def failed(self) -> int:
        return len(self.results) - self.succeeded

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def progress(self) -> str:
        """One line on the study that was finished last."""
        done, result = len(self.results), self.results[-1]
        outcome = f"total {result.volumes_mm3['total']:.0f} mm3" if result.volumes_mm3 else f"[{result.code}]"
        rate = done / self.seconds
        left = (self.total - done) / rate
        study = result.study_instance_uid or "unknown study"
        return f"[{done}/{self.total}] {study} {result.status} {outcome} ({rate:.1f} studies/s, {left:.0f} s left)"

    def table(self) -> str:
        """All studies with their volumes, in the order of their UIDs."""
        lines = [f"{'study':<64} {'anterior':>8} {'posterior':>9} {'total mm3':>9} {'seconds':>7} status"]
        for result in self._ordered():
            volumes = result.volumes_mm3 or {}
            anterior, posterior, total = (
                f"{volumes[name]:.0f}" if name in volumes else "-" for name in ("anterior", "posterior", "total")
            )
            status = result.status if result.code is None else f"{result.status} [{result.code}]"
            unsent = " (not sent)" if result.sent is False else ""
            lines.append(
                f"{result.study_instance_uid or 'unknown':<64} {anterior:>8} {posterior:>9} {total:>9} "
                f"{sum(result.seconds.values()):>7.1f} {status}{unsent}"
            )
        lines.append(
            f"{self.succeeded} of {self.total} studies succeeded, {self.failed} did not; {self.seconds:.1f} s "
            f"with {self.workers} workers. Research use only."
        )
        return "\n".join(lines)

    def summary(self) -> dict:
        """The same for programs."""
        return {
            "total": self.total,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "workers": self.workers,
            "seconds": round(self.seconds, 3),
            "studies": [asdict(result) for result in self._ordered()],
        }

    def _ordered(self) -> list[StudyResult]:
        return sorted(self.results, key=lambda result: result.study_instance_uid or "")


def find_hippocrop_studies(files: list[Path]) -> dict[str, list[Path]]:
    """The DICOM images among `files` by StudyInstanceUID. Whether one has a HippoCrop series, its result will tell.

    A damaged file may be a slice of any study that shares its folder, so it goes to each of these, and they will be
    refused; one that stands alone makes a study of its own under the name UNKNOWN_STUDY.
    """
    studies: dict[str, list[Path]] = {}
    damaged = []
    with ThreadPoolExecutor() as pool:
        for path, uid in zip(files, pool.map(_study_uid_or_refusal, files), strict=True):
            if isinstance(uid, Refusal):
                damaged.append(path)
            elif uid is not None:
                studies.setdefault(uid, []).append(path)
    folders = {uid: {path.parent for path in paths} for uid, paths in studies.items()}
    for path in damaged:
        for uid in [uid for uid in folders if path.parent in folders[uid]] or [UNKNOWN_STUDY]:
            studies.setdefault(uid, []).append(path)
    return studies


def _study_uid_or_refusal(path: Path) -> str | Refusal | None:
    try:
        return study_uid_of(path)
    except Refusal as refusal:
        return refusal


_agent: UNetInferenceAgent  # of a worker process, which loads the model once


def _start_worker(model_path: Path, threads: int) -> None:
    global _agent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _agent = UNetInferenceAgent(model_path, threads)


def _process_in_worker(files: list[Path], output_dir: Path, send: Send) -> StudyResult:
    return process_single_study(files, _agent, output_dir, send=send)


class _Worker:
    """A pool of one process. When it is killed it is known which study it worked on, and a new one takes its place."""

    def __init__(self, model_path: Path, threads: int):
        self._arguments = (model_path, threads)
        self._start()

    def _start(self) -> None:
        # Spawned: a fork would copy the threads' locks of this process in whatever state they are.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_start_worker, initargs=self._arguments)

    def process(self, study_uid: str, files: list[Path], output_dir: Path, send: Send) -> StudyResult:
        start = time.perf_counter()
        try:
            result = self._pool.submit(_process_in_worker, files, output_dir, send).result()
        except BrokenProcessPool:
            self.stop()
            self._start()
            result = StudyResult(seconds={"until_death": round(time.perf_counter() - start, 3)})
            result.stop("failed", "worker-died", "the process that worked on the study was killed; is memory short?")
            result.study_instance_uid = study_uid
            write_result(result, output_dir)
        result.study_instance_uid = result.study_instance_uid or study_uid or None
        return result

    def stop(self) -> None:
        self._pool.shutdown()


def run_batch_inference(
    studies: dict[str, list[Path]], output_dir: Path, model_path: Path, max_workers: int, send: Send = None
) -> BatchProcessingStats:
    """Work on all studies (files by StudyInstanceUID) in parallel processes; print a line for each that is finished."""
    stats = BatchProcessingStats(total=len(studies), workers=min(max_workers, len(studies)))
    threads = max(1, (os.cpu_count() or 1) // stats.workers)
    # Inherited by the workers: libraries with threads of their own shall neither oversubscribe the cores nor spin.
    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE")
    workers = [_Worker(model_path, threads) for _ in range(stats.workers)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def process(uid: str) -> StudyResult:
        worker = idle.get()
        try:
            return worker.process(uid, studies[uid], output_dir / folder_name(uid), send)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(stats.workers)
    try:
        for future in as_completed([pool.submit(process, uid) for uid in sorted(studies)]):
            stats.results.append(future.result())
            print(stats.progress(), flush=True)
    finally:  # after Ctrl-C the studies in work are finished, no others begun
        pool.shutdown(cancel_futures=True)
        for worker in workers:
            worker.stop()
    return stats


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the hippocampus in many DICOM studies. Research use only.")
    root = Path(os.environ.get("HIPPO_DATA") or REPOSITORY / "data") / "TestVolumes"
    parser.add_argument("root", type=Path, nargs="?", default=root, metavar="ROOT", help="folder with studies below it")
    parser.add_argument("--max-workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument(
        "--save-summary",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="write all results as JSON; without FILE to summary.json in the output folder",
    )
    add_common_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    output_dir = args.output_dir or DEFAULT_OUTPUT
    try:
        files = validate_study_directory(args.root)
    except NotADirectoryError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        UNetInferenceAgent(args.model_path)  # a bad model is told once, not by every worker
        studies = find_hippocrop_studies(files)
        if not studies:
            raise Refusal("no-dicom", f"no DICOM image among the {len(files)} files in or below {args.root}")
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1

    try:
        stats = run_batch_inference(studies, output_dir, args.model_path, args.max_workers, sender(args))
    except KeyboardInterrupt:
        print("interrupted; the results of the studies listed above are complete", file=sys.stderr)
        return 130
    print(stats.table())
    if args.save_summary:
        path = output_dir / "summary.json" if args.save_summary is True else args.save_summary
        try:
            write_json(path, stats.summary())
        except OSError as error:
            print(Refusal("cannot-write", f"cannot write the summary to {path}: {error.strerror}"), file=sys.stderr)
            return 1
    return 1 if stats.failed else 0


if __name__ == "__main__":
    sys.exit(main())
