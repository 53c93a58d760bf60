"""What a send comes to, with archives that have other things than they said."""

import copy

import pydicom
import pytest

from archive.sending import LONGEST_PAUSE, ArchiveError, NotStoredError, send_to_archive


class Memory:
    """An archive; change(instances) is what it makes of what it holds."""

    def __init__(self, patience, change=lambda instances: instances, warnings=()):
        self.patience, self.change, self.warnings, self.held = patience, change, list(warnings), []

    def __str__(self):
        return "MEMORY"

    def store(self, paths):
        self.held = [pydicom.dcmread(path) for path in paths]
        return self.warnings

    def retrieve(self, sent):
        return self.change([copy.deepcopy(one) for one in self.held])


def _edited(instances, **values):
    for keyword, value in values.items():
        setattr(instances[1], keyword, value)
    return instances


def test_what_comes_back_as_it_was_is_proven(files, patience, pauses):
    outcome = send_to_archive(files, Memory(patience, warnings=["values were changed"]))
    assert (outcome.sent, outcome.stored) == (True, True)
    assert "MEMORY confirmed 3 of 3 files (values were changed)" in outcome.detail
    assert pauses == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda instances: _edited(instances, PatientID="OTHER"), "PatientID"),
        (lambda instances: _edited(instances, PixelData=bytes(len(instances[1].PixelData))), "PixelData"),
        (lambda instances: instances[:2], "missing"),
        (lambda instances: [], "missing"),
        (lambda instances: [instances[0], pydicom.Dataset()], "missing"),
        (lambda instances: _edited(instances, StudyInstanceUID="1.2.3"), "StudyInstanceUID"),
    ],
)
def test_anything_else_is_a_failure_that_quotes_no_value(files, patience, change, told):
    outcome = send_to_archive(files, Memory(patience, change))
    assert (outcome.sent, outcome.stored) == (True, False)
    assert told in outcome.detail
    assert "OTHER" not in outcome.detail and "PHANTOM" not in outcome.detail


def test_what_cannot_be_read_is_not_sent(files, patience):
    files[1].unlink()
    outcome = send_to_archive(files, Memory(patience))
    assert (outcome.sent, outcome.stored) == (False, None)


def test_an_archive_may_need_a_moment(files, patience):
    answers = iter([0, 2, 3])
    assert send_to_archive(files, Memory(patience, lambda instances: instances[: next(answers)])).stored


def test_an_archive_that_does_not_let_us_look_proves_nothing(files, patience, pauses):
    def refuse(_):
        raise ArchiveError("C-GET: not allowed")

    outcome = send_to_archive(files, Memory(patience, refuse))
    assert (outcome.sent, outcome.stored) == (True, None)
    assert "not proven: C-GET: not allowed" in outcome.detail
    assert pauses == []


@pytest.mark.parametrize(
    ("errors", "pauses_made"),
    [
        ([], 0),
        ([ArchiveError("busy", transient=True)], 1),
        ([NotStoredError("late"), ArchiveError("busy", transient=True)], 2),
    ],
)
def test_what_may_pass_is_tried_again(errors, pauses_made, patience, pauses):
    errors = iter(errors)

    def action():
        for error in errors:
            raise error
        return "done"

    assert patience.attempt(action) == "done"
    assert pauses == list(patience.pauses[:pauses_made])


@pytest.mark.parametrize(("transient", "calls"), [(True, 3), (False, 1)])
def test_what_does_not_pass_is_given_up(transient, calls, patience):
    made = []

    def action():
        made.append(1)
        raise ArchiveError("no", transient)

    with pytest.raises(ArchiveError, match="no"):
        patience.attempt(action)
    assert len(made) == calls


@pytest.mark.parametrize(("wait", "pause"), [(0, 1), (0.5, 1), (7, 7), (LONGEST_PAUSE, LONGEST_PAUSE)])
def test_it_is_not_asked_again_before_it_wants_to_be(wait, pause, patience, pauses):
    errors = iter([ArchiveError("busy", True, wait)])

    def action():
        for error in errors:
            raise error

    patience.attempt(action)
    assert pauses == [pause]


def test_one_that_wants_a_long_pause_is_not_waited_for(patience, pauses):
    def action():
        raise ArchiveError("busy", True, LONGEST_PAUSE + 1)

    with pytest.raises(ArchiveError):
        patience.attempt(action)
    assert pauses == []
