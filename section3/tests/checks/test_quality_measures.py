"""What is measured, on shapes whose measure is known."""

import numpy as np

from checks.quality_measures import largest_share


def test_largest_share():
    mask = np.zeros((5, 6, 7), bool)
    mask[0, :, 0] = True  # six in a row
    mask[4, 0, 0:2] = True  # two elsewhere
    mask[1, 5, 1] = True  # touches the row at an edge only
    assert largest_share(mask) == 6 / 9
    snake = np.ones((9, 9, 1), bool)
    snake[1:8:4, :-1] = snake[3:8:4, 1:] = False
    assert largest_share(snake) == 1
