"""What became of one study, and its folder of outputs: whole, or not there."""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dicom_results import MEASUREMENTS, OVERLAY, PAGE, SEGMENTATION, SERIES_PAGE
from dicom_series import NOT_OUR_RESULT, Condition
from quality import FAIL, Check, worst
from refusal import Refusal

PAGE_PICTURE, SERIES_PICTURE, RESULT = "report.png", "report_series.png", "result.json"
OUTPUTS = (PAGE, PAGE_PICTURE, SERIES_PAGE, SERIES_PICTURE, OVERLAY, SEGMENTATION, MEASUREMENTS)
UNFINISHED = ".unfinished-"


@dataclass
class StudyResult:
    """What became of one study; the content of result.json."""

    status: str = "success"  # or "refused": the input gets no number; or "failed": the program could not do its work
    code: str | None = None
    reason: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    instances_sha256: str | None = None  # of the SOP Instance UIDs of the study
    rules_sha256: str | None = None  # of the conditions that chose the series
    limits_sha256: str | None = None  # of the limits that decided whether its volumes may be shown
    revision: str | None = None  # of what the objects are like
    volumes_mm3: dict[str, float] | None = None
    intervals_mm3: dict[str, list[float]] | None = None  # low and high; 90 % of true volumes lie within
    pseudonym: str | None = None  # the name on the pages in place of the patient's
    model: dict[str, str] | None = None
    quality_verdict: str | None = None  # the worst of `quality`; None: it did not come to that
    quality: list[dict] = field(default_factory=list)
    files: dict[str, int] | None = None
    series_considered: list[dict] = field(default_factory=list)
    output_dir: str | None = None
    outputs: list[dict] = field(default_factory=list)
    sent: bool | None = None  # confirmed by the archive; None: nobody asked
    stored: bool | None = None  # fetched back and compared; None: nobody asked, or the archive does not allow it
    send_detail: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def series_to_show(self) -> list[dict]:
        """series_considered but for our own results, as no page may depend on whether its study has them already."""
        return [row for row in self.series_considered if row["condition"] != NOT_OUR_RESULT.name]

    def stop(self, status: str, code: str, reason: str) -> None:
        """Turn the result into one without a number."""
        self.status, self.code, self.reason = status, code, reason
        self.volumes_mm3, self.intervals_mm3, self.outputs = None, None, []

    def require_shown(self, checks: list[Check], code: str) -> None:
        """Note quality checks. Raises Refusal with `code` if one says that the number must not be shown."""
        self.quality += [asdict(check) for check in checks]
        self.quality_verdict = worst(one["verdict"] for one in self.quality)
        reasons = [check.sentence for check in checks if check.verdict == FAIL]
        if reasons:
            raise Refusal(code, " ".join(reasons))

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note the seconds that the block takes, also when it is left by an exception."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0) + time.perf_counter() - start, 3)


def rules_sha256(conditions: Sequence[Condition]) -> str:
    """A digest of the conditions for the input: other ones may choose another series."""
    return hashlib.sha256(repr(tuple(conditions)).encode()).hexdigest()


@contextmanager
def replacing_outputs(folder: Path) -> Iterator[Path]:
    """A folder beside their place to write outputs into: after the block they replace those of an earlier run.

    result.json goes first and is to be written last, so that it never stands beside the outputs of another run. If the
    block is left by an exception, nothing changes. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as name:
        yield Path(name)
        remove_outputs(folder)
        for output in Path(name).iterdir():
            output.replace(folder / output.name)


def remove_outputs(folder: Path) -> None:
    """Remove what an earlier run wrote, its result first."""
    for name in (RESULT, *OUTPUTS):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_result(result: StudyResult, folder: Path) -> None:
    """Write result.json into `folder`; where there are no outputs, without those of an earlier run beside it."""
    result.output_dir = str(folder)
    try:
        for unfinished in folder.glob(f"{UNFINISHED}*"):  # of a run that was killed
            shutil.rmtree(unfinished)
        if not result.outputs:
            remove_outputs(folder)
        write_json(folder / RESULT, asdict(result))
    except OSError as error:
        result.stop("failed", "cannot-write", f"cannot write to {folder}: {error.strerror}")


def write_json(path: Path, content: dict) -> None:
    """Write `content` whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` under a temporary name and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    temporary.write_text(text)
    temporary.replace(path)
