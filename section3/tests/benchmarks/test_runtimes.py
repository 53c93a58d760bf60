"""The comparison of runtimes: whole on a small model, and its arithmetic on made-up runs."""

import numpy as np
import pytest

import runtimes
from phantom import save_nifti

pytestmark = pytest.mark.slow


def _no_package(name: str) -> None:
    """Finds nothing, as where OpenVINO is not installed."""


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for n, shape in enumerate([(9, 11, 8), (10, 8, 9)]):
        volume = np.random.default_rng(n).uniform(0, 600, shape).astype(np.float32)
        save_nifti(volume, folder / f"volume_{n}.nii.gz")
    return folder


def test_without_openvino_it_says_so_and_compares_the_rest(images, threshold_model, capsys):
    out = images.parent / "runtimes.md"
    options = [str(threshold_model), "--images", str(images), "--repeats", "1", "--out", str(out)]
    assert runtimes.main(options, _no_package) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["OpenVINO is not installed and left out; `pip install openvino` adds it"]
    assert out.read_text() == printed.out
    rows = [line for line in printed.out.splitlines() if line.startswith("| ONNX Runtime")]
    assert len(rows) == sum(runtime.package == "onnxruntime" for runtime in runtimes.RUNTIMES)
    assert all(row.endswith("| 0 | 0.000% |") for row in rows)
    assert "OpenVINO" not in printed.out


def test_the_table_has_the_least_of_all_repeats_and_every_voxel_that_differs(tmp_path):
    first, second = runtimes.REFERENCE, runtimes.Runtime("another", "openvino")
    model = tmp_path / "model.onnx"
    costs = {first.name: iter([3.0, 1.0]), second.name: iter([2.0, 4.0])}

    def measured(path, runtime, volumes_path, labels_path):
        seconds = next(costs[runtime.name])
        labels = np.ones((2, 5, 1), np.uint8)
        labels[0, :3] = 0 if runtime == first else 2
        np.savez(labels_path, labels, labels)
        further = [[seconds / 1000, seconds / 500], [seconds / 100, seconds / 50], [seconds, seconds]]
        return {"study": [seconds, 2 * seconds], "study_memory": 100.0, "further": further, "memory": 200.0}

    table = runtimes.compare(
        model, [first, second], [np.zeros((2, 5, 1), np.float32)] * 2, repeats=2, measured=measured
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in table.splitlines()[2:]]
    assert rows == [
        ["1.00", "2.00", "100", "10", "20", "200", "0", "0.000%"],
        ["2.00", "4.00", "100", "20", "40", "200", "6", "42.857%"],
    ]


@pytest.mark.parametrize("content", [None, b"no model"])
def test_what_is_no_model_ends_in_one_line(tmp_path, images, capsys, content):
    path = tmp_path / "model.onnx"
    if content:
        path.write_bytes(content)
    assert runtimes.main([str(path), "--images", str(images)], _no_package) == 1
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


def test_too_few_volumes_end_in_one_line(tmp_path, capsys):
    assert runtimes.main(["--images", str(tmp_path)]) == 1
    assert "0 NIfTI files" in capsys.readouterr().err.splitlines()[-1]
