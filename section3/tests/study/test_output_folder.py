"""The folder of outputs: whole, or not there; ours, or not touched; one run at a time."""

import fcntl
import json
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.output_files import OUTPUTS
from common.refusal import Refusal
from study.output_folder import UNFINISHED, only_run_in, write_result
from study.study_result import StudyResult

FILES = ["report.dcm", "report.png", "segmentation.dcm", "overlay/001.dcm", "overlay/002.dcm"]
REFUSED = StudyResult().stopped(Refusal("no-dicom", "there is none"))


def _measured(files: list[str]) -> StudyResult:
    return StudyResult(outputs=[{"file": file, "sop_instance_uid": None} for file in files])


def _write(staging: Path, files: list[str], content: str) -> None:
    for file in files:
        (staging / file).parent.mkdir(exist_ok=True)
        (staging / file).write_text(content)


def _run(path: Path, files: list[str], content: str) -> None:
    """A run that writes these outputs."""
    with only_run_in(path) as folder:
        with folder.replacing_outputs() as staging:
            _write(staging, files, content)
        folder.finish(_measured(files))


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _outputs(folder: Path) -> dict[str, str]:
    contents = _contents(folder)
    assert json.loads(contents.pop("result.json"))["outputs"]
    return contents


@pytest.fixture
def earlier(out) -> Path:
    """What an earlier run left, and a file of somebody else."""
    _run(out, FILES, "earlier")
    (out / "notes.txt").write_text("not ours")
    return out


def test_outputs_replace_those_of_the_earlier_run_and_nothing_else(earlier):
    _run(earlier, ["report.dcm", "overlay/001.dcm"], "new")
    assert _outputs(earlier) == {"report.dcm": "new", "overlay/001.dcm": "new", "notes.txt": "not ours"}


def test_until_the_block_ends_all_is_as_it_was(earlier):
    before = _contents(earlier)
    with only_run_in(earlier) as folder, folder.replacing_outputs() as staging:
        assert staging.parent == earlier  # on the same disk, so that moving is all or nothing
        assert {file: text for file, text in _contents(earlier).items() if file in before} == before


def test_a_block_that_is_left_by_an_exception_changes_nothing(earlier):
    before = _contents(earlier)
    with pytest.raises(KeyError), only_run_in(earlier) as folder, folder.replacing_outputs() as staging:
        _write(staging, FILES, "new")
        raise KeyError
    assert _contents(earlier) == before
    assert not list(earlier.glob(f"{UNFINISHED}*"))


def test_a_result_without_outputs_takes_those_of_an_earlier_run_away(earlier):
    result = write_result(REFUSED, earlier)
    assert {path.name for path in earlier.iterdir()} == {"result.json", "notes.txt"}
    assert json.loads((earlier / "result.json").read_text())["code"] == "no-dicom"
    assert result == replace(REFUSED, output_dir=str(earlier))


def test_what_a_killed_run_left_is_taken_away(make_study, process, out):
    leftover = out / f"{UNFINISHED}x"
    leftover.mkdir(parents=True)
    (leftover / "report.png").write_bytes(b"half a pict")
    assert process(make_study()).status == "success"
    assert not leftover.exists()
    assert {path.name for path in out.iterdir()} == {*OUTPUTS, "result.json"}


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path):
    (tmp_path / "out").write_text("a file stands where the folder should be")
    result = write_result(_measured([]), tmp_path / "out")
    assert (result.status, result.code, result.again) == ("failed", "cannot-write", True)
    assert (tmp_path / "out").read_text() == "a file stands where the folder should be"


# --- ours, or not touched ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("report.dcm", "it has report.dcm"),
        ("overlay/001.dcm", "it has overlay/001.dcm"),
        ("overlay/SECRETSON.dcm", "it has a file in overlay, which no"),  # it may be a patient's name
    ],
)
def test_a_file_that_no_result_lists_is_not_replaced(out, file, told):
    _write(out, [], "")
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    (out / file).write_text("somebody's own")
    with pytest.raises(FileExistsError, match=told):
        _run(out, FILES, "new")
    assert _contents(out) == {file: "somebody's own"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"outputs": 7}', '{"outputs": [{"file": ""}]}', "\0"])
def test_a_result_json_that_is_not_ours_is_not_replaced(out, content):
    out.mkdir()
    (out / "result.json").write_text(content)
    with pytest.raises(FileExistsError, match="not ours"):
        _run(out, FILES, "new")
    result = write_result(REFUSED, out)
    assert (result.status, result.code) == ("failed", "cannot-write")
    assert _contents(out) == {"result.json": content}


@pytest.mark.parametrize("file", ["../treasure", "overlay/../../treasure", "/{}", "notes.txt"])
def test_a_result_json_cannot_name_what_lies_elsewhere(out, tmp_path, file):
    (tmp_path / "treasure").write_text("kept")
    (out / "overlay").mkdir(parents=True)
    (out / "notes.txt").write_text("kept")
    rows = [{"file": file.format(str(tmp_path / "treasure").lstrip("/"))}]
    (out / "result.json").write_text(json.dumps({"outputs": rows}))
    write_result(REFUSED, out)
    assert (tmp_path / "treasure").read_text() == (out / "notes.txt").read_text() == "kept"


# --- one run at a time, and killed at any moment ----------------------------------------------------------------------


def test_while_a_run_works_in_the_folder_no_other_does(out):
    with only_run_in(out):
        other = os.open(out, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_a_run_that_fails_lets_the_next_one_in(out):
    with pytest.raises(KeyError), only_run_in(out):
        raise KeyError
    _run(out, FILES, "new")
    assert set(_outputs(out).values()) == {"new"}


CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
NEW = ["report.dcm", "report.png", "overlay/001.dcm"]


def _run_and_be_killed(path: Path, after: int) -> None:
    """A run that is killed before it makes that many changes to the disk."""
    seen = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in CHANGES:
            seen += 1
            if seen == after:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    _run(path, NEW, "new")


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_leaves_what_the_next_one_can_clear(out):
    killed = kept = 0
    exit_code = -signal.SIGKILL
    while exit_code == -signal.SIGKILL:
        _run(out, FILES, "earlier")
        killed += 1
        child = multiprocessing.get_context("fork").Process(target=_run_and_be_killed, args=(out, killed))
        child.start()
        child.join(600)
        exit_code = child.exitcode

        contents = {file: text for file, text in _contents(out).items() if not file.startswith(UNFINISHED)}
        contents.pop(".result.json.unfinished", None)
        result = json.loads(contents.pop("result.json"))
        listed = {row["file"] for row in result["outputs"]}
        if result["status"] == "success":  # all of it is there, of one run
            assert contents in (dict.fromkeys(FILES, "earlier"), dict.fromkeys(NEW, "new"))
            assert listed == set(contents)
            kept += contents == dict.fromkeys(FILES, "earlier")
        else:
            assert (result["code"], result["again"], result["volumes_mm3"]) == ("interrupted", True, None)
            assert set(contents) <= listed
    assert exit_code == 0
    assert killed > len(FILES) + len(NEW)
    assert 0 < kept < killed - 1  # so that both happened
    write_result(REFUSED, out)
    assert [path.name for path in out.iterdir()] == ["result.json"]
