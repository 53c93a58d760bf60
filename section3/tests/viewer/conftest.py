"""The service as a process, with a model whose answer is known to the voxel."""

import itertools
from collections.abc import Callable, Iterator

import nibabel as nib
import numpy as np
import pytest

from makers import make_blocks
from viewer_client import ViewerClient, serving_viewers

NUMBERS = itertools.count(10)


@pytest.fixture(scope="session")
def service(tmp_path_factory, threshold_model) -> Iterator[ViewerClient]:
    folder = tmp_path_factory.mktemp("service")
    with serving_viewers(folder, "--model-path", threshold_model) as client:
        client.folder = folder
        yield client


def packed(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    """As .nii.gz."""
    import gzip

    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


@pytest.fixture
def crop() -> bytes:
    """Another one for each test, as images are known by their content."""
    return packed(make_blocks() + next(NUMBERS), np.eye(4))


@pytest.fixture(scope="session", name="packed")
def _packed() -> Callable:
    return packed


@pytest.fixture(scope="session", name="serving_viewers")
def _serving_viewers() -> Callable:
    return serving_viewers
