"""Measure the hippocampus in one DICOM study.

    python inference_dcm.py STUDY [--output-dir DIR] [--send-to-orthanc | --dicomweb URL]
    python inference_dcm.py --dicomweb URL --study UID [--send-back]

STUDY is a folder with the study's DICOM files in it or below it; with --study they come from an archive. Without
--output-dir the results go to section3/out/<StudyInstanceUID>/: report.dcm and report.png (the page), report_series.dcm
and .png (the table of series: which, and why), overlay/ (the contours on every slice), segmentation.dcm,
measurements.dcm and result.json (everything that was found). Of a study that could be read and is refused, report.dcm
and report.png say why; they are sent as results are.

The input is the series HippoCrop, a crop around one hippocampus that looks, in RAS, like a left one; one that looks
like a right one is measured as its mirror image, and no side is named. In a study without one it is the best 3D
T1-weighted series of the head, of which both hippocampi are measured, and their sides are those of its headers.

Exit code 0: done. 1: refused or failed, with one line on stderr that ends in a stable code in brackets (the table is
in refusal.py); result.json says the same. 2: usage; nothing is written. Results that cannot be sent are a warning: they
stay where they are. An archive that confirms them and holds something else is a failure. Research use only.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import clinic_environment  # noqa: F401  before anything that may be missing
from archive.dicomweb import DicomWebArchive
from archive.fetching import fetched_study
from archive.sending import ArchiveError
from common.output_files import PAGE, PAGE_PICTURE
from common.refusal import REFUSED, Failure, Stop
from common.start import start_program
from common.verdicts import PASS
from options import add_common_options, check_certificates, require_archive, sender, setup_files, tls_files, uid
from study.process_study import NoSuchSeriesError, process_single_study, record_stop, validate_study_directory
from study.setup import SetupFiles
from study.study_result import StudyResult

MOST_THREADS = 8  # more make a crop no faster, and each takes memory


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the hippocampus in one DICOM study. Research use only.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "folder", type=Path, nargs="?", metavar="STUDY", help="folder with the study's files in it or below it"
    )
    where.add_argument("--study", type=uid, metavar="UID", help="fetch this study from the archive of --dicomweb")
    parser.add_argument("--send-back", action="store_true", help="with --study: send the results to that archive too")
    parser.add_argument("--series", metavar="UID", help="the series to take where several could be the input")
    parser.add_argument("--explain", action="store_true", help="print the verdict on every series of the study")
    add_common_options(parser)
    return parser


@contextmanager
def _study_files(args: argparse.Namespace, files_of_setup: SetupFiles) -> Iterator[list[Path]]:
    """The files of the study that the options name. Raises NotADirectoryError, ArchiveError."""
    if args.folder:
        yield validate_study_directory(args.folder)
        return
    archive = DicomWebArchive(args.dicomweb, tls_files(args))
    with fetched_study(archive, args.study, files_of_setup.rules, files_of_setup.head_rules, args.series) as files:
        yield files


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.study or args.send_back) and not (args.study and args.dicomweb):
        parser.error("--study needs --dicomweb, and --send-back needs both")
    require_archive(parser, args)
    check_certificates(parser, args)
    send = None if args.study and not args.send_back else sender(args)
    try:
        files_of_setup = setup_files(args)
        with _study_files(args, files_of_setup) as files:
            setup = files_of_setup.load(threads=min(os.cpu_count() or 1, MOST_THREADS))
            result = process_single_study(files, setup, args.output_dir, args.series, send)
    except (NotADirectoryError, NoSuchSeriesError) as error:
        print(error, file=sys.stderr)
        return 2
    except Stop as stop:  # of the rules, the model, or what was fetched
        result = record_stop(stop, args.output_dir, args.study)
    except ArchiveError as error:
        result = record_stop(Failure("cannot-fetch", f"{args.dicomweb}: {error}"), args.output_dir, args.study)

    if args.explain and result.series_considered:
        print(result.series_table())
    return _tell_stopped(result) if result.code else _tell_volumes(result, args.require_sent)


def _tell_stopped(result: StudyResult) -> int:
    if result.status == REFUSED:
        _tell_sent(result)
    print(f"{result.reason} [{result.code}]", file=sys.stderr)
    return 1


def _tell_volumes(result: StudyResult, require_sent: bool) -> int:
    for side, volumes in result.volumes_by_side.items():
        of_side = f"{side:<7}" if side else ""
        for structure, volume in volumes.items():
            low, high = (result.intervals_mm3 or {}).get(structure, (None, None))
            interval = f"   an expert's lies in {low:.0f} to {high:.0f} nine times in ten" if low else ""
            print(f"{of_side}{structure:<10}{volume:8.0f} mm3{interval}")
    for side, why in (result.not_shown or {}).items():
        print(f"warning: no number of the {side} one: {why['reason']} [{why['code']}]")
    for check in result.quality:
        if check["verdict"] != PASS and check.get("side") not in (result.not_shown or {}):
            side = check.get("side")
            print(f"warning: {f'{side}: ' if side else ''}{check['sentence']}")
    folder = Path(result.output_dir)
    print(f"Research use only. Page: {folder / PAGE_PICTURE} (for the archive: {PAGE})")
    _tell_sent(result)
    return 1 if require_sent and not result.sent else 0


def _tell_sent(result: StudyResult) -> None:
    """Whether the outputs, if they were to be sent, have arrived."""
    if False in (result.sent, result.stored):
        undone = "stored" if result.sent else "sent"
        print(f"warning: the results were not {undone}: {result.send_detail}", file=sys.stderr)
    elif result.sent:
        print(f"Sent: {result.send_detail}")


if __name__ == "__main__":
    start_program()
    sys.exit(main())
