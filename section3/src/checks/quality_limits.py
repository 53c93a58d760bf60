"""What is usual: limits and the mean crop are data, and belong to a model.

`quality_limits.json` and `quality_template.npz` lie beside it, both written by calibration/fit_quality_limits.py, which
also counts how often they refuse good crops and let nonsense pass.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from checks.quality_catalogue import INPUT_MEASURES, OUTPUT_MEASURES
from common.refusal import Failure
from common.verdicts import FAIL, PASS, WARN

LIMITS_FILE, TEMPLATE_FILE = "quality_limits.json", "quality_template.npz"

TEMPLATE_SCALE = 40  # the mean crop is stored in steps of 1/40 of a standard deviation, up to 3 of these in a byte


@dataclass(frozen=True)
class Range:
    """Where a value may lie: (low, high), None for no limit. Outside `warn` it is doubtful, outside `fail` refused."""

    warn: tuple[float | None, float | None]
    fail: tuple[float | None, float | None]
    source: str

    def verdict(self, value: float) -> str:
        if not _within(value, self.fail):
            return FAIL
        return PASS if _within(value, self.warn) else WARN


def _within(value: float, limits: tuple[float | None, float | None]) -> bool:
    """Whether a value lies between low and high; NaN never does."""
    low, high = (end if end is not None else infinite for end, infinite in zip(limits, (-np.inf, np.inf), strict=True))
    return low <= value <= high


@dataclass(frozen=True)
class Limits:
    """What is usual.

    ranges: by the name of the measure. template: the mean crop [X, Y, Z], of mean 0 and standard deviation 1.
    model_sha256: the model whose answers the limits were fitted on. fitted_on: in words. sha256: of the files that hold
    them, as they were read; None of limits that were not.
    """

    ranges: Mapping[str, Range]
    template: np.ndarray
    model_sha256: str
    fitted_on: str
    sha256: str | None = None

    def save(self, folder: Path) -> None:
        """Write both files under temporary names and move them into place."""
        content = {"fitted_on": self.fitted_on, "model_sha256": self.model_sha256}
        content["ranges"] = {name: vars(one) for name, one in self.ranges.items()}
        template = np.clip(np.round(self.template * TEMPLATE_SCALE), -127, 127).astype(np.int8)
        unfinished = {name: folder / f".unfinished-{name}" for name in (LIMITS_FILE, TEMPLATE_FILE)}
        unfinished[LIMITS_FILE].write_text(json.dumps(content, indent=2) + "\n")
        np.savez_compressed(unfinished[TEMPLATE_FILE], template=template)
        for name, path in unfinished.items():
            path.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Limits | None:
        """Those in `folder`, None where it has none. Raises Failure: bad-model."""
        try:
            text, packed = ((folder / name).read_bytes() for name in (LIMITS_FILE, TEMPLATE_FILE))
        except OSError as error:
            names = (LIMITS_FILE, TEMPLATE_FILE)
            if isinstance(error, FileNotFoundError) and not any((folder / name).exists() for name in names):
                return None
            raise Failure("bad-model", f"the limits {error.filename} cannot be read: {error.strerror}") from error
        try:
            content = json.loads(text)
            with np.load(io.BytesIO(packed)) as file:
                template = file["template"].astype(np.float32) / TEMPLATE_SCALE
            ranges = {
                measure.name: _range(content["ranges"][measure.name]) for measure in (*INPUT_MEASURES, *OUTPUT_MEASURES)
            }
            sha256 = hashlib.sha256(text + packed).hexdigest()
            return cls(ranges, template, content["model_sha256"], content["fitted_on"], sha256)
        except Exception as error:  # numpy's reader raises nearly anything for a damaged file
            raise Failure("bad-model", f"{folder / LIMITS_FILE} and {TEMPLATE_FILE} are no limits") from error


def _range(content: Mapping) -> Range:
    return Range(tuple(content["warn"]), tuple(content["fail"]), content["source"])
