import math

import numpy as np
import pytest

from volume_interval import calibrate, half_width


def scores(errors: np.ndarray) -> list[dict]:
    one = [{"true_volume_mm3": 3000 * (1 + e), "volume_mm3": 3000} for e in errors]
    return [{"anterior": s, "posterior": s, "whole": s} for s in one]


def test_nine_of_ten_new_volumes_lie_inside():
    rng = np.random.default_rng(0)
    interval = calibrate([scores(rng.normal(0, 0.05, 40)) for _ in range(5)])
    width = interval["half_width"]["whole"]
    assert np.mean(np.abs(rng.normal(0, 0.05, 10_000)) <= width) == pytest.approx(0.9, abs=0.05)
    assert interval["coverage"]["whole"] == pytest.approx(0.9, abs=0.03)


def test_known_ranks():
    assert half_width([[n / 100 for n in range(1, 20)]]) == 0.18  # the 18th of 19
    assert half_width([[0.1] * 4, [0.1] * 4]) == math.inf  # eight cannot tell of nine in ten


def test_one_split_has_no_coverage_and_too_few_volumes_no_interval():
    assert "coverage" not in calibrate([scores(np.full(20, 0.02))])
    assert calibrate([scores(np.full(3, 0.02))])["half_width"] == {}
