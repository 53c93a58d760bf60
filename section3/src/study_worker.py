"""One study of a batch, in whatever process an engine gives it."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from archive import SendOutcome
from dicom_results import REVISION
from dicom_series import Condition, load_rules, read_study, study_uid_of
from inference_dcm import process_single_study
from quality import limits_sha256
from refusal import Refusal
from study_result import RESULT, StudyResult, rules_sha256
from unet_inference_agent import UNetInferenceAgent

Send = Callable[[list[Path]], SendOutcome]


@dataclass(frozen=True)
class StudyTask:
    """All that a worker needs to know. resume: an earlier result is good enough where it is proven."""

    study_uid: str
    files: list[Path]
    output_dir: Path
    model_path: Path
    model_sha256: str
    threads: int
    send: Send | None = None
    resume: bool = False
    pseudonymous: bool = False
    conditions: Sequence[Condition] = field(default_factory=load_rules)


def study_uids_of(files: list[Path]) -> list[str | Refusal | None]:
    """The StudyInstanceUID of every file, None where it is no DICOM image, a Refusal where it is damaged."""
    with ThreadPoolExecutor() as pool:  # reading waits for the disk, or the network behind it
        return list(pool.map(_study_uid_of, files))


def _study_uid_of(path: Path) -> str | Refusal | None:
    try:
        return study_uid_of(path)
    except Refusal as refusal:
        return refusal


def work_on(task: StudyTask) -> tuple[StudyResult, bool]:
    """The result of the study, and whether it is an earlier one. Raises Refusal: bad-model."""
    if task.resume and (earlier := proven_result(task)):
        return earlier, True
    agent = _load_agent(task.model_path, task.model_sha256, task.threads)
    result = process_single_study(
        task.files,
        agent,
        task.output_dir,
        send=task.send,
        conditions=task.conditions,
        pseudonymous=task.pseudonymous,
    )
    result.study_instance_uid = result.study_instance_uid or task.study_uid or None
    return result, False


@functools.lru_cache(maxsize=1)  # once for all studies of this process
def _load_agent(model_path: Path, sha256: str, threads: int) -> UNetInferenceAgent:
    agent = UNetInferenceAgent(model_path, threads)
    if agent.identity["sha256"] != sha256:
        raise Refusal("bad-model", f"{model_path} is not the file that it was when the batch began")
    return agent


def proven_result(task: StudyTask) -> StudyResult | None:
    """The earlier result where working on the study could only repeat it, else None.

    It must be a success of the same model, rules, limits and revision, as pseudonymous, on the same instances, newer
    than their files, sent if it is to be sent, and its own files must be what they were.
    """
    path = task.output_dir / RESULT
    try:
        result = StudyResult(**json.loads(path.read_text()))
        if (
            result.status == "success"
            and result.model["sha256"] == task.model_sha256
            and result.rules_sha256 == rules_sha256(task.conditions)
            and result.limits_sha256 == limits_sha256(task.model_path)
            and result.revision == REVISION
            and (result.sent or not task.send)
            and bool(result.pseudonym) == task.pseudonymous
            and path.stat().st_mtime > max(file.stat().st_mtime for file in task.files)
            and all(_sha256(task.output_dir / output["file"]) == output["sha256"] for output in result.outputs)
            and read_study(task.files).instances_sha256 == result.instances_sha256
        ):
            return result
    except (OSError, ValueError, TypeError, LookupError, Refusal):  # there is none, or it is of another version
        pass
    return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
