"""Measure the hippocampus in many DICOM studies.

    python batch_inference_dcm.py [ROOT] [--output-dir DIR] [--max-workers N] [--resume] [--save-summary [FILE]]

Every study with files in or below ROOT is worked on, whatever its files and folders are called. The results of each go
to DIR/<StudyInstanceUID>/ as inference_dcm.py writes them. Without ROOT: TestVolumes of $HIPPO_DATA, or of data/.

Exit code 0: all studies succeeded. 1: any was refused or failed, or there was none. 2: usage. Research use only.
"""

import argparse
import csv
import io
import os
import re
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

from dicom_series import load_rules
from engines import LOCAL_ENGINES, Engine, SerialExecutor, dask_engine, local_engine
from inference_dcm import (
    DEFAULT_OUTPUT,
    add_common_options,
    folder_name,
    sender,
    validate_study_directory,
)
from quality import PASS
from refusal import Refusal
from study_result import StudyResult, write_json, write_result, write_text
from study_worker import StudyTask, study_uids_of, work_on
from unet_inference_agent import UNetInferenceAgent

REPOSITORY = Path(__file__).resolve().parents[2]
UNKNOWN_STUDY = ""
STRUCTURES = ("anterior", "posterior", "total")
PORTION = 100  # files that a worker reads at a time to find studies: 30 ms of work
DEADLINE = 300  # seconds for a study of a second or two: time for a slow disk, a slow archive and a busy machine


@dataclass
class BatchProcessingStats:
    """What has become of the studies so far."""

    total: int
    workers: int
    results: list[StudyResult] = field(default_factory=list)
    resumed: int = 0  # of the results, those of an earlier run
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
            anterior, posterior, total = (f"{volumes[name]:.0f}" if name in volumes else "-" for name in STRUCTURES)
            status = result.status if result.code is None else f"{result.status} [{result.code}]"
            unsent = " (not sent)" if result.sent is False else ""
            lines.append(
                f"{result.study_instance_uid or 'unknown':<64} {anterior:>8} {posterior:>9} {total:>9} "
                f"{sum(result.seconds.values()):>7.1f} {status}{unsent}"
            )
        resumed = f" ({self.resumed} in an earlier run)" if self.resumed else ""
        lines.append(
            f"{self.succeeded} of {self.total} studies succeeded{resumed}, {self.failed} did not; {self.seconds:.1f} s "
            f"with {self.workers} workers. Research use only."
        )
        return "\n".join(lines)

    def summary(self) -> dict:
        """Everything, for programs."""
        return {
            "total": self.total,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "resumed": self.resumed,
            "workers": self.workers,
            "seconds": round(self.seconds, 3),
            "studies": [asdict(result) for result in self._ordered()],
        }

    def csv(self) -> str:
        """A row for every study, for spreadsheets. Reasons are left out, as they may quote what stands in a file."""
        steps = sorted({step for result in self.results for step in result.seconds})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["study_instance_uid", "series_instance_uid", "status", "code"]
            + [f"{name}_{column}" for name in STRUCTURES for column in ("mm3", "low_mm3", "high_mm3")]
            + ["quality", "quality_not_passed"]
            + ["sent", "seconds", *(f"seconds_{step}" for step in steps)]
        )
        for result in self._ordered():
            writer.writerow(
                [result.study_instance_uid, result.series_instance_uid, result.status, result.code]
                + [number for name in STRUCTURES for number in _volume_and_interval(result, name)]
                + [result.quality_verdict, _not_passed(result)]
                + [result.sent, round(sum(result.seconds.values()), 3), *(result.seconds.get(step) for step in steps)]
            )
        return text.getvalue()

    def save(self, path: Path) -> None:
        """Write the results to `path`, as CSV where its name ends so, else as JSON. Raises OSError."""
        if path.suffix.lower() == ".csv":
            write_text(path, self.csv())
        else:
            write_json(path, self.summary())

    def _ordered(self) -> list[StudyResult]:
        return sorted(self.results, key=lambda result: result.study_instance_uid or "")


def _volume_and_interval(result: StudyResult, structure: str) -> tuple[float | None, ...]:
    """The volume, the low and the high end of its interval; None what there is not."""
    low, high = (result.intervals_mm3 or {}).get(structure, (None, None))
    return (result.volumes_mm3 or {}).get(structure), low, high


def _not_passed(result: StudyResult) -> str:
    """The quality checks that were not passed, each with its verdict."""
    return ", ".join(f"{check['name']} {check['verdict']}" for check in result.quality if check["verdict"] != PASS)


