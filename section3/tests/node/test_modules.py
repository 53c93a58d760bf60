"""One node runs several modules: each gets its series, none keeps back what the others have made."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from common.refusal import Failure
from node.incoming import OWN
from node.modules import Module, load_modules
from phantom import write_study
from reading.dicom_series import list_files
from study.study_result import read_result

pytestmark = pytest.mark.slow

TOY = str(Path(__file__).parent / "toy_module.py")
HAS_RULES = [{"name": "brain", "attribute": "SeriesDescription", "test": "is", "values": ["HippoCrop"]}]


@pytest.fixture
def counter(tmp_path) -> Path:
    return tmp_path / "counter"


@pytest.fixture
def make_modules(tmp_path, counter) -> Callable[..., tuple[Module, ...]]:
    """make_modules(words after the command, ...): what a file with the toy says, with other words in it."""

    def make(*more: str, **changes: object) -> tuple[Module, ...]:
        command = [sys.executable, TOY, "{series}", "{output}", str(counter), *more]
        row = {"name": "toy", "command": command, "rules": "toy_rules.json", **changes}
        (tmp_path / "toy_rules.json").write_text(json.dumps(HAS_RULES))
        (tmp_path / "modules.json").write_text(json.dumps([row]))
        return load_modules(tmp_path / "modules.json")

    return make


@pytest.fixture
def arrive(tmp_path, blocks) -> Callable[[], str]:
    """arrive(): the study comes, once more; returns its UID."""

    def copy() -> str:
        if not (tmp_path / "sent").exists():
            write_study(tmp_path / "sent", blocks, seed=1, brain_series=1)
        shutil.copytree(tmp_path / "sent", tmp_path / "incoming" / "st", copy_function=shutil.copy, dirs_exist_ok=True)
        return str(pydicom.dcmread(list_files(tmp_path / "sent")[0]).StudyInstanceUID)

    return copy


def ours(bench, uid: str) -> set[str]:
    """The names of our own results."""
    outputs = read_result(bench.settings.output_dir / uid).outputs
    return {Path(one["file"]).name for one in outputs if one["sop_instance_uid"]}


def test_a_module_gets_its_series_and_what_it_makes_is_sent(make_bench, arrive, archive, make_modules, crop_files):
    bench = make_bench({"archive": archive}, modules=make_modules())
    uid = arrive()
    bench.settle()
    assert set(archive.stored) == {*ours(bench, uid), "toy.dcm"}
    made = pydicom.dcmread(list_files(bench.settings.output_dir / uid / "modules")[-1])
    assert made.ImageComments == f"{len(crop_files(bench.folder / 'sent'))} slices"
    assert bench.row(uid)["code"] is None
    assert "Phantom" not in "".join(bench.told)


def test_the_same_study_three_times_and_its_results_back_are_one_call(
    make_bench, arrive, archive, make_modules, counter
):
    bench = make_bench({"archive": archive}, modules=make_modules())
    for _ in range(3):
        uid = arrive()
        (bench.incoming / "back").mkdir(exist_ok=True)
        for name, content in archive.stored.items():
            (bench.incoming / "back" / name).write_bytes(content)
        bench.settle()
    assert counter.read_text() == "called\n"
    assert archive.asked == 1
    assert len(list_files(bench.incoming / OWN / uid)) == len(archive.stored)


@pytest.mark.parametrize(
    ("words", "changes", "says"),
    [
        (("HippoVolume.AI toy", "1.2.3"), {}, "toy.dcm is no object of the study"),
        (("Toy",), {}, "the SeriesDescription of toy.dcm does not begin with HippoVolume.AI"),
        ((), {"command": ["false"]}, "ended with exit code 1"),
        ((), {"command": ["no-such-program"]}, "cannot be run: No such file or directory"),
        ((), {"command": ["sleep", "1200"], "timeout": 0.1}, "not done within 0.1 s"),
    ],
)
def test_a_module_that_errs_is_told_and_keeps_nothing_back(
    make_bench, arrive, archive, make_modules, words, changes, says
):
    bench = make_bench({"archive": archive}, modules=make_modules(*words, **changes))
    uid = arrive()
    bench.settle()
    assert (bench.state(uid), bench.row(uid)["code"]) == ("warning", "helper-failed")
    assert f"module toy: {says}" in bench.row(uid)["reason"]
    assert set(archive.stored) == ours(bench, uid)
    assert not [path for path in bench.settings.output_dir.rglob("*") if "unfinished" in path.name]

    mended = make_bench({"archive": archive}, modules=make_modules())
    mended.queue.retry(uid)
    mended.step(3)
    assert mended.row(uid)["code"] is None
    assert set(archive.stored) == {*ours(bench, uid), "toy.dcm"}


def test_a_module_works_where_ours_refuses(make_bench, arrive, archive, make_modules, crop_files):
    bench = make_bench({"archive": archive}, modules=make_modules())
    uid = arrive()
    (bench.incoming / "st" / crop_files(bench.folder / "sent")[5].relative_to(bench.folder / "sent")).unlink()
    bench.settle()
    assert bench.row(uid)["code"] == "geometry-gap"
    assert set(archive.stored) == {"report.dcm", "toy.dcm"}


def test_a_series_that_is_meant_for_no_module_is_left_alone(make_bench, arrive, archive, make_modules, counter, edit):
    bench = make_bench({"archive": archive}, modules=make_modules())
    uid = arrive()
    edit(list_files(bench.incoming / "st"), lambda dataset: setattr(dataset, "SeriesDescription", "Other"))
    bench.settle()
    assert (bench.state(uid), bench.row(uid)["code"]) == ("done", "no-hippocrop-series")
    assert not counter.exists() and archive.asked == 0


def test_what_is_no_list_of_modules_is_told_before_anything_begins(tmp_path, make_modules):
    make_modules()
    (row,) = json.loads((tmp_path / "modules.json").read_text())
    path = tmp_path / "bad.json"
    for content in (
        {},
        [{}],
        ["toy"],
        [{**row, "name": "../toy"}],
        [{**row, "command": []}],
        [{**row, "command": "python toy.py"}],
        [{**row, "rules": "none.json"}],
        [{**row, "timeout": "long"}],
        [row, row],
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(Failure, match="bad-rules"):
            load_modules(path)
    with pytest.raises(Failure, match="bad-rules"):
        load_modules(tmp_path / "nowhere.json")
