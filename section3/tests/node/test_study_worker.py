"""A worker judges and signs by one setup, that of the batch; earlier results of any other are no results."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from batches.engines import ProcessExecutor
from batches.study_worker import StudyTask, proven_result, study_uids_of, work_on
from checks.quality_limits import LIMITS_FILE, TEMPLATE_FILE, Limits, Range
from choosing.series_rules import load_rules
from common.output_files import RESULT
from common.refusal import Failure, Stop
from common.send_outcome import SendOutcome
from common.shipped import DEFAULT_MODEL
from reading.dicom_series import list_files
from study import setup
from study.setup import SetupFiles
from study.study_result import StudyResult

pytestmark = pytest.mark.slow

Work = Callable[[StudyTask], tuple[StudyResult, bool]]


def save_limits(folder: Path, verdict: str) -> Limits:
    """Limits beside the model by which any total volume gets that verdict, "pass" or "warn", and all else passes."""
    anything = Range((-1e9, 1e9), (-1e9, 1e9), "none")
    limits = Limits.load(DEFAULT_MODEL.parent)
    ranges = dict.fromkeys(limits.ranges, anything)
    if verdict == "warn":
        ranges["total"] = dataclasses.replace(anything, warn=(-1e9, 1))
    model_sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    dataclasses.replace(limits, ranges=ranges, model_sha256=model_sha256).save(folder)
    return Limits.load(folder)


@pytest.fixture
def setup_files(tmp_path, threshold_model) -> SetupFiles:
    """A model, with limits beside it that let everything pass."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(threshold_model, folder / "model.onnx")
    save_limits(folder, "pass")
    return SetupFiles(folder / "model.onnx", load_rules())


@pytest.fixture
def new_task(make_study, setup_files, tmp_path) -> StudyTask:
    """A study whose files were written some time ago, and on which nobody has worked yet."""
    files = list_files(make_study())
    for path in files:
        os.utime(path, (1e9, 1e9))
    return StudyTask("1.2", files, tmp_path / "out", setup_files, setup_files.load().digest, threads=1)


@pytest.fixture
def task(new_task) -> StudyTask:
    """The same when it has been worked on."""
    result, is_earlier = work_on(new_task)
    assert (result.status, result.reason, is_earlier) == ("success", None, False)
    return dataclasses.replace(new_task, resume=True)


def with_setup(task: StudyTask, **changes: object) -> StudyTask:
    """The task in a batch that begins now, with the files of its setup as they are."""
    setup_files = dataclasses.replace(task.setup_files, **changes)
    return dataclasses.replace(task, setup_files=setup_files, setup_digest=setup_files.load().digest)


def result_uids(result: StudyResult) -> set[str]:
    """The SOP Instance UIDs of its objects: they follow from what it was made with."""
    return {output["sop_instance_uid"] for output in result.outputs} - {None}


def require_signed(result: StudyResult, task: StudyTask, limits: Limits, verdict: str) -> None:
    """That the result was judged by these limits and says so, in result.json as well."""
    assert (result.status, result.reason) == ("success", None)
    assert [check["verdict"] for check in result.quality if check["name"] == "total"] == [verdict]
    assert (result.limits_sha256, result.setup_sha256) == (limits.sha256, task.setup_digest)
    written = json.loads((task.output_dir / RESULT).read_text())
    for name in ("quality", "limits_sha256", "setup_sha256"):
        assert written[name] == getattr(result, name)


# --- one setup a worker -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["in this process", "in a process of its own"])
def work(request) -> Iterator[Work]:
    """work(task): work_on(task), always in the same process."""
    if request.param == "in this process":
        yield work_on
        return
    with ProcessExecutor(1, threads=1, timeout=600) as executor:
        process = executor.submit(os.getpid).result()
        yield lambda task: executor.submit(work_on, task).result()
        assert executor.submit(os.getpid).result() == process