def find_hippocrop_studies(files: list[Path], executor: Executor | None = None) -> dict[str, list[Path]]:
    """The DICOM images among `files` by StudyInstanceUID. Whether one has a HippoCrop series, its result will tell.

    A damaged file may be a slice of any study that shares its folder, so it goes to each of these; one that stands
    alone makes a study of its own under the name UNKNOWN_STUDY. The executor's workers read the files.
    Raises Refusal: worker-died, timed-out.
    """
    portions = [files[first : first + PORTION] for first in range(0, len(files), PORTION)]
    try:
        uids = list(chain.from_iterable((executor or SerialExecutor()).map(study_uids_of, portions)))
    except Exception as error:
        raise _failure(error) from error
    studies: dict[str, list[Path]] = {}
    damaged = []
    for path, uid in zip(files, uids, strict=True):
        if isinstance(uid, Refusal):
            damaged.append(path)
        elif uid is not None:
            studies.setdefault(uid, []).append(path)
    folders = {uid: {path.parent for path in paths} for uid, paths in studies.items()}
    for path in damaged:
        for uid in [uid for uid in folders if path.parent in folders[uid]] or [UNKNOWN_STUDY]:
            studies.setdefault(uid, []).append(path)
    return studies


def run_batch_inference(tasks: Iterable[StudyTask], engine: Engine) -> BatchProcessingStats:
    """Work on all studies; print a line for each that is finished. Whatever becomes of one, the others go on."""
    tasks = list(tasks)
    stats = BatchProcessingStats(total=len(tasks), workers=min(engine.workers, len(tasks)))
    for task, future in engine.completed(work_on, tasks):
        result, is_earlier = _outcome(task, future)
        stats.results.append(result)
        stats.resumed += is_earlier
        print(stats.progress(), flush=True)
    return stats


def _outcome(task: StudyTask, future: Future) -> tuple[StudyResult, bool]:
    """The result of the study and whether it is an earlier one; in place of what no worker could tell, a failure."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  engines differ in what they raise, and one study must not stop the others
        failure = _failure(error)
    result = StudyResult(study_instance_uid=task.study_uid or None)
    result.stop("failed", failure.code, failure.reason)
    write_result(result, task.output_dir)
    return result, False


def _failure(error: Exception) -> Refusal:
    """What an engine raises where a call has no answer, in our own words."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TimeoutError):
        return Refusal("timed-out", f"the work was {error}")
    return Refusal(
        "worker-died", f"the process that did the work was killed ({type(error).__name__}); is memory short?"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _address(text: str) -> str:
    if not re.fullmatch(r"(tcp|tls)://[^/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is not of the form tcp://host:port")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the hippocampus in many DICOM studies. Research use only.")
    root = Path(os.environ.get("HIPPO_DATA") or REPOSITORY / "data") / "TestVolumes"
    parser.add_argument("root", type=Path, nargs="?", default=root, metavar="ROOT", help="folder with studies below it")
    parser.add_argument(
        "--max-workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="studies at a time"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--engine", choices=LOCAL_ENGINES, default=LOCAL_ENGINES[0], help="default: %(default)s")
    where.add_argument(
        "--scheduler", type=_address, metavar="ADDRESS", help="work on a Dask cluster, e.g. tcp://localhost:8786"
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=DEADLINE,
        metavar="SECONDS",
        help="for one study, in processes and on a cluster; default: %(default)s",
    )
    parser.add_argument("--resume", action="store_true", help="skip studies whose earlier results are still right")
    parser.add_argument(
        "--save-summary",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="write all results as CSV or JSON; without FILE to summary.csv and summary.json in the output folder",
    )
    add_common_options(parser)
    return parser


def _batch(args: argparse.Namespace, files: list[Path], output_dir: Path) -> BatchProcessingStats:
    """Everything from the files to the results. Raises Refusal where no study can be worked on at all."""
    model_path = args.model_path.absolute()
    model = UNetInferenceAgent(model_path).identity  # a bad model is told once, not by every worker
    conditions = load_rules(args.rules)
    engine = (
        dask_engine(args.scheduler, args.timeout)
        if args.scheduler
        else local_engine(args.engine, args.max_workers, args.timeout)
    )
    with engine.executor:  # after Ctrl-C the studies in work are finished, no others begun
        studies = find_hippocrop_studies(files, engine.executor)
        if not studies:
            raise Refusal("no-dicom", f"no DICOM image among the {len(files)} files in or below {args.root}")
        tasks = [
            StudyTask(
                study_uid=uid,
                files=studies[uid],
                output_dir=output_dir / folder_name(uid),
                model_path=model_path,
                model_sha256=model["sha256"],
                threads=engine.threads,
                send=sender(args),
                resume=args.resume,
                pseudonymous=args.pseudonymous,
                conditions=conditions,
            )
            for uid in sorted(studies)
        ]
        return run_batch_inference(tasks, engine)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    # Absolute paths here: the workers of a cluster were started somewhere else.
    output_dir = (args.output_dir or DEFAULT_OUTPUT).absolute()
    try:
        files = validate_study_directory(args.root.absolute())
    except NotADirectoryError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        stats = _batch(args, files, output_dir)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the results of the studies listed above are complete", file=sys.stderr)
        return 130

    print(stats.table())
    paths = [args.save_summary] if args.save_summary else []
    if args.save_summary is True:
        paths = [output_dir / "summary.csv", output_dir / "summary.json"]
    for path in paths:
        try:
            stats.save(path)
        except OSError as error:
            print(Refusal("cannot-write", f"cannot write the summary to {path}: {error.strerror}"), file=sys.stderr)
            return 1
    return 1 if stats.failed else 0


if __name__ == "__main__":
    sys.exit(main())
