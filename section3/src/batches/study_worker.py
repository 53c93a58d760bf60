"""One study of many, in whatever process an engine gives it."""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from common.output_files import RESULT
from common.refusal import SUCCESS, Failure, Stop
from reading.dicom_series import read_study, study_uid_of
from study.process_study import Send, process_single_study
from study.setup import Setup, SetupFiles
from study.study_result import StudyResult, read_result, sha256_of


@dataclass(frozen=True)
class StudyTask:
    """All that a worker needs to know.

    setup_digest: what the setup that is loaded from `setup_files` must be. resume: an earlier result is good enough
    where it is proven.
    """

    study_uid: str
    files: list[Path]
    output_dir: Path
    setup_files: SetupFiles
    setup_digest: str
    threads: int
    send: Send | None = None
    resume: bool = False


def study_uids_of(files: list[Path]) -> list[str | Stop | None]:
    """The StudyInstanceUID of every file, None where it is no DICOM image, a Stop where it cannot be read."""
    with ThreadPoolExecutor() as pool:  # reading waits for the disk, or the network behind it
        return list(pool.map(_study_uid_of, files))


def _study_uid_of(path: Path) -> str | Stop | None:
    try:
        return study_uid_of(path)
    except Stop as stop:
        return stop


def work_on(task: StudyTask) -> tuple[StudyResult, bool]:
    """The result of the study, and whether it is an earlier one. Raises Failure: bad-model."""
    if task.resume and (earlier := proven_result(task)):
        return earlier, True
    setup = load_setup(task.setup_files, task.setup_digest, task.threads)
    result = process_single_study(task.files, setup, task.output_dir, send=task.send)
    return replace(result, study_instance_uid=result.study_instance_uid or task.study_uid or None), False


@functools.lru_cache(maxsize=1)  # once for all studies of this process, and again where the digest is another
def load_setup(files: SetupFiles, digest: str, threads: int) -> Setup:
    """What to measure with. Raises Failure: bad-model, where it is not what it was."""
    setup = files.load(threads)
    if setup.digest != digest:
        raise Failure("bad-model", f"{files.model_path} or its limits are not what they were when the batch began")
    return setup


def proven_result(task: StudyTask, newer: bool = True) -> StudyResult | None:
    """The earlier result where working on the study could only repeat it, else None.

    It must be a success of the same setup on the same instances, newer than their files (unless that does not matter,
    as where the same instances come again and again), sent if it is to be sent, and its own files must be what they
    were.
    """
    path = task.output_dir / RESULT
    try:
        result = read_result(task.output_dir)
        if (
            result.status == SUCCESS
            and result.setup_sha256 == task.setup_digest
            and (result.sent or not task.send)
            and (not newer or path.stat().st_mtime > max(file.stat().st_mtime for file in task.files))
            and all(sha256_of(task.output_dir / output["file"]) == output["sha256"] for output in result.outputs)
            and read_study(task.files).instances_sha256 == result.instances_sha256
        ):
            return result
    except (OSError, ValueError, TypeError, LookupError, Stop):  # there is none, or it is of another version
        pass
    return None