@pytest.mark.parametrize(("first", "second"), [("pass", "warn"), ("warn", "pass")])
def test_a_worker_judges_and_signs_by_the_limits_of_the_batch(work, new_task, first, second):
    """Limits are swapped under a living worker: in its batch it keeps the old ones, in the next it takes the new ones,
    and never does one sign for the other."""
    folder = new_task.setup_files.model_path.parent
    old = save_limits(folder, first)
    old_batch = with_setup(new_task)
    before, _ = work(old_batch)
    require_signed(before, old_batch, old, first)

    new = save_limits(folder, second)
    assert new.sha256 != old.sha256
    during, _ = work(old_batch)
    require_signed(during, old_batch, old, first)
    assert result_uids(during) == result_uids(before) != set()

    new_batch = with_setup(new_task)
    after, _ = work(new_batch)
    require_signed(after, new_batch, new, second)
    assert not result_uids(after) & result_uids(before)

    with pytest.raises(Failure, match=r"\[bad-model\]"):  # it has the new ones now, and so has the disk
        work(old_batch)
    assert json.loads((new_task.output_dir / RESULT).read_text())["setup_sha256"] == new_batch.setup_digest


def _swap_model(folder: Path, save_threshold_model: Callable, card: dict) -> None:
    save_threshold_model(folder / "model.onnx", {**card, "version": "0.2"})


def _swap_limits(folder: Path, *_: object) -> None:
    save_limits(folder, "warn")


def _swap_template(folder: Path, *_: object) -> None:
    limits = Limits.load(folder)
    dataclasses.replace(limits, template=-limits.template).save(folder)


def _remove_limits(folder: Path, *_: object) -> None:
    for name in (LIMITS_FILE, TEMPLATE_FILE):
        (folder / name).unlink()


SWAPS = [_swap_model, _swap_limits, _swap_template, _remove_limits]


@pytest.mark.parametrize("swap", SWAPS)
def test_a_worker_that_does_not_find_the_setup_of_the_batch_fails(work, new_task, swap, save_threshold_model, card):
    swap(new_task.setup_files.model_path.parent, save_threshold_model, card)
    for _ in range(2):
        with pytest.raises(Failure, match=r"are not what they were when the batch began \[bad-model\]"):
            work(new_task)
    assert not new_task.output_dir.exists()
    assert work(with_setup(new_task))[0].status == "success"


@pytest.mark.parametrize("changes", [{"rules": load_rules()[:-1]}, {"pseudonymous": True}])
def test_a_worker_that_was_sent_another_setup_fails(work, new_task, changes):
    other = dataclasses.replace(new_task.setup_files, **changes)
    with pytest.raises(Failure, match=r"\[bad-model\]"):
        work(dataclasses.replace(new_task, setup_files=other))
    assert not new_task.output_dir.exists()


def test_the_model_is_loaded_once(work, new_task):
    assert work(new_task)[0].status == "success"
    new_task.setup_files.model_path.unlink()
    assert work(new_task)[0].status == "success"


# --- earlier results --------------------------------------------------------------------------------------------------


def test_a_proven_result_is_taken_as_it_is(task):
    before = {path: path.stat().st_mtime_ns for path in list_files(task.output_dir)}
    result, is_earlier = work_on(task)
    assert is_earlier
    assert dataclasses.asdict(result) == json.loads((task.output_dir / RESULT).read_text())
    assert {path: path.stat().st_mtime_ns for path in list_files(task.output_dir)} == before


def test_copies_and_moves_of_the_study_change_nothing(task, tmp_path):
    moved = [path.rename(tmp_path / f"slice{number}") for number, path in enumerate(task.files)]
    shutil.copy2(moved[0], tmp_path / "again")
    assert proven_result(dataclasses.replace(task, files=[*moved, tmp_path / "again"]))


def _with_swapped(swap: Callable) -> Callable:
    def change(task: StudyTask, save_threshold_model: Callable, card: dict) -> StudyTask:
        swap(task.setup_files.model_path.parent, save_threshold_model, card)
        return with_setup(task)

    return change


def _with_fewer_rules(task: StudyTask, *_: object) -> StudyTask:
    return with_setup(task, rules=task.setup_files.rules[:-1])


