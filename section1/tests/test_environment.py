"""Without the packages, curation.py says in one line where they are, and exits with 2."""

import subprocess
import sys
from pathlib import Path

import curation

PROGRAM = Path(curation.__file__)


def test_a_bare_python():
    command = [sys.executable, "-S", PROGRAM, "--help"]  # -S: the standard library alone
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert "lacks nibabel: run `make .venv/ready`" in result.stderr


def test_the_copies_of_all_folders_are_one():
    """Sections do not import one another, so each has its own; a change of one is a change of all."""
    folders = ("data", "section1", "section2/src")
    assert len({(PROGRAM.parents[1] / folder / "environment.py").read_text() for folder in folders}) == 1
