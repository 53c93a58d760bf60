"""The notebook runs on phantoms, what is kept of it is fit to publish, and its pictures show what they say."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import curation
import eda_measures
import eda_plots

NOTEBOOK = Path(curation.__file__).with_name("EDA.ipynb")


def test_notebook_runs_on_phantoms(copy_of_clean_set, tmp_path):
    (copy_of_clean_set / "labels" / "hippocampus_003.nii.gz").unlink()  # a misfit to show
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", NOTEBOOK.name]
    result = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "run")],
        cwd=NOTEBOOK.parent,
        env=os.environ | {"HIPPO_DATA": str(copy_of_clean_set)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "7 pairs of 4 persons kept" in (tmp_path / "run" / NOTEBOOK.name).read_text()


def test_notebook_is_kept_with_its_pictures():
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 12
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert max(len(cell.source.splitlines()) for cell in cells) <= 5
    assert NOTEBOOK.stat().st_size < 3e6
    assert not any(str(output.get("text", "")).count("/") for output in outputs)


@pytest.fixture(scope="module")
def cases(clean_pairs, clean_set):
    return eda_measures.load_cases(clean_pairs, clean_set)


def test_outline_runs_along_the_voxels():
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    edges = {tuple(sorted(segment)) for segment in eda_plots.outline(mask)}
    assert edges == {
        ((1.5, 2.5), (1.5, 3.5)),
        ((2.5, 2.5), (2.5, 3.5)),
        ((1.5, 2.5), (2.5, 2.5)),
        ((1.5, 3.5), (2.5, 3.5)),
    }


@pytest.mark.parametrize("flip", [False, True])
def test_surface_shows_what_is_in_front(cases, flip):
    """Seen from the front the structure with the larger y hides the other; from the side it lies on the left."""
    label = np.zeros((30, 50, 30), np.uint8)
    label[10:20, 8:25, 10:20], label[10:20, 25:42, 10:20] = (1, 2) if flip else (2, 1)
    case = eda_measures.Case(cases[0].facts, label, label, np.ones(3))

    def structure(pixel):
        return "anterior" if pixel[0] > pixel[2] else "posterior"  # orange, blue

    front, side = eda_plots.render(case, 0, 0), eda_plots.render(case, 90, 0)
    rows, columns = side.shape[:2]
    first, second = ("posterior", "anterior") if flip else ("anterior", "posterior")
    assert structure(front[rows // 2, columns // 2]) == first
    assert structure(side[rows // 2, columns // 4]) == first
    assert structure(side[rows // 2, columns * 3 // 4]) == second
    assert (front[0] == 1).all()


def test_aligned_puts_the_label_in_the_middle(cases):
    for case in cases:
        low, high = eda_measures.bounding_box(eda_measures.aligned(case, case.label))
        np.testing.assert_array_less(np.abs(low + high - 2 * eda_measures.HALF), 2)


def test_hippocampi_of_a_person_are_more_alike(cases):
    same, different = eda_measures.neighbour_correlations(cases)
    assert (len(same), len(different)) == (4, 3)
    assert np.mean(same) > np.mean(different) + 0.1


def test_mirror_images_are_told_apart(cases):
    as_is, mirrored = eda_measures.mirror_correlations(cases)
    assert (as_is > mirrored).all()
