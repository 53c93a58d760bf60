"""One study from its files to its outputs and result.json."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.refusal import SUCCESS, Failure, Stop
from common.send_outcome import SendOutcome
from common.stopwatch import Stopwatch
from measuring.measurement import Measurement
from objects.verify_objects import VerificationError
from reading.dicom_series import Study, list_files, read_study
from reading.identity import Identity, Nobody
from study.measure_study import NoSuchSeriesError, measure_study
from study.output_folder import cannot_write, only_run_in, write_result
from study.setup import Setup
from study.study_outputs import write_outputs
from study.study_result import StudyResult

DEFAULT_OUTPUT = Path(__file__).resolve().parents[2] / "out"

Send = Callable[[list[Path]], SendOutcome]


def validate_study_directory(folder: Path) -> list[Path]:
    """All files in or below `folder`. Raises NotADirectoryError with one line for the user."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one with DICOM files in it or below it")
    return list_files(folder)


def folder_name(study_uid: str | None) -> str:
    """The name of a study's output folder: its UID, where that is known."""
    return study_uid or "unidentified"


def process_single_study(
    files: list[Path],
    setup: Setup,
    output_dir: Path | None = None,
    series_uid: str | None = None,
    send: Send | None = None,
    write: Callable[..., list[dict]] = write_outputs,
    before_writing: Callable[[], None] = lambda: None,
) -> StudyResult:
    """From the files of one study to its outputs in `output_dir`. What goes wrong is told by result.json.

    Without `output_dir` they go to a folder of the study's name in section3/out. `series_uid` narrows the choice of the
    series. What an earlier run left in the folder under the same names is replaced, or removed when there is no
    result now; where the disk takes nothing new, it stays. Raises NoSuchSeriesError, with nothing written, and whatever
    `before_writing` raises.
    """
    stopwatch, result = Stopwatch(), StudyResult.begun(setup)
    try:
        # Until they are read nobody knows whom the names of the files name.
        unnamed = Nobody() if setup.pseudonymous else Identity(frozenset(path.name for path in files))
        with stopwatch.timed("read"), unnamed.kept_out_of_stops():
            study = read_study(files)
        result = result.with_study(study, setup)
        measurement = measure_study(study, setup, stopwatch, series_uid)
        result = result.with_measurement(measurement)
    except NoSuchSeriesError:
        raise
    except Exception as error:  # noqa: BLE001  a fault of ours in one study must not stop the others
        result = replace(result.stopped(_as_stop(error)), seconds=stopwatch.seconds)
        before_writing()
        return write_result(result, _output_path(result, output_dir))
    path = _output_path(result, output_dir)
    before_writing()
    return write_and_send(result, study, measurement, setup, path, send, write, stopwatch)


def write_and_send(
    result: StudyResult,
    study: Study,
    measurement: Measurement,
    setup: Setup,
    path: Path,
    send: Send | None,
    write: Callable[..., list[dict]],
    stopwatch: Stopwatch,
) -> StudyResult:
    """From what was found to its outputs in the folder `path`, and to the archive."""
    try:
        with only_run_in(path) as folder:
            try:
                outputs = write(study, measurement, setup, folder, stopwatch)
                result = _sent(replace(result, outputs=outputs), path, send, stopwatch)
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001  as above
                result = result.stopped(_as_stop(error))
            return folder.finish(replace(result, seconds=stopwatch.seconds))
    except OSError as error:
        return replace(result, seconds=stopwatch.seconds).stopped(cannot_write(path, error))


def _output_path(result: StudyResult, output_dir: Path | None) -> Path:
    return output_dir or DEFAULT_OUTPUT / folder_name(result.study_instance_uid)


def _sent(result: StudyResult, path: Path, send: Send | None, stopwatch: Stopwatch) -> StudyResult:
    """The result after its outputs were sent, if they are to be."""
    rows = result.outputs_to_send
    if not (send and rows):
        return result
    with stopwatch.timed("send"):
        outcome = send([path / row["file"] for row in rows])
    result = result.with_sending(outcome)
    if outcome.stored is False and result.status == SUCCESS:
        return replace(result.stopped(Failure("not-stored", outcome.detail)), outputs=result.outputs)
    return result


def _as_stop(error: Exception) -> Stop:
    """Why there is no number. An error's own message is left out, as it may quote a patient's data."""
    if isinstance(error, Stop):
        return error
    if isinstance(error, VerificationError):
        return Failure("verification-failed", str(error))
    if isinstance(error, MemoryError):
        return Failure("out-of-memory", "there is not enough memory for the study")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
    return Failure("internal-error", place)


def record_stop(stop: Stop, output_dir: Path | None, study_uid: str | None) -> StudyResult:
    """Write result.json where no study could be worked on."""
    folder = output_dir or DEFAULT_OUTPUT / folder_name(study_uid)
    return write_result(StudyResult(study_instance_uid=study_uid).stopped(stop), folder)
