"""The queue keeps what it was told, gives each study to one at a time, and knows no clock that can be set."""

import sqlite3
import threading

import pytest

from node.study_queue import (
    DISCOVERED,
    DONE,
    FAILED,
    IN_WORK,
    INFERRING,
    SENDING,
    VALIDATING,
    WARNING,
    Claim,
    ClaimLost,
    NothingToRetryError,
    Pauses,
    QueueError,
    Report,
    StudyQueue,
)

UID, OTHER = "1.2.3", "1.2.4"
FILES = {"st/a": [10, 1], "st/b": [10, 2]}
LEASE, LONGEST = 60, 900
PAUSES = Pauses(first=5, factor=2, longest=15, attempts=4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def queue(path, clock):
    with StudyQueue(path, clock, boot="first") as one:
        yield one


def state(queue: StudyQueue, uid: str = UID) -> str:
    return next(one["state"] for one in queue.studies() if one["study_uid"] == uid)


def complete(queue: StudyQueue, uid: str = UID) -> None:
    assert queue.observe(uid, FILES, True, LONGEST)


def claimed(queue: StudyQueue, uid: str = UID) -> Claim:
    complete(queue, uid)
    claim = queue.claim(LEASE)
    assert claim.study_uid == uid
    return claim


def sending(queue: StudyQueue, *destinations: str, content: str = "one") -> None:
    assert queue.reported(claimed(queue), Report(DONE, content=content), destinations) == SENDING


# --- arriving ---------------------------------------------------------------------------------------------------------


def test_a_study_is_claimed_when_it_is_complete_and_not_before(queue, clock):
    assert not queue.observe(UID, FILES, False, LONGEST)
    assert (state(queue), queue.claim(LEASE)) == (DISCOVERED, None)
    complete(queue)
    claim = queue.claim(LEASE)
    assert (claim.study_uid, claim.round, claim.files) == (UID, 1, FILES)
    assert state(queue) == VALIDATING
    assert queue.claim(LEASE) is None


def test_a_study_that_is_never_quiet_is_complete_at_last(queue, clock):
    for second in range(LONGEST):
        assert not queue.observe(UID, {"a": [second, second]}, False, LONGEST)
        clock.wait(1)
    assert queue.observe(UID, {"a": [LONGEST, 0]}, False, LONGEST)
    assert queue.claim(LEASE).files == {"a": [LONGEST, 0]}


def test_a_study_whose_files_are_gone_does_not_wait_for_ever(queue, clock):
    queue.observe(UID, FILES, False, LONGEST)
    queue.complete_overdue(LONGEST)
    assert queue.claim(LEASE) is None
    clock.wait(LONGEST)
    queue.complete_overdue(LONGEST)
    assert queue.claim(LEASE).study_uid == UID


def test_a_slice_that_comes_before_the_work_makes_it_wait_again(queue):
    complete(queue)
    late = {**FILES, "st/c": [1, 1]}
    assert not queue.observe(UID, late, False, LONGEST)
    assert queue.claim(LEASE) is None
    queue.observe(UID, late, True, LONGEST)
    claim = queue.claim(LEASE)
    assert (claim.round, claim.files) == (1, late)


def test_late_slices_wait_for_the_end_of_the_work_and_are_a_new_round(queue):
    claim = claimed(queue)
    late = {**FILES, "st/c": [1, 1]}
    assert not queue.observe(UID, late, True, LONGEST)
    assert state(queue) == VALIDATING
    assert queue.reported(claim, Report(DONE)) == DONE
    assert queue.observe(UID, late, True, LONGEST)
    again = queue.claim(LEASE)
    assert (again.round, again.files) == (2, late)


def test_what_is_known_is_no_new_round(queue):
    queue.reported(claimed(queue), Report(DONE))
    assert queue.observe(UID, FILES, True, LONGEST)
    assert state(queue) == DONE


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", IN_WORK)
def test_a_claim_ends_in_every_state_and_who_lost_it_changes_nothing(queue, clock, at):
    lost = claimed(queue)
    queue.enter(lost, at)
    clock.wait(LEASE - 1)
    assert queue.claim(LEASE) is None
    clock.wait(1)
    claim = queue.claim(LEASE)
    assert (claim.study_uid, claim.round, state(queue)) == (UID, 1, VALIDATING)
    for action in (
        lambda: queue.enter(lost, INFERRING),
        lambda: queue.reported(lost, Report(DONE), ["a"]),
        lambda: queue.postpone(lost, "cannot-read", ""),
        lambda: queue.set_aside(lost, "bad-model", ""),
    ):
        with pytest.raises(ClaimLost):
            action()
    assert state(queue) == VALIDATING
    queue.enter(claim, INFERRING)


def test_a_claim_that_is_renewed_lasts(queue, clock):
    claim = claimed(queue)
    for _ in range(5):
        clock.wait(LEASE - 1)
        queue.renew([claim.token], LEASE)
        assert queue.claim(LEASE) is None
    queue.enter(claim, INFERRING)


def test_many_nodes_at_once_take_each_study_once(path, clock, queue):
    uids = [f"1.2.{number}" for number in range(40)]
    for uid in uids:
        complete(queue, uid)
    taken, barrier = [], threading.Barrier(4)

    def take() -> None:
        with StudyQueue(path, clock, boot="first") as mine:
            barrier.wait(600)
            while claim := mine.claim(LEASE):
                taken.append(claim.study_uid)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert sorted(taken) == sorted(uids)


def test_a_study_on_which_all_die_is_set_aside_and_the_next_one_has_its_turn(queue, clock):
    complete(queue)
    for _ in range(PAUSES.attempts):
        assert queue.claim(LEASE, PAUSES).study_uid == UID
        clock.wait(LEASE)
    complete(queue, OTHER)
    assert queue.claim(LEASE, PAUSES).study_uid == OTHER
    (row,) = (one for one in queue.studies() if one["study_uid"] == UID)
    assert (row["state"], row["code"]) == (FAILED, "worker-died")


def test_after_a_start_of_the_machine_nothing_is_lost_and_nobody_waits(path, clock, queue):
    claimed(queue)
    complete(queue, OTHER)
    postponed = queue.claim(LEASE)
    queue.postpone(postponed, "cannot-read", "", PAUSES)
    clock.now = 1.0
    assert queue.claim(LEASE) is None
    with StudyQueue(path, clock, boot="second") as new:
        assert {new.claim(LEASE).study_uid, new.claim(LEASE).study_uid} == {UID, OTHER}
    with StudyQueue(path, clock, boot="second") as same:  # only the first one of this start
        assert same.claim(LEASE) is None


# --- failures ---------------------------------------------------------------------------------------------------------


def test_what_fails_is_tried_again_with_growing_pauses_and_set_aside(queue, clock):
    complete(queue)
    for pause in (5, 10, 15):
        claim = queue.claim(LEASE, PAUSES)
        assert queue.postpone(claim, "cannot-read", "gone", PAUSES) == DISCOVERED
        clock.wait(pause - 0.1)
        assert queue.claim(LEASE, PAUSES) is None
        clock.wait(0.1)
    claim = queue.claim(LEASE, PAUSES)
    assert queue.postpone(claim, "cannot-read", "gone", PAUSES) == FAILED
    (row,) = queue.studies()
    assert (row["state"], row["code"], row["reason"]) == (FAILED, "cannot-read", "gone")
    clock.wait(1e6)
    assert queue.claim(LEASE, PAUSES) is None


def test_what_was_set_aside_begins_again_when_somebody_says_so(queue):
    queue.set_aside(claimed(queue), "bad-model", "none")
    assert queue.retry(UID) == DISCOVERED
    claim = queue.claim(LEASE)
    with pytest.raises(NothingToRetryError, match="validating"):
        queue.retry(UID)
    queue.reported(claim, Report(DONE))
    with pytest.raises(NothingToRetryError, match="done"):
        queue.retry(UID)
    with pytest.raises(NothingToRetryError, match="no study"):
        queue.retry(OTHER)


def test_a_file_that_is_no_database_is_told(tmp_path, queue):
    (tmp_path / "text").write_text("no database at all" * 100)
    with pytest.raises(QueueError):
        StudyQueue(tmp_path / "text")


def test_a_full_disk_loses_the_claim_and_nothing_else(queue, clock):
    """SQLite's own limit stands for the disk; the work stops, and the study is there afterwards."""
    claim = claimed(queue)
    pages = queue._database.execute("PRAGMA page_count").fetchone()[0]
    queue._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises((ClaimLost, QueueError)):
        for number in range(10_000):
            queue.enter(claim, f"{number}" * 100)
    queue._database.execute("PRAGMA max_page_count = 100000")
    clock.wait(LEASE)
    queue._database.execute("UPDATE studies SET state = 'inferring'")
    assert queue.claim(LEASE).study_uid == UID


def test_a_transaction_is_whole_or_not_at_all(queue, path):
    claim = claimed(queue)
    with pytest.raises(ZeroDivisionError), queue._transaction():
        queue._to(UID, INFERRING)
        _ = 1 / 0
    assert state(queue) == VALIDATING
    queue.enter(claim, INFERRING)
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- sending ----------------------------------------------------------------------------------------------------------


def test_a_study_is_done_when_all_destinations_have_it(queue):
    sending(queue, "a", "b")
    for name, then in (("a", SENDING), ("b", DONE)):
        delivery = queue.claim_delivery(name, LEASE)
        assert queue.claim_delivery(name, LEASE) is None
        assert queue.delivered(delivery, True, "") == "stored"
        assert state(queue) == then


def test_a_destination_that_is_down_is_asked_with_growing_pauses_and_set_aside(queue, clock):
    sending(queue, "down", "up")
    for pause in (5, 10, 15):
        assert queue.delivered(queue.claim_delivery("down", LEASE), False, "refused", PAUSES) == "pending"
        clock.wait(pause - 0.1)
        assert queue.claim_delivery("down", LEASE) is None
        clock.wait(0.1)
    assert queue.delivered(queue.claim_delivery("up", LEASE), True, "") == "stored"
    assert state(queue) == SENDING
    assert queue.delivered(queue.claim_delivery("down", LEASE), False, "refused", PAUSES) == "aside"
    (row,) = queue.studies()
    assert (row["state"], row["code"]) == (WARNING, "not-stored")
    assert {one["destination"]: one["state"] for one in row["deliveries"]} == {"down": "aside", "up": "stored"}


def test_retry_sends_to_all_that_do_not_have_it_and_to_no_other(queue):
    sending(queue, "a", "b", "c")
    queue.delivered(queue.claim_delivery("a", LEASE), True, "")
    for name in "bc":
        queue.delivered(queue.claim_delivery(name, LEASE), False, "", Pauses(1, 1, 1, 1))
    assert state(queue) == WARNING
    assert queue.retry(UID) == SENDING
    assert queue.claim_delivery("a", LEASE) is None
    for name in "bc":
        queue.delivered(queue.claim_delivery(name, LEASE), True, "")
    assert state(queue) == DONE


def test_one_bad_export_does_not_hold_up_the_next_study(queue, clock):
    sending(queue, "a")
    queue.delivered(queue.claim_delivery("a", LEASE), False, "refused")
    queue.reported(claimed(queue, OTHER), Report(DONE), ["a"])
    assert queue.claim_delivery("a", LEASE).study_uid == OTHER


def test_who_died_while_sending_is_replaced_and_not_believed(queue, clock):
    sending(queue, "a")
    lost = queue.claim_delivery("a", LEASE)
    clock.wait(LEASE)
    delivery = queue.claim_delivery("a", LEASE)
    assert queue.delivered(lost, True, "") is None
    assert state(queue) == SENDING
    queue.delivered(delivery, True, "")
    assert state(queue) == DONE


def test_a_new_round_waits_for_what_is_on_its_way_and_takes_its_place(queue):
    sending(queue, "a", "b")
    delivery = queue.claim_delivery("a", LEASE)
    queue.observe(UID, {"late": [1, 1]}, True, LONGEST)
    assert queue.claim(LEASE) is None  # its results would change under the courier's hands
    assert queue.claim_delivery("b", LEASE) is None  # no more of the old round is sent
    queue.delivered(delivery, True, "")
    claim = queue.claim(LEASE)
    assert claim.round == 2
    queue.reported(claim, Report(DONE, content="two"), ["a", "b"])
    for name in "ab":
        queue.delivered(queue.claim_delivery(name, LEASE), True, "")
    assert state(queue) == DONE


def test_what_a_destination_has_already_is_not_sent_again(queue):
    sending(queue, "a", "b")
    queue.delivered(queue.claim_delivery("a", LEASE), True, "")
    queue.observe(UID, {"again": [1, 1]}, True, LONGEST)
    queue.reported(queue.claim(LEASE), Report(DONE, content="one"), ["a", "b"])
    assert queue.claim_delivery("a", LEASE) is None
    queue.delivered(queue.claim_delivery("b", LEASE), True, "")
    assert state(queue) == DONE


def test_every_step_is_remembered(queue):
    claim = claimed(queue)
    queue.enter(claim, INFERRING)
    queue.reported(claim, Report(WARNING, "geometry-gap", "a slice is missing"))
    assert [one for _, one in queue.transitions(UID)] == [DISCOVERED, VALIDATING, INFERRING, SENDING, WARNING]
