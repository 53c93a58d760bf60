"""The service as a process, with a model whose answer is known to the voxel."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from makers import make_blocks
from servers import wait_until
from viewer_client import ViewerClient

NUMBERS = itertools.count(10)
PROGRAM = Path(__file__).resolve().parents[2] / "src" / "viewer_server.py"


@contextmanager
def serving_viewers(folder: Path, *options: object, **environment: str) -> Iterator[ViewerClient]:
    """A client of a service that stores in `folder`, until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    command = [sys.executable, PROGRAM, "--port", "0", "--store", folder / "store", *options]
    with log.open("w") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file, env=os.environ | environment)

    def address() -> str | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"serving at (http://[^;]+);", log.read_text())
        return found and found[1]

    try:
        yield ViewerClient(wait_until(address).replace("/k/KEY", ""))
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


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
    return gzip.compress(image.to_bytes(), compresslevel=1)


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