def _with_pseudonyms(task: StudyTask, *_: object) -> StudyTask:
    return with_setup(task, pseudonymous=True)


@pytest.mark.parametrize("change", [*map(_with_swapped, SWAPS), _with_fewer_rules, _with_pseudonyms])
def test_a_result_of_another_setup_is_none(task, change, save_threshold_model, card):
    """Neither when the batch has another one, nor when it has the first one again."""
    changed = change(task, save_threshold_model, card)
    assert changed.setup_digest != task.setup_digest
    assert proven_result(task) is not None
    assert proven_result(changed) is None

    result, is_earlier = work_on(changed)
    assert (result.status, result.setup_sha256, is_earlier) == ("success", changed.setup_digest, False)
    assert proven_result(changed) is not None
    assert proven_result(task) is None


def test_a_result_of_another_revision_is_none(task, monkeypatch):
    monkeypatch.setattr(setup, "REVISION", "0")
    assert proven_result(with_setup(task)) is None


def _change_result(**changes):
    def change(task, **_):
        path = task.output_dir / RESULT
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _an_instance_more(task, add_series, **_):
    more = add_series(task.files[0].parent)
    for path in more:
        os.utime(path, (1e9, 1e9))
    return dataclasses.replace(task, files=task.files + more)


def _an_instance_less(task, crop_files, **_):
    (lowest, *_) = crop_files(task.files[0].parents[1])
    return dataclasses.replace(task, files=[path for path in task.files if path != lowest])


def _other_pixels(task, crop_files, **_):
    (lowest, *_) = crop_files(task.files[0].parents[1])
    slice_ = pydicom.dcmread(lowest)
    slice_.PixelData = bytes(len(slice_.PixelData))
    slice_.save_as(lowest)
    os.utime(lowest, (1e9, 1e9))


def _a_newer_file(task, **_):
    os.utime(task.files[0])


def _a_damaged_file(task, **_):
    task.files[0].write_bytes(task.files[0].read_bytes()[:200])
    os.utime(task.files[0], (1e9, 1e9))


def _no_file(task, **_):
    task.files[0].unlink()


def _another_page(task, **_):
    with (task.output_dir / "report.dcm").open("ab") as file:
        file.write(b"\0")


def _no_page(task, **_):
    (task.output_dir / "report.png").unlink()


def _half_a_result(task, **_):
    path = task.output_dir / RESULT
    path.write_text(path.read_text()[:300])


def _not_yet_sent(task, **_):
    return dataclasses.replace(task, send=lambda paths: SendOutcome(True, "stored"))


@pytest.mark.parametrize(
    "change",
    [
        _an_instance_more,
        _an_instance_less,
        _other_pixels,
        _a_newer_file,
        _a_damaged_file,
        _no_file,
        _another_page,
        _no_page,
        _half_a_result,
        _not_yet_sent,
        _change_result(status="failed"),
        _change_result(status="refused"),
        _change_result(setup_sha256=None),
        _change_result(setup_sha256="0" * 64),
        _change_result(instances_sha256=None),
        _change_result(outputs=[{"file": "report.dcm"}]),
        _change_result(what_this_version_does_not_know=1),
    ],
)
def test_what_is_not_proven_is_done_again(task, change, add_series, crop_files):
    changed = change(task, add_series=add_series, crop_files=crop_files) or task
    assert proven_result(changed) is None


# --- which study a file belongs to ------------------------------------------------------------------------------------


def test_a_file_names_its_study_or_says_why_not(make_study, tmp_path):
    good = list_files(make_study())[0]
    (tmp_path / "text").write_text("no DICOM")
    (tmp_path / "damaged").write_bytes(good.read_bytes()[:200])
    uid, *others = study_uids_of([good, tmp_path / "text", tmp_path / "damaged", tmp_path / "gone"])
    assert uid == pydicom.dcmread(good).StudyInstanceUID
    assert [one.code if isinstance(one, Stop) else one for one in others] == [None, "unreadable-dicom", "cannot-read"]
