"""Small series whose labels are known, and the objects that are written of them."""

import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset

from common.structures import ANTERIOR, POSTERIOR, STRUCTURES, Structure
from measuring.measure_crop import get_predicted_volumes
from objects.dicom_measurements import save_measurements
from objects.dicom_overlay import draw_overlay, save_overlay
from objects.dicom_segmentation import save_segmentation
from objects.provenance import Provenance
from objects.verify_objects import verify_overlay, verify_results
from phantom import write_series
from reading.dicom_series import list_files, read_study
from reading.dicom_volume import SourceVolume, load_dicom_volume_as_numpy_from_list

SPACING = (0.8, 1.1, 1.7)
CREATED = datetime(2021, 3, 4, 5, 6, 7)


@dataclass
class Results:
    """What was measured, and what was written of it."""

    source: SourceVolume
    labels: np.ndarray
    volumes: dict[str, float]
    provenance: Provenance
    folder: Path

    @property
    def files(self) -> list[Path]:
        return [self.segmentation, self.measurements, *self.pictures]

    @property
    def pictures(self) -> list[Path]:
        return sorted((self.folder / "overlay").glob("*"))

    @property
    def segmentation(self) -> Path:
        return self.folder / "segmentation.dcm"

    @property
    def measurements(self) -> Path:
        return self.folder / "measurements.dcm"

    @property
    def by_structure(self) -> dict[Structure, float]:
        return {one: self.volumes[one.key] for one in STRUCTURES}

    @property
    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in self.files]

    @property
    def uids(self) -> set[str]:
        objects = [pydicom.dcmread(path) for path in self.files]
        return {uid for ds in objects for uid in (ds.SeriesInstanceUID, ds.SOPInstanceUID)}

    def write(self) -> "Results":
        """Write the segmentation and the measurements."""
        self.folder.mkdir(exist_ok=True)
        segmentation = save_segmentation(self.source.by_slice(self.labels), self.segmentation, self.provenance)
        save_measurements(self.by_structure, segmentation, self.measurements, self.provenance)
        return self

    def draw(self) -> dict[int, Image.Image]:
        slices = self.source.by_slice(self.labels)
        return draw_overlay(slices * 100, slices, np.zeros(slices.shape), range(len(slices)))

    def add_overlay(self) -> "Results":
        save_overlay(self.draw(), self.folder / "overlay", self.provenance)
        return self

    def verify(self) -> None:
        verify_results(self.segmentation, self.measurements, self.labels, self.by_structure, self.source)

    def verify_overlay(self, labels: np.ndarray | None = None) -> None:
        pictures = dict(zip(self.pictures, self.draw().values(), strict=True))
        verify_overlay(pictures, self.labels if labels is None else labels, self.source)


@pytest.fixture(scope="session")
def model() -> dict[str, str]:
    """Who measured."""
    return {"name": "hippocampus-2d", "version": "1.2", "sha256": "0123456789abcdef" * 4}


@pytest.fixture
def labels() -> np.ndarray:
    """Labels [X, Y, Z] unlike their mirror images, with slices at either end that have none."""
    labels = np.random.default_rng(3).choice([0, 0, 0, ANTERIOR, POSTERIOR], (9, 11, 7)).astype(np.uint8)
    labels[:2], labels[:, -3:], labels[..., 0], labels[..., -2:] = 0, 0, 0, 0
    return labels


@pytest.fixture
def make(tmp_path, labels, edit, model) -> Callable[..., Results]:
    """make(...) writes a series with `labels` as its brightness, and segmentation and measurements of it.

    degrees: turn it about two axes. header: attributes of patient and study in place of the series' own. made_with:
    model and digest of the setup. convert(paths): change the series' files. Options are those of write_series.
    """

    def make_results(
        degrees: float = 0,
        folder: str = "out",
        header: dict[str, str] | None = None,
        made_with: tuple[dict[str, str], str] = (model, "a setup"),
        convert: Callable[[list[Path]], object] | None = None,
        **options: object,
    ) -> Results:
        series_folder = tmp_path / "series"
        shutil.rmtree(series_folder, ignore_errors=True)
        paths = write_series(series_folder, labels.astype(np.int16) * 100, **{"spacing": SPACING, **options})
        if degrees:
            edit(paths, lambda dataset: _turn(dataset, degrees))
        if convert:
            convert(paths)
        study = read_study(list_files(series_folder))
        source = load_dicom_volume_as_numpy_from_list(study.series[0])
        study_header = {**study.header_for(study.series[0]), **(header or {})}
        provenance = Provenance(study_header, source.instances, *made_with, created=CREATED)
        volumes = get_predicted_volumes(labels, source.grid)
        return Results(source, labels, volumes, provenance, tmp_path / folder).write()

    return make_results


def _turn(dataset: Dataset, degrees: float) -> None:
    """Turn a slice about two axes."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    orientation = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3) @ turn.T
    dataset.ImageOrientationPatient = [f"{value:.10g}" for value in orientation.ravel()]
    position = turn @ np.array(dataset.ImagePositionPatient, float)
    dataset.ImagePositionPatient = [f"{value:.10g}" for value in position]


@pytest.fixture
def dcmqi(tmp_path, need_program) -> Callable:
    """dcmqi(program, *arguments) runs one of dcmqi's programs in a folder of its own, and returns the folder."""

    def run(program: str, *arguments: object) -> Path:
        path = Path(sysconfig.get_path("scripts")) / program
        need_program(str(path))
        folder = tmp_path / program
        folder.mkdir()
        subprocess.run([path, *map(str, arguments)], check=True, capture_output=True, timeout=600, cwd=folder)
        return folder

    return run
