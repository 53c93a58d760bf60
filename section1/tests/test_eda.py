"""The notebook runs on phantoms, what is kept of it is fit to publish, and its pictures show what they say."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import nibabel as nib
import numpy as np
import pytest

import curation
import eda_measures
import eda_plots

NOTEBOOK = Path(curation.__file__).with_name("EDA.ipynb")


@pytest.mark.slow
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


def test_notebook_counts_the_shifted_labels_it_shows():
    """The number is that of the run, in the summary and in the list."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    text = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    in_summary = re.search(r"label_shifted (\d+)", text)[1]
    assert re.search(r"(\d+) of 208 labels are flagged as shifted", text)[1] == in_summary
    assert len(re.findall(r"^\d{3}: [+-]", text, re.MULTILINE)) == int(in_summary)


@pytest.fixture(scope="module")
def cases(clean_pairs, clean_set):
    return eda_measures.load_cases(clean_pairs, clean_set)


def test_header_says_bits_units_and_axes(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([-0.5, 2, 3, 1]))
    image.header.set_xyzt_units("mm", "msec")
    nib.save(image, tmp_path / "image.nii.gz")
    assert eda_measures.header_facts(tmp_path / "image.nii.gz") == {
        "header": "Nifti1Header",
        "voxels are": "int16",
        "bits per voxel": "16",
        "unit of space": "mm",
        "unit of time": "msec",
        "spacing": "0.5 x 2 x 3",
        "axes": "LAS",
    }


def test_headers_are_counted(cases, clean_set):
    lines = eda_measures.count_headers(cases, clean_set).splitlines()
    assert lines[0].split() == ["images", "labels"]
    assert lines[3].split() == ["bits", "per", "voxel", "32", "(8)", "8", "(8)"]
    assert lines[-1].split() == ["axes", "RAS", "(8)", "RAS", "(8)"]


@pytest.mark.parametrize(
    ("columns", "planes"),
    [
        (np.eye(3), ("sagittal", "coronal", "axial")),
        (-2 * np.eye(3), ("sagittal", "coronal", "axial")),
        ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], ("coronal", "axial", "sagittal")),  # forward, up, right
        ([[0, 0.2, -1], [0, 1, 0.2], [-1, 0, 0]], ("axial", "coronal", "sagittal")),  # down, forward, left; tilted
    ],
)
def test_the_affine_says_which_axis_a_plane_cuts(columns, planes):
    affine = np.eye(4)
    affine[:3, :3] = columns
    assert eda_measures.planes_of(affine) == planes


def test_shifted_labels_are_counted_and_listed(cases):
    facts = replace(cases[0].facts, flags=["label_shifted"], shift_voxels=(0.7, -0.25, 0.0))
    shifted = replace(cases[0], facts=facts)
    assert eda_measures.list_shifted([shifted, *cases[1:]]).splitlines() == [
        "1 of 8 labels are flagged as shifted",
        "001: +0.70 -0.25 +0.00",
    ]


def test_pooled_groups_are_as_if_measured_together():
    left, right = np.random.default_rng(0).normal(3000, 300, 1000), np.random.default_rng(1).normal(3300, 500, 1000)
    mean, deviation = eda_measures.pooled((left.mean(), right.mean()), (left.std(), right.std()))
    together = np.concatenate([left, right])
    assert (mean, deviation) == (pytest.approx(together.mean()), pytest.approx(together.std()))


@pytest.mark.parametrize(
    ("plane", "left_of_right", "above_below"),
    [("sagittal", 1, 2), ("coronal", 0, 2), ("axial", 0, 1)],
)
def test_slices_are_drawn_as_on_the_clinics_page(plane, left_of_right, above_below):
    """A bright voxel at the high end of an axis: anterior and x are drawn left, superior and anterior above."""
    image = np.zeros((9, 9, 9))
    corner = [4, 4, 4]
    corner[left_of_right] = corner[above_below] = 8
    image[tuple(corner)] = 1
    figure = plt.figure(figsize=(1, 1), dpi=90)
    eda_plots.draw_slice(figure.add_axes((0, 0, 1, 1)), image, None, plane, 4)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0]
    plt.close(figure)
    rows, columns = np.nonzero(pixels > 200)
    assert (rows < 12).all()
    assert (columns < 12).all()
    assert len(rows) > 50


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
