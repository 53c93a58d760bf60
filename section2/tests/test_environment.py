"""Without the packages, or under an old Python, programs say in one line what will do, and exit with 2."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SECTION = Path(__file__).resolve().parents[1]
FILES = [*SECTION.glob("src/*.py"), *SECTION.glob("analyses/*.py")]
PROGRAMS = sorted(path for path in FILES if '__name__ == "__main__"' in path.read_text())
AS_OLD = "import sys; sys.version_info = (3, 9, 18, 'final', 0); sys.path.insert(0, {!r}); import {}"


def assert_one_line(words: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-S", *arguments]  # -S: the standard library alone
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert words in result.stderr
    assert f": run `make .venv/ready` in {SECTION.parent}, then" in result.stderr


def test_all_programs_are_found():
    assert {"run_ml_pipeline", "predict", "combine_runs", "studies"} <= {path.stem for path in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_bare_python(program):
    assert_one_line(" lacks ", program, "--help")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_old_python(program):
    ast.parse(program.read_text(), feature_version=(3, 8))  # what it cannot parse it cannot run, not even to say so
    code = AS_OLD.format(str(program.parent), program.stem)
    assert_one_line("is Python 3.9, and 3.10 or newer is needed", "-c", code)
