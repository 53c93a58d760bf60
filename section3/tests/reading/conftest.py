"""Series of few voxels, from files to a volume."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reading.dicom_series import Series, list_files, read_study
from reading.dicom_volume import SourceVolume, load_dicom_volume_as_numpy_from_list


@pytest.fixture
def noise() -> np.ndarray:
    """A volume [X, Y, Z] in which every voxel is different, with three unequal sides."""
    return np.random.default_rng(0).permutation(7 * 6 * 5).reshape(7, 6, 5).astype(np.int16) + 10


def _series_in(folder: Path) -> Series:
    (series,) = read_study(list_files(folder)).series
    return series


@pytest.fixture
def series_in() -> Callable[[Path], Series]:
    """series_in(folder): the only series whose files lie there."""
    return _series_in


@pytest.fixture
def load() -> Callable[[Path], SourceVolume]:
    """load(folder): the volume of the only series whose files lie there."""
    return lambda folder: load_dicom_volume_as_numpy_from_list(_series_in(folder))
