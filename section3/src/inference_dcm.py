"""Measure the hippocampus in one DICOM study.

    python inference_dcm.py STUDY [--output-dir DIR] [--send-to-orthanc | --dicomweb URL]
    python inference_dcm.py --dicomweb URL --study UID [--send-back]

STUDY is a folder with the study's DICOM files in it or below it; with --study they come from an archive. Without
--output-dir the results go to section3/out/<StudyInstanceUID>/: report.dcm and report.png (the page), report_series.dcm
and .png (the table of series: which, and why), overlay/ (the contours on every slice), segmentation.dcm,
measurements.dcm and result.json (everything that was found). Of a study that could be read and is refused, report.dcm
and report.png say why; they are sent as results are.

Exit code 0: done. 1: refused or failed, with one line on stderr that ends in a stable code in brackets (the table is
in refusal.py); result.json says the same. 2: usage; nothing is written. Results that cannot be sent are a warning: they
stay where they are. An archive that confirms them and holds something else is a failure. Research use only.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from archive import ArchiveError, SendOutcome, send_to_archive
from dicom_results import PAGE, REVISION
from dicom_series import (
    DEFAULT_RULES,
    NOT_OUR_RESULT,
    UID_TEXT,
    Condition,
    Series,
    Study,
    consider_series,
    get_series_for_inference,
    list_files,
    load_rules,
    read_study,
    require_complete,
    require_readable,
    series_table,
)
from dicom_volume import (
    SourceVolume,
    get_predicted_volumes,
    load_dicom_volume_as_numpy_from_list,
    to_model_grid,
    to_source_grid,
)
from dicomweb import DicomWebArchive, parse_url
from dimse import DimseArchive
from identity import Identity, pseudonym
from quality import (
    PASS,
    assess_input,
    assess_output,
    assess_spacing,
    is_cut,
    limits_beside,
    limits_sha256,
    nothing_checked,
)
from refusal import Refusal, printable
from study_outputs import Measurement, without_our_results, write_outputs, write_refusal
from study_result import StudyResult, rules_sha256, write_result
from unet_inference_agent import UNetInferenceAgent
from verify_results import VerificationError

SECTION = Path(__file__).resolve().parents[1]
DEFAULT_MODEL = SECTION / "model" / "model.onnx"
DEFAULT_OUTPUT = SECTION / "out"


class NoSuchSeriesError(Exception):
    """The series that was asked for is not in the study. The message, a line, names those that are."""


def process_single_study(
    files: list[Path],
    agent: UNetInferenceAgent,
    output_dir: Path | None = None,
    series_uid: str | None = None,
    send: Callable[[list[Path]], SendOutcome] | None = None,
    conditions: Sequence[Condition] | None = None,
    pseudonymous: bool = False,
) -> StudyResult:
    """From the files of one study to its results in `output_dir`. What goes wrong is told by result.json.

    `conditions` choose the series, those of hippocrop_rules.json where there are none; `series_uid` narrows the choice.
    Pseudonymous pages do not say whose study it is. What an earlier run left in `output_dir` under the same names is
    replaced, or removed when there is no result now. Raises NoSuchSeriesError, with nothing written, and
    Refusal: bad-model.
    """
    conditions = conditions or load_rules()
    result = StudyResult(
        model=agent.identity,
        rules_sha256=rules_sha256(conditions),
        limits_sha256=limits_sha256(agent.path),
        revision=REVISION,
    )
    try:
        study = open_study(files, result)
        result.pseudonym = pseudonym(study.uid) if pseudonymous else None
        folder = _output_folder(result, output_dir)
        try:
            measurement = measure_study(study, agent, series_uid, result, conditions)
            result.outputs = write_outputs(measurement, result, folder)
        except Refusal as refusal:
            result.stop("refused", refusal.code, refusal.reason)
            result.outputs = write_refusal(study, result, folder)
        for output in result.outputs:
            output["sha256"] = hashlib.sha256((folder / output["file"]).read_bytes()).hexdigest()
        if send and result.outputs:
            with result.timed("send"):
                outcome = send([folder / output["file"] for output in result.outputs if output["sop_instance_uid"]])
            result.sent, result.stored, result.send_detail = outcome.sent, outcome.stored, outcome.detail
            if outcome.stored is False and result.status == "success":
                result.stop("failed", "not-stored", outcome.detail)
    except Refusal as refusal:
        result.stop("refused", refusal.code, refusal.reason)
    except NoSuchSeriesError:
        raise
    except VerificationError as error:
        result.stop("failed", "verification-failed", str(error))
    except OSError as error:
        result.stop("failed", "cannot-write", f"cannot write the results: {error.strerror}")
    except Exception as error:  # noqa: BLE001  a fault of ours in one study must not stop the others
        result.stop("failed", "internal-error", _place_of(error))
    write_result(result, _output_folder(result, output_dir))
    return result


def _output_folder(result: StudyResult, output_dir: Path | None) -> Path:
    return output_dir or DEFAULT_OUTPUT / folder_name(result.study_instance_uid)


def folder_name(study_uid: str | None) -> str:
    """The name of a study's output folder: its UID, where that is known."""
    return study_uid or "unidentified"


