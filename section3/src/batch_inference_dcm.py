"""Measure the hippocampus in many DICOM studies.

    python batch_inference_dcm.py [ROOT] [--output-dir DIR] [--max-workers N] [--resume] [--save-summary [FILE]]

Every study with files in or below ROOT is worked on, whatever its files and folders are called. The results of each go
to DIR/<StudyInstanceUID>/ as inference_dcm.py writes them. Without ROOT: TestVolumes of $HIPPO_DATA, or of data/.

Exit code 0: all studies succeeded. 1: any was refused or failed, or there was none. 2: usage. Research use only.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import clinic_environment  # noqa: F401  before anything that may be missing
from batches.batch import BatchProcessingStats, find_hippocrop_studies, run_batch_inference
from batches.dask_engine import dask_engine
from batches.engines import LOCAL_ENGINES, local_engine
from batches.study_worker import StudyTask
from common.refusal import Failure, Refusal, Stop
from common.start import positive
from options import (
    DEADLINE,
    add_common_options,
    check_certificates,
    require_archive,
    sender,
    setup_files,
)
from study.process_study import DEFAULT_OUTPUT, folder_name, validate_study_directory

REPOSITORY = Path(__file__).resolve().parents[2]


def _address(text: str) -> str:
    if not re.fullmatch(r"(tcp|tls)://[^/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is not of the form tcp://host:port")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the hippocampus in many DICOM studies. Research use only.")
    root = Path(os.environ.get("HIPPO_DATA") or REPOSITORY / "data") / "TestVolumes"
    parser.add_argument("root", type=Path, nargs="?", default=root, metavar="ROOT", help="folder with studies below it")
    parser.add_argument(
        "--max-workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="studies at a time"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--engine", choices=LOCAL_ENGINES, default=LOCAL_ENGINES[0], help="default: %(default)s")
    where.add_argument(
        "--scheduler", type=_address, metavar="ADDRESS", help="work on a Dask cluster, e.g. tcp://localhost:8786"
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=DEADLINE,
        metavar="SECONDS",
        help="for one study, in processes and on a cluster; default: %(default)s",
    )
    parser.add_argument("--resume", action="store_true", help="skip studies whose earlier results are still right")
    parser.add_argument(
        "--save-summary",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="write all results as CSV or JSON; without FILE to summary.csv and summary.json in the output folder",
    )
    add_common_options(parser)
    return parser


def _batch(args: argparse.Namespace, files: list[Path], output_dir: Path) -> BatchProcessingStats:
    """Everything from the files to the results. Raises Stop where no study can be worked on at all."""
    files_of_setup = setup_files(args)
    digest = files_of_setup.load().digest  # a bad model is told once, not by every worker
    engine = (
        dask_engine(args.scheduler, args.timeout)
        if args.scheduler
        else local_engine(args.engine, args.max_workers, args.timeout)
    )
    with engine.executor:  # after Ctrl-C the studies in work are finished, no others begun
        studies = find_hippocrop_studies(files, engine.executor)
        if not studies:
            raise Refusal("no-dicom", f"no DICOM image among the {len(files)} files in or below {args.root}")
        tasks = [
            StudyTask(
                study_uid=uid,
                files=studies[uid],
                output_dir=output_dir / folder_name(uid),
                setup_files=files_of_setup,
                setup_digest=digest,
                threads=engine.threads,
                send=sender(args),
                resume=args.resume,
            )
            for uid in sorted(studies)
        ]
        return run_batch_inference(tasks, engine)


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    require_archive(parser, args)
    check_certificates(parser, args)
    # Absolute paths here: the workers of a cluster were started somewhere else.
    output_dir = (args.output_dir or DEFAULT_OUTPUT).absolute()
    try:
        files = validate_study_directory(args.root.absolute())
    except NotADirectoryError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        stats = _batch(args, files, output_dir)
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the results of the studies listed above are complete", file=sys.stderr)
        return 130

    print(stats.table())
    paths = [args.save_summary] if args.save_summary else []
    if args.save_summary is True:
        paths = [output_dir / "summary.csv", output_dir / "summary.json"]
    for path in paths:
        try:
            stats.save(path)
        except OSError as error:
            print(Failure("cannot-write", f"cannot write the summary to {path}: {error.strerror}"), file=sys.stderr)
            return 1
    return 1 if stats.succeeded < stats.total or (args.require_sent and stats.unsent) else 0


if __name__ == "__main__":
    sys.exit(main())
