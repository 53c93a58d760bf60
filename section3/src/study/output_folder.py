"""A study's folder of outputs: whole, or not there; ours, or not touched; one run at a time.

result.json lists what is ours. While outputs are replaced, it says that the run is unfinished and lists the old and the
new ones: whoever is killed at any moment leaves a folder that the next run knows how to clear.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from common.output_files import OVERLAY, POSSIBLE_OUTPUTS, RESULT
from common.refusal import Failure
from common.whole_files import write_json
from study.study_result import StudyResult

UNFINISHED = ".unfinished-"


@contextmanager
def only_run_in(path: Path) -> Iterator[OutputFolder]:
    """The folder for this run alone; another run that works there is waited for. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for unfinished in path.glob(f"{UNFINISHED}*"):  # of a run that was killed: a living one has the lock
            shutil.rmtree(unfinished)
        yield OutputFolder(path)
    finally:
        os.close(handle)


def write_result(result: StudyResult, path: Path) -> StudyResult:
    """Record a result that has no outputs. Returns what was written, or that nothing could be."""
    try:
        with only_run_in(path) as folder:
            return folder.finish(result)
    except OSError as error:
        return result.stopped(cannot_write(path, error))


def cannot_write(path: Path, error: OSError) -> Failure:
    return Failure("cannot-write", f"cannot write to {path}: {error.strerror or error}")


@dataclass(frozen=True)
class OutputFolder:
    """The folder at `path`, which nobody else writes to."""

    path: Path

    @contextmanager
    def replacing_outputs(self) -> Iterator[Path]:
        """A folder beside their place to write outputs into: after the block they replace those of an earlier run.

        If the block is left by an exception, nothing changes. Raises OSError, FileExistsError where a file that no
        result.json lists stands in their way.
        """
        with tempfile.TemporaryDirectory(dir=self.path, prefix=UNFINISHED) as name:
            yield Path(name)
            new = [str(path.relative_to(name)) for path in sorted(Path(name).rglob("*")) if path.is_file()]
            old = self._ours()
            self._require_ours(new, old)
            self._write(_unfinished([*old, *new]))
            self._remove(old)
            for file in new:
                (self.path / file).parent.mkdir(exist_ok=True)
                (Path(name) / file).replace(self.path / file)

    def finish(self, result: StudyResult) -> StudyResult:
        """Write result.json, and where it has no outputs, take away those of an earlier run. Raises OSError."""
        result = replace(result, output_dir=str(self.path))
        ours = self._ours()
        if not result.outputs:
            self._write(_unfinished(ours))
            self._remove(ours)
        self._write(result)
        return result

    def _ours(self) -> list[str]:
        """The files that an earlier run lists as its own. Raises FileExistsError where result.json is not ours."""
        try:
            rows = json.loads((self.path / RESULT).read_bytes())["outputs"]
            files = [str(row["file"]) for row in rows]
            return [file for file in files if PurePosixPath(file).parts[0] in POSSIBLE_OUTPUTS and ".." not in file]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, LookupError) as error:
            raise FileExistsError(f"it has a {RESULT} that is not ours") from error

    def _require_ours(self, new: Sequence[str], old: Iterable[str]) -> None:
        found = {file for file in new if (self.path / file).exists()}
        found |= {f"{OVERLAY}/{path.name}" for path in self.path.glob(f"{OVERLAY}/*")}
        if strange := sorted(found - set(old)):
            name = strange[0] if strange[0] in new else f"a file in {OVERLAY}"  # whose name may be a patient's
            raise FileExistsError(f"it has {name}, which no earlier run lists in {RESULT}; take it away first")

    def _write(self, result: StudyResult) -> None:
        write_json(self.path / RESULT, asdict(result))

    def _remove(self, files: Iterable[str]) -> None:
        for file in files:
            (self.path / file).unlink(missing_ok=True)
        overlay = self.path / OVERLAY
        if overlay.is_dir() and not any(overlay.iterdir()):
            overlay.rmdir()


def _unfinished(files: Iterable[str]) -> StudyResult:
    """What result.json says while its outputs change, and for good if the run is killed meanwhile."""
    stopped = StudyResult().stopped(Failure("interrupted", "the run was stopped before its results were whole"))
    return replace(stopped, outputs=[{"file": file, "sop_instance_uid": None} for file in dict.fromkeys(files)])