def open_study(files: list[Path], result: StudyResult) -> Study:
    """Read the headers of a study's files; notes in `result` what it learns. Raises Refusal."""
    with result.timed("read"):
        study = read_study(files)
    result.study_instance_uid, result.instances_sha256 = study.uid, study.instances_sha256
    result.files = study.files_passed_over
    return study


def measure_study(
    study: Study,
    agent: UNetInferenceAgent,
    series_uid: str | None,
    result: StudyResult,
    conditions: Sequence[Condition] | None = None,
) -> Measurement:
    """Choose, segment and measure; notes in `result` what it learns on the way. Raises Refusal, NoSuchSeriesError."""
    identity = Identity.of(study)
    if series_uid is not None and series_uid not in {one.uid for one in study.series}:
        damaged = f" ({len(study.damaged)} damaged files left out)" if study.damaged else ""
        raise NoSuchSeriesError(f"no series {series_uid} in the study{damaged}, which has: {_listed(study, identity)}")
    with identity.kept_out_of_refusals():
        considered = consider_series(study, series_uid, conditions)
        result.series_considered = [identity.removed_from_row(one.as_row()) for one in considered]
        series = get_series_for_inference([one for one in considered if one.condition != NOT_OUR_RESULT.name])
        result.series_instance_uid = series.uid
        require_readable(study, series)

        with result.timed("volume"):
            source = load_dicom_volume_as_numpy_from_list(series)
            require_complete(series)
        labels = segment(source, agent, result)
        result.volumes_mm3 = get_predicted_volumes(labels, source.spacing)
        result.intervals_mm3 = agent.volume_intervals(result.volumes_mm3)
    header = without_our_results(study).header_for(series)
    return Measurement(header, source, identity.removed_from(series.description), labels)


def _listed(study: Study, identity: Identity) -> str:
    """The series that --series can name, on one line without the patient."""
    series = without_our_results(study).series
    names = (f"{one.uid} ({one.description or 'unnamed'}, {len(one.instances)} images)" for one in series)
    return printable(identity.removed_from(", ".join(names)))[:1000] or "none but those of our results"


def segment(source: SourceVolume, agent: UNetInferenceAgent, result: StudyResult) -> np.ndarray:
    """Labels [X, Y, Z] on the grid of the source. Raises Refusal where their volume must not be shown."""
    volume = to_model_grid(source)
    limits = limits_beside(agent.path)
    with result.timed("quality"):
        checks = [assess_spacing(source.spacing), *(assess_input(volume, limits) if limits else [nothing_checked()])]
        result.require_shown(checks, "unfit-input")
    with result.timed("model"):
        probabilities = agent.single_volume_inference(volume)
        labels = to_source_grid(probabilities, source)
    if not ((labels == 1).any() and (labels == 2).any()):
        raise Refusal("nothing-found", "the model finds no hippocampus with both parts")
    with result.timed("quality"):
        if limits:
            checks = assess_output(probabilities, agent.identity["sha256"], limits)
            result.require_shown(checks, "structure-cut" if is_cut(checks) else "implausible-result")
    return labels


