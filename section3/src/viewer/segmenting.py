"""An image to its masks: what a viewer asks for when somebody presses Run."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from common.refusal import Failure, Refusal
from common.stopwatch import Stopwatch
from common.verdicts import PASS, Check, worst
from measuring.measure_crop import measure_crop
from measuring.measure_head import measure_head
from measuring.measurement import Hippocampus, chances_in, labels_in
from reading.dicom_volume import require_resampleable
from reading.nifti_head import HeadImage
from study.setup import Setup, SetupFiles
from teaching.images import CROP, HEAD, NAMES, kind_of

MODELS = {  # by their names in addresses: the kind of image that each takes, and what it is
    "hippocampus_head": (HEAD, "Both hippocampi in a T1-weighted image of a head."),
    "hippocampus": (CROP, "The hippocampus in a T1-weighted crop around one; which side it is, nobody says."),
}
MODEL_OF = {kind: name for name, (kind, _) in MODELS.items()}


@dataclass(frozen=True, eq=False)
class Answer:
    """labels: [X, Y, Z] uint8 on the image's volume. chances: there too, how probable a hippocampus is. params: what is
    said with them, for JSON. checks: of the image and of each side. refusal: why nothing of it may be shown.
    """

    labels: np.ndarray
    chances: np.ndarray
    params: dict
    checks: tuple[tuple[str | None, Check], ...] = ()
    refusal: Refusal | None = None


class Segmenter:
    """The loaded models, for so many images at a time."""

    def __init__(self, files: SetupFiles, workers: int):
        self._files, self._loaded, self._setup = files, None, None
        self._free, self._loading = threading.BoundedSemaphore(workers), threading.Lock()
        _ = self.setup

    @property
    def setup(self) -> Setup:
        """Loaded anew when the model's file was replaced. Raises Failure: bad-model."""
        with self._loading:
            try:
                stat = self._files.model_path.stat()
            except OSError as error:
                raise Failure("bad-model", f"the model cannot be read: {error.strerror}") from error
            if self._loaded != (version := (stat.st_ino, stat.st_mtime_ns)):
                self._setup, self._loaded = self._files.load(), version
            return self._setup

    def answer(self, image: HeadImage, model: str) -> Answer:
        """Raises Refusal, where the image is none for this model; Failure."""
        kind, _ = MODELS[model]
        if kind_of(image.volume.grid) != kind:
            found = " x ".join(f"{length:.0f}" for length in image.volume.grid.extent)
            raise Refusal(
                "geometry-field-of-view",
                f"the image covers {found} mm, which is no {kind}: choose {MODEL_OF[kind_of(image.volume.grid)]}",
            )
        setup, stopwatch = self.setup, Stopwatch()
        try:
            with self._free:
                hippocampi, checks, refusal = _measured(image, kind, setup, stopwatch)
        except MemoryError as error:
            raise Failure("out-of-memory", "there is not enough memory for the image") from error
        checks = (*((None, one) for one in checks), *((h.side, one) for h in hippocampi for one in h.checks))
        params = {
            "label_names": NAMES[kind],
            "volumes_mm3": _by_side(hippocampi),
            "not_shown": {
                h.side: {"code": h.refusal.code, "reason": h.refusal.reason} for h in hippocampi if h.refusal
            },
            "quality": worst(one for _, one in checks),
            "warnings": [
                f"{side}: {one.sentence}" if side else one.sentence for side, one in checks if one.verdict != PASS
            ],
            "seconds": {name: round(value, 3) for name, value in stopwatch.seconds.items()},
            "model": setup.agent.identity,
            "research_use_only": True,
        }
        grid = image.volume.grid
        return Answer(labels_in(grid, hippocampi), chances_in(grid, hippocampi), params, checks, refusal)


def _measured(
    image: HeadImage, kind: str, setup: Setup, stopwatch: Stopwatch
) -> tuple[tuple[Hippocampus, ...], tuple[Check, ...], Refusal | None]:
    """And the checks of the image as a whole, and why no hippocampus may be shown."""
    if kind == HEAD:
        head = measure_head(image.volume, setup.localiser, setup.agent, stopwatch)
        return head.hippocampi, head.checks, head.refusal
    require_resampleable(image.volume.grid)
    hippocampus = measure_crop(image.volume, setup.agent, setup.limits, stopwatch)
    return (hippocampus,), (), hippocampus.refusal


def _by_side(hippocampi: tuple[Hippocampus, ...]) -> dict:
    """As in result.json: of a crop the volumes, of a head those of each side that has some."""
    rounded = {h.side: {key: round(value, 1) for key, value in (h.volumes_mm3 or {}).items()} for h in hippocampi}
    return rounded[None] if None in rounded else {side: volumes for side, volumes in rounded.items() if volumes}
