"""A model whose answer is known to the voxel, and studies to feed it."""

import importlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from archive.sending import Patience
from batches import engines
from checks.quality_limits import Limits
from checks.quality_measures import measure_output
from choosing.series_rules import consider_series, get_series_for_inference, load_rules
from crops import Crop, Judged
from fit_quality_limits import fit_limits
from makers import CARD, make_blocks, make_enhanced, save_threshold_model
from pages import canvas
from phantom import Phantom, StudyHeader, make_phantom, write_series, write_study
from reading.dicom_series import list_files, read_study
from servers import listens, serving
from study.setup import Setup, SetupFiles

CALLS_FOLDER = Path(__file__).parent / "node"  # with engine_calls.py


@pytest.fixture(scope="session")
def card() -> dict:
    return dict(CARD)


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that were made so far with `patience`."""
    return []


@pytest.fixture
def patience(pauses) -> Patience:
    """Patience as usual, whose pauses take no time."""
    return Patience(sleep=pauses.append)


@pytest.fixture
def words(monkeypatch) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text that is drawn on a page, with its box."""
    drawn = []
    draw_text = canvas.Page.text

    def record(page, x, y, text, size, colour=canvas.NORMAL, anchor="ls"):
        drawn.append((text, page.draw.textbbox((x, y), text, font=canvas.font(size), anchor=anchor)))
        return draw_text(page, x, y, text, size, colour, anchor)

    monkeypatch.setattr(canvas.Page, "text", record)
    return drawn