def _place_of(error: Exception) -> str:
    """Where a fault happened. Its message is left out, as it may quote a patient's data."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"


def validate_study_directory(folder: Path) -> list[Path]:
    """All files in or below `folder`. Raises NotADirectoryError with one line for the user."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one with DICOM files in it or below it")
    return list_files(folder)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options that one study and many have in common."""
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--pseudonymous",
        action="store_true",
        help="a page without name, identifiers and dates; in their headers the DICOM objects keep them",
    )
    parser.add_argument("--rules", type=Path, default=DEFAULT_RULES, metavar="FILE", help="which series is the input")
    parser.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="the exported model")
    archive = parser.add_mutually_exclusive_group()
    archive.add_argument("--send-to-orthanc", action="store_true", help="send the results to the archive (C-STORE)")
    parser.add_argument("--orthanc-host", default="localhost", metavar="HOST", help="default: %(default)s")
    parser.add_argument("--orthanc-port", type=int, default=4242, metavar="PORT", help="default: %(default)s")
    parser.add_argument("--orthanc-aec", default="ORTHANC", metavar="AET", help="default: %(default)s")
    archive.add_argument(
        "--dicomweb",
        type=_dicomweb_url,
        metavar="URL",
        help="send the results there (STOW-RS), with the credentials in DICOMWEB_TOKEN, or DICOMWEB_USER and "
        "DICOMWEB_PASSWORD",
    )
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust instead of the system's")


def sender(args: argparse.Namespace) -> Callable[[list[Path]], SendOutcome] | None:
    """How to send, as the options say; None where nobody asked for it."""
    if args.send_to_orthanc:
        archive = DimseArchive(args.orthanc_host, args.orthanc_port, args.orthanc_aec)
    elif args.dicomweb:
        archive = DicomWebArchive(args.dicomweb, args.ca_file)
    else:
        return None
    return partial(send_to_archive, archive=archive)


def _dicomweb_url(text: str) -> str:
    try:
        return parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _uid(text: str) -> str:
    if not UID_TEXT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text} is no UID")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the hippocampus in one DICOM study. Research use only.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "folder", type=Path, nargs="?", metavar="STUDY", help="folder with the study's files in it or below it"
    )
    where.add_argument("--study", type=_uid, metavar="UID", help="fetch this study from the archive of --dicomweb")
    parser.add_argument("--send-back", action="store_true", help="with --study: send the results to that archive too")
    parser.add_argument("--series", metavar="UID", help="the series to take where several could be the input")
    parser.add_argument("--explain", action="store_true", help="print the verdict on every series of the study")
    add_common_options(parser)
    return parser


@contextmanager
def _study_files(args: argparse.Namespace, conditions: Sequence[Condition]) -> Iterator[list[Path]]:
    """The files of the study that the options name. Those that had to be fetched are gone after the block.

    Raises NotADirectoryError, ArchiveError.
    """
    if args.folder:
        yield validate_study_directory(args.folder)
        return
    archive = DicomWebArchive(args.dicomweb, args.ca_file)
    with tempfile.TemporaryDirectory() as folder:
        yield archive.fetch_study(
            args.study, Path(folder), lambda files: _series_to_fetch(files, args.series, conditions)
        )


def _series_to_fetch(files: list[Path], series_uid: str | None, conditions: Sequence[Condition]) -> list[Series]:
    """The series whose pixels are needed, by the headers in `files`; none where the study will be refused."""
    try:
        return [get_series_for_inference(consider_series(read_study(files), series_uid, conditions))]
    except Refusal:
        return []


def _no_result(args: argparse.Namespace, status: str, refusal: Refusal) -> StudyResult:
    """What is told where no study could be worked on."""
    result = StudyResult(study_instance_uid=args.study)
    result.stop(status, refusal.code, refusal.reason)
    write_result(result, _output_folder(result, args.output_dir))
    return result


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.study or args.send_back) and not (args.study and args.dicomweb):
        parser.error("--study needs --dicomweb, and --send-back needs both")
    send = None if args.study and not args.send_back else sender(args)
    try:
        conditions = load_rules(args.rules)
        with _study_files(args, conditions) as files:
            agent = UNetInferenceAgent(args.model_path, threads=os.cpu_count() or 1)
            result = process_single_study(
                files, agent, args.output_dir, args.series, send, conditions, args.pseudonymous
            )
    except (NotADirectoryError, NoSuchSeriesError) as error:
        print(error, file=sys.stderr)
        return 2
    except Refusal as refusal:  # of the rules or the model
        result = _no_result(args, "refused", refusal)
    except ArchiveError as error:
        result = _no_result(args, "failed", Refusal("cannot-fetch", f"{args.dicomweb}: {error}"))

    if args.explain and result.series_considered:
        print(series_table(result.series_considered))
    if result.status != "success":
        if result.status == "refused":
            _tell_sent(result)
        print(Refusal(result.code, result.reason), file=sys.stderr)
        return 1
    for structure, volume in result.volumes_mm3.items():
        low, high = (result.intervals_mm3 or {}).get(structure, (None, None))
        print(f"{structure:<10}{volume:8.0f} mm3" + (f"  (90 %: {low:.0f} to {high:.0f})" if low else ""))
    for check in result.quality:
        if check["verdict"] != PASS:
            print(f"warning: {check['sentence']}")
    print(f"Research use only. Page: {Path(result.output_dir) / PAGE}")
    _tell_sent(result)
    return 0


def _tell_sent(result: StudyResult) -> None:
    """Whether the outputs, if they were to be sent, have arrived."""
    if False in (result.sent, result.stored):
        undone = "stored" if result.sent else "sent"
        print(f"warning: the results were not {undone}: {result.send_detail}", file=sys.stderr)
    elif result.sent:
        print(f"Sent: {result.send_detail}")


if __name__ == "__main__":
    sys.exit(main())
