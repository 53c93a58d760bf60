"""The table of codes is complete and says nothing that is not so; a stop is one line."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import refusal
from common.refusal import CODES, FAILED, REFUSED, Failure, Refusal

SOURCES = Path(refusal.__file__).parents[1]

STATUS = {"Refusal": REFUSED, "Failure": FAILED}


def _nodes() -> Iterator[ast.AST]:
    """The syntax of all programs, but for the table."""
    for path in set(SOURCES.rglob("*.py")) - {Path(refusal.__file__)}:
        yield from ast.walk(ast.parse(path.read_text()))


def _stops() -> set[tuple[str, str]]:
    """Every code with which a Refusal or Failure is made, or that is named geometry-..., with its status."""
    stops = set()
    for node in _nodes():
        if isinstance(node, ast.Call):
            status = STATUS.get(getattr(node.func, "id", getattr(node.func, "attr", "")))
            given = [part for argument in node.args[:1] for part in ast.walk(argument)] if status else []
            stops |= {(part.value, status) for part in given if isinstance(part, ast.Constant)}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"geometry(-[a-z]+)+", str(node.value)):
            stops.add((node.value, REFUSED))
    return stops


def test_every_code_is_in_the_table():
    stops = _stops()
    assert len(stops) > 20
    assert stops <= {(code.name, code.status) for code in CODES.values()}


def test_the_table_has_no_other():
    """Some codes are chosen before the stop is made of them."""
    assert set(CODES) <= {node.value for node in _nodes() if isinstance(node, ast.Constant)}


def test_each_code_has_a_name_of_words_a_meaning_and_one_to_blame():
    for name, code in CODES.items():
        assert name == code.name
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert code.meaning
        assert code.advice
        assert code.status in (REFUSED, FAILED)


def test_a_refusal_is_final_and_only_a_failure_may_be_worth_another_try():
    assert {code.status for code in CODES.values() if code.again} == {FAILED}


@pytest.mark.parametrize(("stop", "code"), [(Refusal, "cannot-read"), (Failure, "geometry-gap")])
def test_the_fault_cannot_be_put_on_the_other(stop, code):
    with pytest.raises(ValueError, match=code):
        stop(code, "whatever")


@pytest.mark.parametrize("stop", [Refusal, Failure])
def test_there_is_no_code_but_those_of_the_table(stop):
    with pytest.raises(KeyError):
        stop("no-such-code", "whatever")


@pytest.mark.parametrize("stop", [Refusal("no-dicom", "nothing here"), Failure("cannot-read", "the disk is gone")])
def test_a_stop_arrives_from_another_process_as_it_was(stop):
    arrived = pickle.loads(pickle.dumps(stop))
    assert (type(arrived), arrived.code, arrived.reason) == (type(stop), stop.code, stop.reason)


def test_what_a_file_says_cannot_break_the_line():
    assert str(Refusal("no-dicom", "one\ntwo\x1b[31mthree")) == "one two [31mthree [no-dicom]"


def test_what_a_file_says_cannot_flood_the_screen():
    assert len(Failure("cannot-read", "x" * 100_000).reason) == 1000


@pytest.mark.parametrize("stop", [Refusal("no-dicom", "nothing here"), Failure("no-scheduler", "nothing here")])
def test_a_stop_reads_as_its_reason_with_the_code_in_brackets(stop):
    assert str(stop) == f"nothing here [{stop.code}]"
