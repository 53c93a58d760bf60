"""Many studies: found among files, worked on, counted."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

from batches.engines import Engine, SerialExecutor, failure_of
from batches.study_worker import StudyTask, study_uids_of, work_on
from common.refusal import FAILED, REFUSED, SUCCESS, Stop
from common.structures import SIDES, STRUCTURES, WHOLE
from common.verdicts import PASS
from common.whole_files import write_json, write_text
from study.output_folder import write_result
from study.study_result import StudyResult

UNKNOWN_STUDY = ""
KEYS = tuple(one.key for one in STRUCTURES)
PORTION = 100  # files that a worker reads at a time to find studies: 30 ms of work


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
        return sum(result.status == SUCCESS for result in self.results)

    @property
    def refused(self) -> int:
        return sum(result.status == REFUSED for result in self.results)

    @property
    def failed(self) -> int:
        return sum(result.status == FAILED for result in self.results)

    @property
    def unsent(self) -> int:
        """Of the results that were to be sent, those that the archive did not confirm."""
        return sum(result.sent is False for result in self.results)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def progress(self) -> str:
        """One line on the study that was finished last."""
        done, result = len(self.results), self.results[-1]
        totals = [f"{side or 'total'} {volumes[WHOLE.key]:.0f}" for side, volumes in result.volumes_by_side.items()]
        outcome = f"{', '.join(totals)} mm3" if totals else f"[{result.code}]"
        rate = done / self.seconds
        left = (self.total - done) / rate
        study = result.study_instance_uid or "unknown study"
        return f"[{done}/{self.total}] {study} {result.status} {outcome} ({rate:.1f} studies/s, {left:.0f} s left)"

    def table(self) -> str:
        """All studies with their volumes, in the order of their UIDs; of a head a line for each side."""
        lines = [f"{'study':<64} {'side':<5} {'anterior':>8} {'posterior':>9} {'total mm3':>9} {'seconds':>7} status"]
        for result in self._ordered():
            status = result.status if result.code is None else f"{result.status} [{result.code}]"
            unsent = " (not sent)" if result.sent is False else ""
            seconds = f"{sum(result.seconds.values()):>7.1f}"
            volumes_of = result.volumes_by_side
            for side in sorted({*volumes_of, *(result.not_shown or {})}, key=str) or [None]:
                volumes = volumes_of.get(side, {})
                anterior, posterior, total = (f"{volumes[name]:.0f}" if name in volumes else "-" for name in KEYS)
                why = "" if volumes or not side else f", not shown [{result.not_shown[side]['code']}]"
                lines.append(
                    f"{result.study_instance_uid or 'unknown':<64} {side or '-':<5} {anterior:>8} {posterior:>9} "
                    f"{total:>9} {seconds} {status}{why}{unsent}"
                )
        resumed = f" ({self.resumed} in an earlier run)" if self.resumed else ""
        to_send = sum(result.sent is not None for result in self.results)
        sent = f" Sent {to_send - self.unsent} of {to_send}." if to_send else ""
        lines.append(
            f"{self.succeeded} of {self.total} studies succeeded{resumed}, {self.refused} refused, "
            f"{self.failed} failed; {self.seconds:.1f} s with {self.workers} workers.{sent} Research use only."
        )
        return "\n".join(lines)

    def summary(self) -> dict:
        """Everything, for programs."""
        return {
            "total": self.total,
            "succeeded": self.succeeded,
            "refused": self.refused,
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
            + [f"{name}_{column}" for name in KEYS for column in ("mm3", "low_mm3", "high_mm3")]
            + [f"{side}_{name}" for side in SIDES for name in (*(f"{key}_mm3" for key in KEYS), "code")]
            + ["quality", "quality_not_passed"]
            + ["sent", "seconds", *(f"seconds_{step}" for step in steps)]
        )
        for result in self._ordered():
            writer.writerow(
                [result.study_instance_uid, result.series_instance_uid, result.status, result.code]
                + [number for name in KEYS for number in _volume_and_interval(result, name)]
                + [cell for side in SIDES for cell in _side(result, side)]
                + [result.quality_verdict, _not_passed(result)]
                + [result.sent, round(sum(result.seconds.values()), 3), *(result.seconds.get(step) for step in steps)]
            )
        return text.getvalue()

    def save(self, path: Path) -> None:
        """Write the results to `path`, as CSV where its name ends so, else as JSON. Raises OSError."""
        if path.suffix.lower() == ".csv":
            write_text(path, self.csv(), shared=True)  # with another batch
        else:
            write_json(path, self.summary(), shared=True)

    def _ordered(self) -> list[StudyResult]:
        return sorted(self.results, key=lambda result: result.study_instance_uid or "")


def _volume_and_interval(result: StudyResult, structure: str) -> tuple[float | None, ...]:
    """Of a crop: the volume, the low and the high end of its interval; None what there is not."""
    low, high = (result.intervals_mm3 or {}).get(structure, (None, None))
    return result.volumes_by_side.get(None, {}).get(structure), low, high


def _side(result: StudyResult, side: str) -> tuple[float | str | None, ...]:
    """Of one side of a head: the volumes, and the code where it has none; None what there is not."""
    volumes = result.volumes_by_side.get(side, {})
    return *(volumes.get(key) for key in KEYS), (result.not_shown or {}).get(side, {}).get("code")


def _not_passed(result: StudyResult) -> str:
    """The quality checks that were not passed, each with its verdict, and of a head with its side."""
    told = [check for check in result.quality if check["verdict"] != PASS]
    return ", ".join(" ".join(filter(None, (c.get("side"), c["name"], c["verdict"]))) for c in told)


def find_hippocrop_studies(files: list[Path], executor: Executor | None = None) -> dict[str, list[Path]]:
    """The DICOM images among `files` by StudyInstanceUID. Whether one has a HippoCrop series, its result will tell.

    A damaged file may be a slice of any study that shares its folder, so it goes to each of these; one that stands
    alone makes a study of its own under the name UNKNOWN_STUDY. The executor's workers read the files.
    Raises Failure: worker-died, timed-out.
    """
    portions = [files[first : first + PORTION] for first in range(0, len(files), PORTION)]
    try:
        uids = list(chain.from_iterable((executor or SerialExecutor()).map(study_uids_of, portions)))
    except Exception as error:
        raise failure_of(error) from error
    studies: dict[str, list[Path]] = {}
    damaged = []
    for path, uid in zip(files, uids, strict=True):
        if isinstance(uid, Stop):
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
        result = StudyResult(study_instance_uid=task.study_uid or None).stopped(failure_of(error))
    return write_result(result, task.output_dir), False