@pytest.fixture
def require_apart() -> Callable:
    """require_apart(words): no text of a page lies on another."""

    def require(words: list[tuple[str, tuple[float, float, float, float]]]) -> None:
        boxes = [box for text, box in words if text.strip()]
        for number, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:number]:
                overlap = min(right, other[2]) - max(left, other[0]), min(bottom, other[3]) - max(top, other[1])
                assert min(overlap) <= 2, (words[number], other)

    return require


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three slices to send."""
    return write_series(tmp_path / "files", make_phantom(0, shape=(20, 20, 3)).image)


@pytest.fixture(scope="session", name="save_threshold_model")
def _save_threshold_model() -> Callable:
    """See makers."""
    return save_threshold_model


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory, card) -> Path:
    """A model file that labels voxels by their brightness."""
    return save_threshold_model(tmp_path_factory.mktemp("model") / "model.onnx", card)


@pytest.fixture
def blocks() -> np.ndarray:
    return make_blocks()


@pytest.fixture
def make_study(tmp_path) -> Callable:
    """make_study(seed) writes a study with the blocks as its HippoCrop, and brain series beside it."""

    def make(seed: int = 1, name: str = "study", brain_series: int = 1) -> Path:
        return write_study(tmp_path / name, make_blocks(), seed=seed, brain_series=brain_series)

    return make


@pytest.fixture
def add_series() -> Callable:
    """add_series(study, seed, ...) writes the blocks as one more series of the study of that seed."""

    def add(study: Path, seed: int = 1, series_seed: int = 77, **options: object) -> list[Path]:
        header = StudyHeader.from_seed(seed)
        return write_series(study / f"more{series_seed}", make_blocks(), study=header, seed=series_seed, **options)

    return add


@pytest.fixture
def edit() -> Callable:
    """edit(paths, change) applies change(dataset) to each file."""

    def edit_files(paths: list[Path], change: Callable[[pydicom.Dataset], None]) -> None:
        for path in paths:
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path)

    return edit_files


@pytest.fixture
def to_enhanced() -> Callable:
    """to_enhanced(paths): see make_enhanced."""
    return make_enhanced


@pytest.fixture
def rotation() -> Callable:
    """rotation(degrees): the matrix [3, 3] that turns about X, then about Z."""

    def about_two_axes(degrees: float) -> np.ndarray:
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        return about_z @ about_x

    return about_two_axes


@pytest.fixture
def crop_files() -> Callable:
    """crop_files(study): the files of its HippoCrop series, from the bottom up."""

    def find(study: Path) -> list[Path]:
        headers = {path: pydicom.dcmread(path) for path in study.rglob("*") if path.is_file()}
        crop = [path for path, header in headers.items() if header.SeriesDescription == "HippoCrop"]
        return sorted(crop, key=lambda path: headers[path].ImagePositionPatient[2])

    return find


@pytest.fixture(scope="session")
def good_answer() -> Callable:
    """good_answer(labels): probabilities [3, X, Y, Z] as a good model gives them, sure inside, unsure at the border."""

    def answer(labels: np.ndarray) -> np.ndarray:
        return np.stack([ndimage.gaussian_filter((labels == one).astype(np.float32), 0.6) for one in range(3)])

    return answer


@pytest.fixture(scope="session")
def phantoms() -> list[Phantom]:
    """What `limits` are fitted on."""
    return [make_phantom(seed) for seed in range(24)]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """One that is not among them."""
    return make_phantom(200)


@pytest.fixture(scope="session")
def limits(phantoms, good_answer) -> Limits:
    """Limits of a model of the digest 000... that answers as `good_answer` does, so that they depend on none."""
    crops = [Crop(f"{n}", f"{n}", one.image) for n, one in enumerate(phantoms)]
    answers = [measure_output(good_answer(one.labels)) for one in phantoms]
    return fit_limits([Judged(*pair) for pair in zip(crops, answers, strict=True)], "0" * 64)


@pytest.fixture
def real_studies() -> Path:
    """The folder with the real DICOM studies."""
    if "HIPPO_DATA" not in os.environ:
        pytest.skip("HIPPO_DATA does not say where the real data are")
    return Path(os.environ["HIPPO_DATA"]) / "TestVolumes"


@pytest.fixture(scope="session")
def need_program() -> Callable:
    """need_program(name) skips a test where a program is not installed; where CI is set that is a failure."""

    def need(name: str) -> None:
        if shutil.which(name) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")

    return need


@pytest.fixture
def mount_small_disk(tmp_path, need_program) -> Iterator[Callable[[int], Path]]:
    """mount_small_disk(size) -> an empty disk of so many bytes; where only others may mount, the test is skipped."""
    mounted = []

    def mount(size: int) -> Path:
        need_program("mount")
        disk = tmp_path / f"disk{len(mounted)}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            may = os.geteuid() == 0 and os.environ.get("CI")
            (pytest.fail if may else pytest.skip)(f"no disk can be mounted: {done.stderr.strip()}")
        mounted.append(disk)
        return disk

    yield mount
    for disk in mounted:
        subprocess.run(["umount", disk], check=True, timeout=600)


@pytest.fixture
def dciodvfy(need_program) -> Callable:
    """dciodvfy(path): the errors that dciodvfy finds in a DICOM object."""

    def validate(path: Path) -> list[str]:
        need_program("dciodvfy")
        found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=600)
        assert found.stderr, "dciodvfy says nothing"  # it names at least what kind of object it is
        return [line for line in found.stderr.splitlines() if line.startswith("Error")]

    return validate


@pytest.fixture(scope="session")
def find_port() -> Callable:
    """find_port(): a port of this machine on which nobody listens, another one each time."""
    given, draw = set(), random.SystemRandom()  # others draw at the same time

    def find() -> int:
        while True:
            port = draw.randrange(20000, 32768)  # the system gives higher ones to whoever connects
            if port not in given and not listens(port):
                given.add(port)
                return port

    return find


@pytest.fixture
def free_port(find_port) -> int:
    """A port of this machine on which nobody listens."""
    return find_port()


@pytest.fixture
def listen(free_port, need_program, tmp_path) -> Iterator[Callable]:
    """listen(*options) starts storescp, which writes to tmp_path/archive, and returns its port."""
    need_program("storescp")
    with ExitStack() as started:

        def start(*options: str) -> int:
            (tmp_path / "archive").mkdir()
            command = ["storescp", "-od", str(tmp_path / "archive"), *options, str(free_port)]
            started.enter_context(serving(command, lambda: listens(free_port), tmp_path / "storescp.log"))
            return free_port

        yield start


@pytest.fixture
def calls(monkeypatch) -> ModuleType:
    """Calls to carry out, importable also by processes that know nothing of these tests."""
    monkeypatch.syspath_prepend(CALLS_FOLDER)
    return importlib.import_module("engine_calls")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[str]:
    """The address of a Dask cluster of two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (section3/requirements-cluster.txt)")
    folder = tmp_path_factory.mktemp("cluster")
    source = Path(engines.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{source}:{CALLS_FOLDER}", "OMP_NUM_THREADS": "1"}
    options = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(folder / "scheduler.json")]
    started = []
    try:
        for module, *more in (["dask_scheduler", "--port", "0"], ["dask_worker", "--nworkers", "2", "--nthreads", "1"]):
            command = [sys.executable, "-m", f"distributed.cli.{module}", *more, *options]
            started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=folder))
        with distributed.Client(scheduler_file=options[-1], timeout=600, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=600)
            address = client.scheduler.address
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(600)


@pytest.fixture
def setup_of() -> Callable:
    """setup_of(model, pseudonymous=False): the setup with that model and the usual rules."""

    def load(model: Path, pseudonymous: bool = False) -> Setup:
        return SetupFiles(model, load_rules(), pseudonymous).load()

    return load


@pytest.fixture
def crop_of():
    """crop_of(study): the study and the series that is its input."""

    def choose(folder):
        study = read_study(list_files(folder))
        return study, get_series_for_inference(study, consider_series(study, load_rules()))

    return choose
