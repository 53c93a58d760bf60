"""The AI node: measure every study that a DICOM listener receives, and send the results on.

    python ai_server.py --incoming DIR --database FILE [--output-dir DIR] [--send-to-orthanc | --dicomweb URL] ...
    python ai_server.py status [--json] --database FILE
    python ai_server.py retry STUDY --database FILE

DIR is where the listener writes (storescp; a folder a study, or all in one). A study is worked on when it was quiet for
a while, or as soon as the archive to which results go says that it holds no more of it. What was done survives the end
of any process at any time. Input moves to DIR/done when its results are proven to be stored, and to DIR/failed when it
was set aside. Several nodes may work with one folder and one database.

Exit code 0: stopped (Ctrl-C, SIGTERM) with nothing half done; told; begun again. 1: it could not begin, or there is
nothing to begin again; one line on stderr. 2: usage. Research use only.
"""

import argparse
import json
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import clinic_environment  # noqa: F401  before anything that may be missing
from batches.engines import Engine, local_engine
from common.refusal import Stop
from common.start import limit_memory, positive
from node.ai_node import LEASE, AiNode, Settings
from node.incoming import Incoming
from node.modules import load_modules
from node.study_queue import NothingToRetryError, QueueError, StudyQueue
from options import (
    DEADLINE,
    add_node_options,
    archive_at,
    check_certificates,
    counter,
    destinations,
    setup_files,
)
from study.process_study import DEFAULT_OUTPUT

QUIET = 30  # seconds
LONGEST = 900  # seconds for a study that never comes to an end


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of 0 or above")
    return number


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database", type=Path, required=True, metavar="FILE", help="the node's memory, on a disk here"
    )


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure every study that a DICOM listener receives. Research use only.",
        epilog="ai_server.py status --help, ai_server.py retry --help: what was done, and begin again what failed.",
    )
    parser.add_argument("--incoming", type=Path, required=True, metavar="DIR", help="where the listener writes")
    _add_database(parser)
    parser.add_argument(
        "--quiet-seconds", type=_number, default=QUIET, metavar="S", help="then a study is complete (%(default)s)"
    )
    parser.add_argument(
        "--longest-wait", type=_number, default=LONGEST, metavar="S", help="complete even if not quiet (%(default)s)"
    )
    parser.add_argument(
        "--max-workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="studies at a time"
    )
    parser.add_argument(
        "--also-send-to",
        type=archive_at,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="one more archive, AET@HOST:PORT or the URL of a DICOMweb service; may be given again",
    )
    parser.add_argument(
        "--modules", type=Path, metavar="FILE", help="more modules than this one, and which series goes to which"
    )
    parser.add_argument(
        "--keep-days", type=_number, metavar="D", help="delete input that went well after so long; default: never"
    )
    parser.add_argument(
        "--lease-seconds",
        type=_number,
        default=LEASE,
        metavar="S",
        help="so long the studies of a node that was killed must wait (%(default)s)",
    )
    add_node_options(parser)
    _add_page_options(parser)
    return parser


