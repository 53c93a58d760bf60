"""The table of codes is complete and says nothing that is not so."""

import ast
import re
from pathlib import Path

import refusal
from refusal import Refusal

SOURCES = Path(refusal.__file__).parent


def _codes_in_the_table() -> set[str]:
    return {line.split()[0] for line in refusal.__doc__.splitlines() if re.match(r"[a-z]+(-[a-z]+)+  +\S", line)}


def _codes_in_the_programs() -> set[str]:
    """First argument of Refusal(...), second of .stop(...) and .require_shown(...), and what is named geometry-..."""
    codes = set()
    for path in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                place = {"Refusal": 0, "stop": 1, "require_shown": 1}.get(name, len(node.args))
                given = [part for argument in node.args[place : place + 1] for part in ast.walk(argument)]
                codes |= {part.value for part in given if isinstance(part, ast.Constant)}
            elif isinstance(node, ast.Constant) and re.fullmatch(r"geometry(-[a-z]+)+", str(node.value)):
                codes.add(node.value)
    return codes


def test_every_code_is_in_the_table_and_the_table_has_no_other():
    assert _codes_in_the_programs() == _codes_in_the_table()


def test_what_a_file_says_cannot_break_the_line():
    assert str(Refusal("no-dicom", "one\ntwo\x1b[31mthree")) == "one two [31mthree [no-dicom]"


def test_a_refusal_reads_as_its_reason_with_the_code_in_brackets():
    assert str(Refusal("no-dicom", "nothing here")) == "nothing here [no-dicom]"
