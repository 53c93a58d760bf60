"""Without its packages a program says in one line which environment has them."""

import subprocess
import sys
from pathlib import Path

import pytest

SECTION = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "src/inference_dcm.py": ".venv-clinic",
    "src/batch_inference_dcm.py": ".venv-clinic",
    "calibration/fit_quality_limits.py": ".venv",
    "benchmarks/geometry.py": ".venv",
    "benchmarks/runtimes.py": ".venv",
}


@pytest.mark.parametrize(("program", "environment"), PROGRAMS.items())
def test_what_is_missing_is_one_line_and_exit_code_2(program, environment):
    command = [sys.executable, "-S", SECTION / program, "x"]  # -S: without the packages that are installed
    found = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert " lacks " in found.stderr
    assert f"run `make {environment}/ready` in {SECTION.parent}" in found.stderr