def _add_page_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--status-port", type=_port, metavar="N", help="show a status page at http://127.0.0.1:N, for this machine only"
    )
    parser.add_argument(
        "--viewer-url", type=_viewer, metavar="URL", help="there it links to; {study} stands for the StudyInstanceUID"
    )
    parser.add_argument(
        "--show-identity", action="store_true", help="it says whose study it is, to all who may log in on this machine"
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return int(text)


def _viewer(text: str) -> str:
    if not text.startswith(("http://", "https://")) or "{study}" not in text:
        raise argparse.ArgumentTypeError(f"{text} is no http address with {{study}} in it")
    return text


def _node_and_page(
    args: argparse.Namespace, settings: Settings, engine: Engine
) -> tuple[AiNode, AbstractContextManager]:
    """The node, and the page that watches it where one was asked for. Ends the program where its port is taken."""
    waits = (args.quiet_seconds, args.longest_wait)
    node = AiNode(settings, Incoming(args.incoming.absolute(), *waits, ask=counter(args)), engine)
    if args.status_port is None:
        return node, nullcontext()
    from node.status_page import PageOptions, StatusPage  # here, as it brings a web server along

    try:
        return node, StatusPage(node, PageOptions(args.status_port, args.viewer_url, args.show_identity))
    except OSError as error:
        sys.exit(f"no status page on port {args.status_port}: {error.strerror}")


def _serve(argv: list[str]) -> int:
    parser = _serve_parser()
    args = parser.parse_args(argv)
    check_certificates(parser, args)
    if not args.incoming.is_dir():
        print(f"{args.incoming} is no folder; expected the one where the listener writes", file=sys.stderr)
        return 2
    output_dir = (args.output_dir or DEFAULT_OUTPUT).resolve()
    for path in (output_dir, args.database.resolve()):
        if path.is_relative_to(args.incoming.resolve()):
            print(f"{path} lies in {args.incoming}, where all is taken for input", file=sys.stderr)
            return 2
    try:
        files_of_setup = setup_files(args)
        settings = Settings(
            database=args.database.absolute(),
            output_dir=output_dir,
            setup_files=files_of_setup,
            setup_digest=files_of_setup.load().digest,
            destinations=destinations(args, args.also_send_to),
            modules=load_modules(args.modules) if args.modules else (),
            keep_days=args.keep_days,
            lease=args.lease_seconds,
        )
        deadline = DEADLINE + sum(module.timeout for module in settings.modules)
        engine = local_engine("processes", args.max_workers, deadline)
        with engine.executor:
            node, page = _node_and_page(args, settings, engine)
            for one in (signal.SIGTERM, signal.SIGINT):
                signal.signal(one, lambda *_: node.stop())
            with page:
                node.serve()
    except (Stop, QueueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _status(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ai_server.py status", description="What became of the studies.")
    _add_database(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args(argv)
    with _existing_queue(parser, args.database) as queue:
        studies = queue.studies()
    print(json.dumps(studies, indent=2) if args.json else _table(studies))
    return 0


def _retry(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ai_server.py retry", description="Begin again what was set aside.")
    parser.add_argument("study", metavar="STUDY", help="its UID, as status tells it")
    _add_database(parser)
    args = parser.parse_args(argv)
    try:
        with _existing_queue(parser, args.database) as queue:
            print(f"{args.study}: {queue.retry(args.study)}")
    except NothingToRetryError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _existing_queue(parser: argparse.ArgumentParser, database: Path) -> StudyQueue:
    if not database.is_file():
        parser.error(f"{database} is no file; expected the node's --database")
    return StudyQueue(database)


def _table(studies: list[dict]) -> str:
    """A line a study, and one for each of its destinations."""
    lines = [f"{'study':<64} {'round':>5} {'files':>5} {'state':<10} what"]
    for one in studies:
        code = f"[{one['code']}] " if one["code"] else ""
        lines.append(
            f"{one['study_uid']:<64} {one['round']:>5} {one['files']:>5} {one['state']:<10} "
            f"{code}{one['reason'] or ''}{_when(one['next_try_in'])}".rstrip()
        )
        for to in one["deliveries"]:
            line = f"    {to['destination']}: {to['state']}, attempts: {to['attempts']}{_when(to['next_try_in'])}"
            lines.append(f"{line} {to['detail'] or ''}".rstrip())
    return "\n".join([*lines, f"{len(studies)} studies. Research use only."])


def _when(seconds: float | None) -> str:
    return "" if seconds is None else f" (again in {seconds:.0f} s)"


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    commands = {"status": _status, "retry": _retry}
    command = commands.get(argv[0]) if argv else None
    try:
        return command(argv[1:]) if command else _serve(argv)
    except QueueError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    limit_memory()
    sys.exit(main())
