"""Which studies are in the folder, when they are complete, and where their files go; nothing that came is ever lost."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path

import pydicom
import pytest

from node import incoming as module
from node.incoming import DONE, FAILED, OWN, PAUSE, UNIDENTIFIED, Incoming
from node.study_queue import Report, StudyQueue
from phantom import StudyHeader, make_phantom, write_series
from reading.dicom_series import list_files

QUIET, LONGEST = 30, 900


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming"


@pytest.fixture
def incoming(folder, clock) -> Incoming:
    return Incoming(folder, QUIET, LONGEST, clock)


@pytest.fixture
def queue(tmp_path, clock):
    with StudyQueue(tmp_path / "queue.sqlite3", clock) as one:
        yield one


@pytest.fixture
def receive(folder, tmp_path) -> Callable:
    """receive(seed, folder name, first, last): slices of the study of that seed arrive; returns its UID."""

    def arrive(seed: int = 1, name: str = "st", first: int = 0, last: int = 6, **more: object) -> str:
        study = StudyHeader.from_seed(seed)
        image = make_phantom(0, shape=(20, 20, 6)).image
        paths = sorted(write_series(tmp_path / f"sent{seed}{len(more)}", image, study=study, seed=seed, **more))
        for path in paths[first:last]:
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(path, folder / name / path.name)
        return study.study_uid

    return arrive


def state(queue: StudyQueue, uid: str) -> str | None:
    return next((one["state"] for one in queue.studies() if one["study_uid"] == uid), None)


def claims(queue: StudyQueue) -> dict[str, int]:
    """The studies that can be worked on, with the number of their files."""
    found = {}
    while claim := queue.claim(1000):
        found[claim.study_uid] = len(claim.files)
    return found


def names(folder: Path) -> list[str]:
    return [path.name for path in list_files(folder)]


def test_a_study_in_two_halves_with_a_pause_shorter_than_the_quiet_time_is_one_round(incoming, queue, clock, receive):
    uid = receive(last=3)
    incoming.watch(queue)
    clock.wait(QUIET - 1)
    receive(first=3)
    incoming.watch(queue)
    clock.wait(QUIET - 1)
    incoming.watch(queue)
    assert claims(queue) == {}
    clock.wait(1)
    incoming.watch(queue)
    assert claims(queue) == {uid: 6}


def test_times_of_files_mean_nothing(incoming, queue, clock, receive, folder):
    """A clock that jumps: the first files come from the future, the second from long ago."""
    uid = receive(last=3)
    for path in list_files(folder):
        os.utime(path, (4e9, 4e9))
    incoming.watch(queue)
    clock.wait(QUIET - 1)
    receive(first=3)
    for path in list_files(folder)[3:]:
        os.utime(path, (1, 1))
    incoming.watch(queue)
    clock.wait(QUIET - 1)
    incoming.watch(queue)
    assert claims(queue) == {}
    clock.wait(1)
    incoming.watch(queue)
    assert claims(queue) == {uid: 6}


def test_a_study_that_never_completes_is_taken_at_last(incoming, queue, clock, receive, folder):
    uid = receive()
    path = list_files(folder)[0]
    while not claims(queue):
        assert clock.now < 1000 + 2 * LONGEST
        os.utime(path, (clock.now, clock.now))
        clock.wait(QUIET / 2)
        incoming.watch(queue)
    assert clock.now >= 1000 + LONGEST
    assert state(queue, uid) == "validating"


class Asked:
    """An archive that answers when it is told to: with a number, or by failing."""

    def __init__(self) -> None:
        self.answers, self.questions = [], []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, study_uid: str) -> int:
        self.questions.append(study_uid)
        assert self.may_answer.wait(600)
        if isinstance(answer := self.answers[-1], Exception):
            raise answer
        return answer


@pytest.fixture
def asked() -> Iterator[Asked]:
    one = Asked()
    yield one
    one.may_answer.set()


@pytest.fixture
def asking(folder, clock, asked) -> Iterator[Incoming]:
    """A folder beside an archive that can be asked."""
    one = Incoming(folder, QUIET, LONGEST, clock, asked)
    yield one
    one.stop()


def answered(asking, queue, clock, seconds=PAUSE) -> None:
    """After so many seconds without news the question was put and answered."""
    asking.watch(queue)
    clock.wait(seconds)
    asking.watch(queue)
    for _, answer in asking._asking._questions.values():
        wait([answer])
    asking.watch(queue)


def test_a_study_of_which_the_archive_holds_no_more_is_not_waited_for(asking, asked, queue, clock, receive):
    asked.answers = [6]
    uid = receive()
    asking.watch(queue)
    clock.wait(PAUSE / 2)
    asking.watch(queue)
    assert asked.questions == [] and claims(queue) == {}
    answered(asking, queue, clock)
    assert asked.questions == [uid] and claims(queue) == {uid: 6}


@pytest.mark.parametrize("answer", [7, 0, ValueError("it makes no sense")])
def test_a_study_of_which_it_holds_more_or_nothing_or_does_not_say_is(asking, asked, queue, clock, receive, answer):
    asked.answers = [answer]
    uid = receive()
    answered(asking, queue, clock)
    answered(asking, queue, clock, QUIET - PAUSE - 1)
    assert asked.questions == [uid] and claims(queue) == {}  # one question for one pause
    clock.wait(1)
    asking.watch(queue)
    assert claims(queue) == {uid: 6}


def test_it_is_asked_again_when_more_has_come(asking, asked, queue, clock, receive):
    asked.answers = [6]
    uid = receive(last=4)
    answered(asking, queue, clock)
    assert claims(queue) == {}
    receive(first=4)
    answered(asking, queue, clock)
    assert asked.questions == [uid, uid] and claims(queue) == {uid: 6}


def test_an_archive_that_does_not_answer_holds_up_nobody(asking, asked, queue, clock, receive):
    asked.answers = [6]
    asked.may_answer.clear()
    uids = {receive(seed=seed, name=f"st{seed}") for seed in (1, 2)}
    asking.watch(queue)
    clock.wait(PAUSE)
    asking.watch(queue)
    assert claims(queue) == {}
    clock.wait(QUIET)
    asking.watch(queue)
    assert set(claims(queue)) == uids


def test_the_same_slice_twice_is_not_two(asking, asked, queue, clock, receive, folder):
    asked.answers = [6]
    receive(last=5)
    first = list_files(folder)[0]
    shutil.copy(first, first.with_name("again"))
    answered(asking, queue, clock)
    assert claims(queue) == {}


def test_of_a_later_round_it_is_not_asked(asking, asked, queue, clock, receive):
    asked.answers = [3]
    uid = receive(last=3)
    answered(asking, queue, clock)
    claim = queue.claim(1000)
    queue.reported(claim, Report(DONE))
    asking.put_away(uid, claim.files, True)
    receive(first=3)
    answered(asking, queue, clock)
    assert asked.questions == [uid] and claims(queue) == {}
    clock.wait(QUIET)
    asking.watch(queue)
    assert set(claims(queue)) == {uid}


def test_it_does_not_hold_up_others(incoming, queue, clock, receive, folder):
    receive(1, "endless")
    other = receive(2, "other")
    for _ in range(4):
        os.utime(list_files(folder / "endless")[0], (clock.now, clock.now))
        incoming.watch(queue)
        clock.wait(QUIET / 2)
    assert claims(queue) == {other: 6}


@pytest.mark.parametrize("name", [".", "same"])
def test_studies_in_one_folder_are_told_apart(incoming, queue, clock, receive, name):
    one, other = receive(1, name), receive(2, name)
    incoming.watch(queue)
    clock.wait(QUIET)
    incoming.watch(queue)
    assert claims(queue) == {one: 6, other: 6}


def test_a_study_in_two_folders_is_one(incoming, queue, clock, receive):
    uid = receive(1, "a", last=3)
    receive(1, "b", first=3)
    incoming.watch(queue)
    clock.wait(QUIET)
    incoming.watch(queue)
    assert claims(queue) == {uid: 6}


def test_a_damaged_file_goes_with_the_study_in_its_folder(incoming, queue, clock, receive, folder):
    uid = receive()
    (folder / "st" / "damaged").write_bytes(list_files(folder)[0].read_bytes()[:200])
    incoming.watch(queue)
    clock.wait(QUIET)
    incoming.watch(queue)
    assert claims(queue) == {uid: 7}


def test_what_belongs_to_no_study_is_told_when_it_is_quiet(incoming, queue, clock, folder):
    (folder / "notes.txt").write_text("half")
    (folder / ".hidden").write_text("being written")
    incoming.watch(queue)
    assert state(queue, UNIDENTIFIED) is None
    clock.wait(QUIET)
    incoming.watch(queue)
    assert claims(queue) == {UNIDENTIFIED: 1}


def test_our_own_results_are_no_input(incoming, queue, clock, receive, folder):
    uid = receive(description="HippoVolume.AI report")
    incoming.watch(queue)
    assert list_files(folder / "st")  # they may be half written
    clock.wait(QUIET)
    incoming.watch(queue)
    assert queue.studies() == []
    assert len(names(folder / OWN / uid)) == 6
    assert list_files(folder / "st") == []


def test_our_own_results_beside_a_study_are_left_out_of_it(incoming, queue, clock, receive, folder):
    uid = receive()
    receive(description="HippoVolume.AI report")
    incoming.watch(queue)
    clock.wait(QUIET)
    incoming.watch(queue)
    assert claims(queue) == {uid: 6}


def test_a_file_that_breaks_its_reader_holds_up_no_other(incoming, queue, clock, receive, folder, monkeypatch):
    uid = receive()
    (folder / "bomb").write_bytes(b"DICM" * 100)
    usual = module.read_instance

    def read(path, digest):
        if path.name == "bomb":
            raise MemoryError
        return usual(path, digest)

    monkeypatch.setattr(module, "read_instance", read)
    incoming.watch(queue)
    clock.wait(QUIET)
    incoming.watch(queue)
    assert claims(queue) == {uid: 6, UNIDENTIFIED: 1}


def test_own_results_that_cannot_be_moved_hold_up_no_other(incoming, queue, clock, receive, folder):
    receive(2, "back", description="HippoVolume.AI report")
    uid = receive(1)
    (folder / OWN).write_text("in the way")
    incoming.watch(queue)
    clock.wait(QUIET)
    with pytest.raises(OSError):
        incoming.watch(queue)
    assert claims(queue) == {uid: 6}


def test_a_folder_in_which_looking_takes_long_is_looked_at_less_often(incoming, queue, clock, receive, monkeypatch):
    looks, usual = [], incoming._look

    def slow():
        looks.append(clock.now)
        clock.wait(10)
        usual()

    monkeypatch.setattr(incoming, "_look", slow)
    for _ in range(200):
        incoming.watch(queue)
        clock.wait(1)
    assert [int(one - looks[0]) for one in looks[:3]] == [0, 60, 120]


def test_a_folder_that_is_not_there_is_an_error(tmp_path, queue, clock):
    with pytest.raises(OSError):
        Incoming(tmp_path / "nowhere", QUIET, LONGEST, clock).watch(queue)


# --- putting away -----------------------------------------------------------------------------------------------------


def files_now(incoming: Incoming, queue: StudyQueue, clock) -> dict:
    incoming.watch(queue)
    clock.wait(QUIET)
    incoming.watch(queue)
    return queue.claim(1000).files


@pytest.mark.parametrize(("well", "place"), [(True, DONE), (False, FAILED)])
def test_input_is_moved_and_what_came_since_stays(incoming, queue, clock, receive, folder, well, place):
    uid = receive(last=4)
    before = {path.name: path.read_bytes() for path in list_files(folder)}
    files = files_now(incoming, queue, clock)
    receive(first=4)
    changed = list_files(folder)[0]
    os.utime(changed, (1, 1))
    incoming.put_away(uid, files, well)
    moved = {path.name: path.read_bytes() for path in list_files(folder / place / uid)}
    assert moved == {name: content for name, content in before.items() if name != changed.name}
    assert len(names(folder / "st")) == 3


def test_a_second_round_finds_the_first(incoming, queue, clock, receive, folder):
    uid = receive(last=4)
    incoming.put_away(uid, files_now(incoming, queue, clock), True)
    receive(first=4)
    incoming.watch(queue)
    files = {path.name: [0, 0] for path in list_files(folder / "st")}
    found = incoming.files_of(uid, {f"st/{name}": signature for name, signature in files.items()})
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in found}) == 6


def test_what_was_set_aside_and_then_went_well_moves_on(incoming, queue, clock, receive, folder):
    uid = receive()
    files = files_now(incoming, queue, clock)
    incoming.put_away(uid, files, False)
    incoming.put_away(uid, files, True)
    assert len(names(folder / DONE / uid)) == 6
    assert not (folder / FAILED / uid).exists()


def test_the_same_file_again_takes_its_own_place_and_another_gets_another_name(incoming, queue, clock, receive, folder):
    uid = receive()
    incoming.put_away(uid, files_now(incoming, queue, clock), True)
    receive()
    paths = list_files(folder / "st")
    paths[0].write_bytes(paths[0].read_bytes() + b"\0\0")
    signatures = {str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    incoming.put_away(uid, signatures, True)
    assert sorted(names(folder / DONE / uid)) == sorted([*(path.name for path in paths), f"{paths[0].name}.2"])


def test_input_that_another_node_has_put_away_is_no_error(incoming, queue, clock, receive, folder, monkeypatch):
    uid = receive()
    files = files_now(incoming, queue, clock)
    incoming.put_away(uid, files, True)
    incoming.put_away(uid, files, True)
    incoming._move([folder / "st" / "gone"], folder / DONE / uid)
    assert len(names(folder / DONE / uid)) == 6


def test_input_that_went_well_is_kept_for_ever_or_as_long_as_is_said(incoming, folder):
    for place, uid in ((DONE, "1.1"), (DONE, "1.2"), (FAILED, "1.3"), (OWN, "1.4")):
        (folder / place / uid).mkdir(parents=True)
        if uid != "1.2":
            os.utime(folder / place / uid, (1e9, 1e9))
    incoming.forget(30)
    assert [path.name for path in sorted(folder.glob("*/*"))] == ["1.2", "1.3"]


def test_a_folder_that_was_empty_for_long_is_removed(incoming, queue, clock, folder):
    """Not at once: the listener that made it may be about to write into it."""
    (folder / "st" / "deeper").mkdir(parents=True)
    incoming.watch(queue)
    clock.wait(LONGEST - 1)
    incoming.watch(queue)
    assert (folder / "st").exists()
    clock.wait(1)
    incoming.watch(queue)
    assert not (folder / "st").exists()
