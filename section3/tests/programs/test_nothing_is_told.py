"""No program tells anybody of its use: the runtime of the models would, and keeps a number for this machine at home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
HEAD, MODEL = ROOT / "data" / "demo_head.nii.gz", ROOT / "section3" / "model" / "model.onnx"


@pytest.mark.parametrize(
    "command",
    [
        ("section3/src/measure_nifti.py", HEAD, "--out", "out"),
        ("section2/src/predict.py", "--model-path", MODEL, "--images", HEAD, "--out", "out"),
    ],
    ids=["clinic", "training"],
)
def test_a_program_leaves_nothing_at_home_and_asks_no_server(tmp_path, command):
    # Nothing else of this environment: what looks like a build server is told less of.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "MPLCONFIGDIR": str(tmp_path / "plots")}
    (tmp_path / "home").mkdir()
    program, *options = command
    done = subprocess.run(
        [sys.executable, ROOT / program, *map(str, options)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "out").is_dir() and "onnxruntime" not in done.stderr
    assert [path.name for path in (tmp_path / "home").rglob("*")] == []
