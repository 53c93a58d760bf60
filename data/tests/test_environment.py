"""Without the packages, or under an old Python, programs say in one line what will do, and exit with 2."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import phantom

HERE = Path(phantom.__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )


def assert_one_line(words: str, *arguments: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert f"{words}: run `make .venv/ready` in {HERE.parent}, then" in result.stderr


@pytest.mark.parametrize(
    ("program", "package"),
    [("phantom.py", "numpy"), ("make_atlas.py", "nibabel"), ("phantom_figure.py", "matplotlib")],
)
def test_a_bare_python(program, package):
    assert_one_line(f"lacks {package}", "-S", program, "--help")  # -S: the standard library alone


def test_a_package_that_is_needed_later_on(tmp_path):
    """The clinic's environment has what the DICOM half of phantom.py needs, and no nibabel."""
    code = f"import sys, phantom; sys.modules['nibabel'] = None; phantom.main(['nifti', '--out', {str(tmp_path)!r}])"
    assert_one_line("lacks nibabel", "-c", code)


@pytest.mark.parametrize("program", ["get_data", "phantom", "make_atlas", "phantom_figure"])
def test_an_old_python(program):
    code = f"import sys; sys.version_info = (3, 9, 18, 'final', 0); import {program}"
    assert_one_line("is Python 3.9, and 3.10 or newer is needed", "-c", code)


def test_old_pythons_can_read_the_programs():
    """What they cannot parse they cannot run, not even to say so."""
    for path in HERE.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))


def test_other_errors_keep_their_traceback():
    result = run("-c", "import environment; 1 / 0")
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stderr
