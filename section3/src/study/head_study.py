"""One image of a head from its file to its masks, its page and its record."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from common.refusal import REFUSED, SUCCESS, Failure, Stop
from common.shipped import DEFAULT_LOCALISER, DEFAULT_MODEL, HEAD_REVISION
from common.stopwatch import Stopwatch
from common.structures import SIDES, STRUCTURES
from common.verdicts import worst
from common.whole_files import write_bytes, write_json
from measuring.hippocrop import Localiser
from measuring.measure_head import MeasuredHead, with_head
from measuring.measurement import Measurement
from measuring.unet_inference_agent import UNetInferenceAgent
from pages.head_page import create_head_page
from reading.nifti_head import HeadImage, read_head

MASKS, PAGE, RECORD = "_hippocampus.nii.gz", ".png", ".json"
VOLUMES = tuple(f"{side}_{one.key}_mm3" for side in SIDES for one in STRUCTURES)


@dataclass(frozen=True)
class HeadTask:
    """path: the image. name: of what is written into output_dir."""

    path: Path
    name: str
    output_dir: Path
    model_path: Path = DEFAULT_MODEL
    localiser_path: Path = DEFAULT_LOCALISER
    threads: int = 1


def measure_image(task: HeadTask) -> dict:
    """The record of the image, an earlier one where that is of the same image and models. Writes all but the table.

    What goes wrong with the image is in the record; where that cannot be written it is Failure: cannot-write.
    """
    stopwatch = Stopwatch()
    record = {"file": str(task.path), "name": task.name, "status": SUCCESS, "code": None, "reason": None}
    try:
        localiser, agent, setup_sha256 = _models(task.model_path, task.localiser_path, task.threads)
        content = _content(task.path)
        record |= {"image_sha256": hashlib.sha256(content).hexdigest(), "setup_sha256": setup_sha256}
        if earlier := _earlier(task, record):
            return earlier
        with stopwatch.timed("read"):
            image = read_head(task.path)
        record |= _measured(task, image, localiser, agent, stopwatch)
    except Stop as stop:
        record |= {"status": stop.status, "code": stop.code, "reason": stop.reason}
    except MemoryError:
        stop = Failure("out-of-memory", "there is not enough memory for the image")
        record |= {"status": stop.status, "code": stop.code, "reason": stop.reason}
    record["seconds"] = {name: round(value, 3) for name, value in stopwatch.seconds.items()}
    try:
        if record["status"] != SUCCESS:
            _path(task, MASKS).unlink(missing_ok=True)  # of an earlier run
        write_json(_path(task, RECORD), record)
    except OSError as error:
        raise Failure("cannot-write", f"nothing can be written to {task.output_dir}: {error.strerror}") from error
    return record


def _measured(
    task: HeadTask, image: HeadImage, localiser: Localiser, agent: UNetInferenceAgent, stopwatch: Stopwatch
) -> dict:
    measurement, measured = with_head(Measurement({}, source=image.volume), localiser, agent, stopwatch)
    refusal = measurement.refusal
    try:
        with stopwatch.timed("write"):
            page = create_head_page(measurement, agent.identity, image=task.path.name)
            packed = io.BytesIO()
            page.save(packed, "PNG")
            write_bytes(_path(task, PAGE), packed.getvalue())
            if not refusal:
                _write_masks(_path(task, MASKS), image, measurement.labels)
    except OSError as error:
        raise Failure("cannot-write", f"nothing can be written to {task.output_dir}: {error.strerror}") from error
    told = {"status": REFUSED, "code": refusal.code, "reason": refusal.reason} if refusal else {}
    return {**told, **(_in_record(measured) if measured else {}), "model": agent.identity}


def _in_record(measured: MeasuredHead) -> dict:
    sides = {}
    for one in measured.hippocampi:
        why = {"code": one.refusal.code, "reason": one.refusal.reason} if one.refusal else {}
        sides[one.side] = {"volumes_mm3": one.volumes_mm3, **why, "quality": [vars(check) for check in one.checks]}
    checks = [*measured.checks, *(check for one in measured.hippocampi for check in one.checks)]
    shown = all(one.refusal is None for one in measured.hippocampi)
    return {
        "volumes_mm3": {side: one["volumes_mm3"] for side, one in sides.items() if one["volumes_mm3"]} or None,
        "quality": [vars(check) for check in measured.checks],
        "sides": sides,
        "verdict": worst(checks) if shown else "fail",
        "to_template": measured.place.to_template.round(5).tolist(),
    }


def _write_masks(path: Path, image: HeadImage, labels: np.ndarray) -> None:
    unfinished = path.with_name(f".unfinished_{path.name}")
    try:
        nib.save(image.on_own_grid(labels), unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure("cannot-read", f"the file cannot be read: {error.strerror}") from error


def _earlier(task: HeadTask, record: dict) -> dict | None:
    """The record of an earlier run, where it is of the same image and models, and its files are there."""
    try:
        earlier = json.loads(_path(task, RECORD).read_text())
        same = all(earlier[key] == record[key] for key in ("file", "image_sha256", "setup_sha256"))
        final = earlier["status"] in (SUCCESS, REFUSED)
        whole = earlier["status"] != SUCCESS or (_path(task, MASKS).is_file() and _path(task, PAGE).is_file())
        return earlier if same and final and whole else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _path(task: HeadTask, ending: str) -> Path:
    return task.output_dir / f"{task.name}{ending}"


@functools.lru_cache(maxsize=1)  # once for all images of this process
def _models(model_path: Path, localiser_path: Path, threads: int) -> tuple[Localiser, UNetInferenceAgent, str]:
    """And what tells them from any that may give another result. Raises Failure: bad-model."""
    localiser, agent = Localiser(localiser_path, threads), UNetInferenceAgent(model_path, threads)
    parts = (HEAD_REVISION, localiser.sha256, agent.identity["sha256"])
    return localiser, agent, hashlib.sha256(repr(parts).encode()).hexdigest()
