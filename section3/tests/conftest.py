"""A model whose answer is known to the voxel, and studies to feed it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pydicom
import pytest
from onnx import TensorProto, helper
from pydicom.uid import EnhancedMRImageStorage

import archive
import report
from phantom import StudyHeader, make_phantom, write_series, write_study

# What the threshold model sees as its classes. Each border lies halfway, where interpolation puts it.
BACKGROUND, ANTERIOR, POSTERIOR = 300, 500, 100


def _save_threshold_model(path: Path, card: dict | None) -> Path:
    """volume -> one-hot probabilities: anterior from 400, posterior below 200."""
    volume = helper.make_tensor_value_info("volume", TensorProto.FLOAT, ["X", "Y", "Z"])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [3, "X", "Y", "Z"])
    nodes = [
        helper.make_node("Less", ["volume", "low"], ["is_posterior"]),
        helper.make_node("GreaterOrEqual", ["volume", "high"], ["is_anterior"]),
        helper.make_node("Or", ["is_anterior", "is_posterior"], ["is_structure"]),
        helper.make_node("Not", ["is_structure"], ["is_background"]),
    ]
    for name in ("background", "anterior", "posterior"):
        nodes.append(helper.make_node("Cast", [f"is_{name}"], [name], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_4d"]))
    nodes.append(
        helper.make_node("Concat", ["background_4d", "anterior_4d", "posterior_4d"], ["probabilities"], axis=0)
    )
    constants = [
        helper.make_tensor("low", TensorProto.FLOAT, [], [200]),
        helper.make_tensor("high", TensorProto.FLOAT, [], [400]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
    ]
    graph = helper.make_graph(nodes, "threshold", [volume], [probabilities], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if card is not None:
        helper.set_model_props(model, {"name": "threshold", "version": "0.1", "card": json.dumps(card)})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def card() -> dict:
    return {
        "name": "threshold",
        "version": "0.1",
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
        "orientation": "RAS",
        "spacing_mm": 1.0,
    }


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses made so far by what is sent again; they take no time."""
    made = []
    monkeypatch.setattr(archive, "sleep", made.append)
    return made


@pytest.fixture
def words(monkeypatch) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text drawn, with its box on the page."""
    drawn = []
    draw_text = report.Page.text

    def record(page, x, y, text, size, colour=report.NORMAL, anchor="ls"):
        drawn.append((text, page.draw.textbbox((x, y), text, font=report.font(size), anchor=anchor)))
        return draw_text(page, x, y, text, size, colour, anchor)

    monkeypatch.setattr(report.Page, "text", record)
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


@pytest.fixture(scope="session")
def save_threshold_model() -> Callable:
    return _save_threshold_model


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory, card) -> Path:
    """A model file that labels voxels by their brightness."""
    return _save_threshold_model(tmp_path_factory.mktemp("model") / "model.onnx", card)


def _make_blocks(shape: tuple[int, int, int] = (20, 26, 17)) -> np.ndarray:
    """A volume [X, Y, Z], unlike its mirror images: 4 x 5 x 6 anterior voxels, behind them 4 x 7 x 6 posterior ones."""
    volume = np.full(shape, BACKGROUND, np.int16)
    volume[3:7, 14:19, 8:14] = ANTERIOR
    volume[3:7, 7:14, 8:14] = POSTERIOR
    return volume


@pytest.fixture
def blocks() -> np.ndarray:
    return _make_blocks()


@pytest.fixture
def make_study(tmp_path) -> Callable:
    """make_study(seed) writes a study with the blocks as its HippoCrop, and brain series beside it."""

    def make(seed: int = 1, name: str = "study", brain_series: int = 1) -> Path:
        return write_study(tmp_path / name, _make_blocks(), seed=seed, brain_series=brain_series)

    return make


@pytest.fixture
def add_series() -> Callable:
    """add_series(study, seed, ...) writes the blocks as one more series of the study of that seed."""

    def add(study: Path, seed: int = 1, series_seed: int = 77, **options: object) -> list[Path]:
        header = StudyHeader.from_seed(seed)
        return write_series(study / f"more{series_seed}", _make_blocks(), study=header, seed=series_seed, **options)

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
    """to_enhanced(paths) replaces single-frame images by one enhanced multi-frame image and returns its file."""

    def convert(paths: list[Path]) -> Path:
        sources = [pydicom.dcmread(path) for path in paths]
        image = sources[0]
        pixels = b"".join(source.PixelData for source in sources)
        image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [pydicom.Dataset()], []
        shared = image.SharedFunctionalGroupsSequence[0]
        for groups, source in [(shared, image), *((pydicom.Dataset(), source) for source in sources)]:
            for group, keyword in (
                ("PixelMeasuresSequence", "PixelSpacing"),
                ("PlaneOrientationSequence", "ImageOrientationPatient"),
                ("PlanePositionSequence", "ImagePositionPatient"),
            ):
                if (groups is shared) != (keyword == "ImagePositionPatient"):
                    item = pydicom.Dataset()
                    item[keyword] = source[keyword]
                    setattr(groups, group, [item])
            if groups is not shared:
                image.PerFrameFunctionalGroupsSequence.append(groups)
        for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "ImagesInAcquisition"):
            del image[keyword]
        image.SOPClassUID = EnhancedMRImageStorage
        image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        image.NumberOfFrames, image.PixelData = len(sources), pixels
        for path in paths:
            path.unlink()
        image.save_as(paths[0])
        return paths[0]

    return convert


@pytest.fixture
def crop_files() -> Callable:
    """crop_files(study): the files of its HippoCrop series, from the bottom up."""

    def find(study: Path) -> list[Path]:
        headers = {path: pydicom.dcmread(path) for path in study.rglob("*") if path.is_file()}
        crop = [path for path, header in headers.items() if header.SeriesDescription == "HippoCrop"]
        return sorted(crop, key=lambda path: headers[path].ImagePositionPatient[2])

    return find


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
