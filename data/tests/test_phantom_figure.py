"""The picture of the phantoms is drawn as the clinic's page draws its own, and mistakes end in one line."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import phantom
import phantom_figure


@pytest.mark.parametrize(("axis", "left", "above"), [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_anterior_is_left_and_superior_above(axis, left, above):
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[3:6, 3:6, 3:6] = 1
    corner = [slice(None)] * 3
    corner[left] = corner[above] = 8
    image = np.zeros(labels.shape)
    image[tuple(corner)] = 1000
    figure = plt.figure(figsize=(1, 1), dpi=90)
    phantom_figure.draw_plane(figure.add_axes((0, 0, 1, 1)), phantom.Phantom(image, labels), axis)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[2:10, 2:10, 0]  # within the voxel, away from the frame
    plt.close(figure)
    assert (pixels > 200).all()


def test_program_draws(tmp_path, capsys):
    assert phantom_figure.main(["--count", "1", "--out", str(tmp_path / "figure.png")]) == 0
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert capsys.readouterr().out == f"{tmp_path / 'figure.png'}\n"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    assert phantom_figure.main(["--count", "1", "--out", str(tmp_path / "nowhere" / "figure.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_no_phantoms_are_a_usage_error():
    with pytest.raises(SystemExit) as stop:
        phantom_figure.main(["--count", "0"])
    assert stop.value.code == 2
