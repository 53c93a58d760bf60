"""Without the packages, programs say in one line where they are, and exit with 2."""

import subprocess
import sys
from pathlib import Path

import pytest

import phantom

HERE = Path(phantom.__file__).parent


def assert_one_line(package: str, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, *arguments], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert f"lacks {package}: run `make .venv/ready`" in result.stderr


@pytest.mark.parametrize(
    ("program", "package"),
    [("phantom.py", "numpy"), ("make_atlas.py", "nibabel"), ("phantom_figure.py", "matplotlib")],
)
def test_a_bare_python(program, package):
    assert_one_line(package, "-S", program, "--help")  # -S: the standard library alone


def test_a_package_that_is_needed_later_on(tmp_path):
    """The clinic's environment has what the DICOM half of phantom.py needs, and no nibabel."""
    run = f"import sys, phantom; sys.modules['nibabel'] = None; phantom.main(['nifti', '--out', {str(tmp_path)!r}])"
    assert_one_line("nibabel", "-c", run)


def test_other_errors_keep_their_traceback():
    command = [sys.executable, "-c", "import environment; 1 / 0"]
    result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stderr
