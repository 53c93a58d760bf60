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


def test_the_copy_of_this_folder_is_that_of_the_data():
    """Sections do not import one another, so each has its own; a change of one is a change of all."""
    copies = [PROGRAM.parents[1] / folder / "environment.py" for folder in ("data", "section1")]
    assert copies[0].read_text() == copies[1].read_text()
