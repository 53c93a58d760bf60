"""One study from its files to its outputs and result.json."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.refusal import SUCCESS, Failure, Refusal, Stop, printable
from common.send_outcome import SendOutcome
from common.stopwatch import Stopwatch
from measuring.measure_crop import measure_crop
from measuring.measurement import Measurement
from objects.verify_objects import VerificationError
from reading.dicom_series import Study, list_files, read_study, require_one_content, require_readable
from reading.dicom_volume import load_dicom_volume_as_numpy_from_list, volume_to_look_at
from reading.identity import Identity, Nobody
from reading.series_checks import check_series
from reading.series_rules import consider_series, get_series_for_inference, without_ours
from study.output_folder import cannot_write, only_run_in, write_result
from study.setup import Setup
from study.study_outputs import write_outputs
from study.study_result import StudyResult

DEFAULT_OUTPUT = Path(__file__).resolve().parents[2] / "out"

Send = Callable[[list[Path]], SendOutcome]


class NoSuchSeriesError(Exception):
    """The series that was asked for is not in the study. The message, a line, names those that are."""


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


def measure_study(study: Study, setup: Setup, stopwatch: Stopwatch, series_uid: str | None = None) -> Measurement:
    """Choose the series, segment and measure it. Raises NoSuchSeriesError, Failure."""
    identity = (Nobody if setup.pseudonymous else Identity).of(study)
    if series_uid is not None and study.series_of(series_uid) is None:
        damaged = f" ({len(study.damaged)} damaged files left out)" if study.damaged else ""
        raise NoSuchSeriesError(f"no series {series_uid} in the study{damaged}, which has: {_listed(study, identity)}")
    verdicts = consider_series(study, setup.rules, series_uid)
    shown = tuple(identity.removed_from_verdict(one) for one in verdicts)
    series = None
    try:
        with identity.kept_out_of_stops():
            series = get_series_for_inference(study, verdicts)
            require_readable(study, series)
            require_one_content(study, series)
            with stopwatch.timed("volume"):
                source = load_dicom_volume_as_numpy_from_list(series)
    except Refusal as refusal:
        # What cannot be decoded is not tried again.
        readable = series if refusal.code != "unreadable-pixels" else None
        picture = readable and volume_to_look_at(readable)
        return Measurement(without_ours(study).header_for(series), shown, picture, refusal=refusal)
    hippocampus = measure_crop(source, setup.agent, setup.limits, stopwatch)
    return Measurement(
        header=without_ours(study).header_for(series),
        series=shown,
        source=source,
        hippocampi=(hippocampus,),
        checks=check_series(series, source),
        refusal=hippocampus.refusal,
    )


def _listed(study: Study, identity: Identity) -> str:
    """The series that --series can name, on one line without the patient."""
    series = without_ours(study).series
    names = (f"{one.uid} ({one.description or 'unnamed'}, {len(one.instances)} images)" for one in series)
    return printable(identity.removed_from(", ".join(names)))[:1000] or "none but those of our results"


def record_stop(stop: Stop, output_dir: Path | None, study_uid: str | None) -> StudyResult:
    """Write result.json where no study could be worked on."""
    folder = output_dir or DEFAULT_OUTPUT / folder_name(study_uid)
    return write_result(StudyResult(study_instance_uid=study_uid).stopped(stop), folder)
