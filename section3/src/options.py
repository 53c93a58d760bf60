"""The options that the programs have in common, and what they make of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from archive.dicomweb import DicomWebArchive, parse_url
from archive.dimse import DimseArchive
from archive.sending import Archive, ArchiveError, Patience, send_to_archive
from archive.tls import TlsFiles
from choosing.series_rules import DEFAULT_HEAD_RULES, DEFAULT_RULES, load_rules
from common.shipped import DEFAULT_MODEL
from reading.dicom_series import UID_TEXT
from study.process_study import Send
from study.setup import SetupFiles

ONE_ATTEMPT = Patience(pauses=())
COUNT_SECONDS = 10
DEADLINE = 300  # seconds for a study of a second or two: time for a slow disk, a slow archive and a busy machine


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options that one study and many have in common."""
    add_node_options(parser)
    parser.add_argument(
        "--require-sent", action="store_true", help="results that the archive did not confirm end with exit code 1"
    )


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Those that a program which never ends has too."""
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--pseudonymous",
        action="store_true",
        help="a page without name, identifiers and dates; in their headers the DICOM objects keep them",
    )
    parser.add_argument("--rules", type=Path, default=DEFAULT_RULES, metavar="FILE", help="which series is a crop")
    parser.add_argument(
        "--head-rules",
        type=Path,
        default=DEFAULT_HEAD_RULES,
        metavar="FILE",
        help="which series, where there is no crop, is a T1-weighted image of a head",
    )
    parser.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="the exported model")
    parser.add_argument(
        "--probability-map",
        action="store_true",
        help="also write how probable a hippocampus is in each voxel, as a DICOM Parametric Map",
    )
    archive = parser.add_mutually_exclusive_group()
    archive.add_argument("--send-to-orthanc", action="store_true", help="send the results to the archive (C-STORE)")
    parser.add_argument("--orthanc-host", default="localhost", metavar="HOST", help="default: %(default)s")
    parser.add_argument("--orthanc-port", type=int, default=4242, metavar="PORT", help="default: %(default)s")
    parser.add_argument("--orthanc-aec", default="ORTHANC", metavar="AET", help="default: %(default)s")
    archive.add_argument(
        "--dicomweb",
        type=dicomweb_url,
        metavar="URL",
        help="send the results there (STOW-RS), with the credentials in DICOMWEB_TOKEN, or DICOMWEB_USER and "
        "DICOMWEB_PASSWORD",
    )
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust instead of the system's")
    parser.add_argument(
        "--tls",
        type=Path,
        nargs=2,
        metavar=("KEY", "CERTIFICATE"),
        help="speak DICOM by TLS, and show this certificate of ours to every archive (PEM)",
    )


def setup_files(args: argparse.Namespace) -> SetupFiles:
    """What to measure with, as the options say. Raises Failure: bad-rules."""
    return SetupFiles(
        args.model_path.absolute(),
        load_rules(args.rules),
        args.pseudonymous,
        load_rules(args.head_rules),
        args.probability_map,
    )


def sender(args: argparse.Namespace) -> Send | None:
    """How to send, as the options say; None where nobody asked for it."""
    archive = _archive(args)
    return partial(send_to_archive, archive=archive) if archive else None


def destinations(args: argparse.Namespace, more: Iterable[Archive] = ()) -> dict[str, Send]:
    """How to send, by the name of where to: the archive that the options name, and more.

    Each has one attempt at a time, as whoever keeps a queue makes its own pauses.
    """
    found = {}
    for archive in filter(None, (_archive(args), *more)):
        archive = replace(_with_tls(archive, args), patience=ONE_ATTEMPT)
        found[str(archive)] = partial(send_to_archive, archive=archive)
    return found


def counter(args: argparse.Namespace) -> Callable[[str], int] | None:
    """How to ask the archive that the options name how much it holds of a study; it has little time to answer."""
    archive = _archive(args)
    return replace(archive, timeout=COUNT_SECONDS).count_instances if archive else None


def _archive(args: argparse.Namespace) -> Archive | None:
    if args.send_to_orthanc:
        archive = DimseArchive(args.orthanc_host, args.orthanc_port, args.orthanc_aec)
    elif args.dicomweb:
        archive = DicomWebArchive(args.dicomweb)
    else:
        return None
    return _with_tls(archive, args)


def tls_files(args: argparse.Namespace) -> TlsFiles:
    return TlsFiles(args.ca_file, tuple(args.tls) if args.tls else None)


def _with_tls(archive: Archive, args: argparse.Namespace) -> Archive:
    """DICOM is spoken plainly unless we were given a certificate to show."""
    plainly = isinstance(archive, DimseArchive) and not args.tls
    return replace(archive, tls=None if plainly else tls_files(args))


def check_certificates(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Usage: files of certificates that cannot be used are told before anything begins. Ends the program."""
    if args.ca_file or args.tls:
        try:
            tls_files(args).context()
        except ArchiveError as error:
            parser.error(str(error))


def archive_at(text: str) -> Archive:
    """The archive at AET@HOST:PORT, or at the address of a DICOMweb service."""
    if found := re.fullmatch(r"([^@:/]{1,16})@([^@:/]+):(\d{1,5})", text):
        return DimseArchive(found[2], int(found[3]), found[1])
    return DicomWebArchive(dicomweb_url(text))


def require_archive(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Usage: who requires that results are sent says where to. Ends the program."""
    if args.require_sent and not (args.send_to_orthanc or args.dicomweb):
        parser.error("--require-sent needs --send-to-orthanc or --dicomweb")


def dicomweb_url(text: str) -> str:
    try:
        return parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def uid(text: str) -> str:
    if not UID_TEXT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text} is no UID")
    return text
