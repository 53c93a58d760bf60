"""The service for viewers: 3D Slicer and OHIF send an image and get the masks of its hippocampi.

    python viewer_server.py --port N [--host H] [--store DIR] [--viewer-origin URL]

In 3D Slicer: module MONAILabel, server http://127.0.0.1:N, Run. Serves this machine alone; with another --host, the
environment must hold VIEWER_KEY, and the server's address becomes http://HOST:N/k/KEY. All that is sent is kept in DIR,
which only the user may read who runs this.

Exit code 0: stopped (Ctrl-C, SIGTERM). 1: it could not begin; one line on stderr. 2: usage. Research use only.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import warnings
from pathlib import Path

import uvicorn

import clinic_environment  # noqa: F401  before anything that may be missing
from archive.dicomweb import DicomWebArchive
from archive.tls import TlsFiles
from choosing.series_rules import load_rules
from common.refusal import Stop
from common.shipped import DEFAULT_MODEL
from common.start import give_memory_back, positive
from options import DEFAULT_HEAD_RULES, DEFAULT_RULES, dicomweb_url
from study.process_study import DEFAULT_OUTPUT
from study.setup import SetupFiles
from teaching.image_store import ImageStore
from teaching.learning import Learning
from viewer.access import LOOPBACK, is_key
from viewer.segmenting import Segmenter
from viewer.viewer_service import ServiceOptions, create_service

KEY = "VIEWER_KEY"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Segment what viewers send. Research use only.")
    parser.add_argument("--port", type=int, required=True, metavar="N", help="0: a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help=f"any other than this needs {KEY} (%(default)s)"
    )
    parser.add_argument("--store", type=Path, default=DEFAULT_OUTPUT / "viewer", metavar="DIR", help="what is kept")
    parser.add_argument(
        "--viewer-origin",
        action="append",
        default=[],
        metavar="URL",
        help="of a web viewer whose pages may ask, such as http://localhost:3000; may be given again",
    )
    parser.add_argument(
        "--max-workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="images at a time"
    )
    parser.add_argument("--max-upload", type=positive, default=512, metavar="MIB", help="of one image (%(default)s)")
    parser.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="the exported model")
    parser.add_argument(
        "--dicomweb",
        type=dicomweb_url,
        metavar="URL",
        help="the archive whose series OHIF names and whose studies programs name; credentials as in inference_dcm.py",
    )
    parser.add_argument(
        "--to-archive",
        action="store_true",
        help="with --dicomweb: send each correction of its images there, as SEG, SR and page made by a person",
    )
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust instead of the system's")
    parser.add_argument("--parent", type=Path, metavar="MODEL", help="what training goes on from (the model in use)")
    parser.add_argument("--old-data", type=Path, metavar="DIR", help="pairs that training learns from besides")
    return parser


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)  # from now on nobody is turned away
    return listener


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    key = os.environ.get(KEY) or None
    if key is not None and not is_key(key):
        parser.error(f"{KEY} must be at least 16 letters, digits, dashes or underscores")
    if args.to_archive and not args.dicomweb:
        parser.error("--to-archive needs --dicomweb")
    if key is None and args.host not in LOOPBACK:
        parser.error(f"--host {args.host} is open to others: set {KEY} in the environment")
    os.umask(0o077)
    try:
        files = SetupFiles(
            args.model_path.absolute(), load_rules(DEFAULT_RULES), head_rules=load_rules(DEFAULT_HEAD_RULES)
        )
        segmenter = Segmenter(files, args.max_workers)
        store = ImageStore(args.store.absolute())
        listener = _listening(args.host, args.port)
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except (OSError, OverflowError) as error:
        print(f"nothing can listen at {args.host}, port {args.port}: {error}", file=sys.stderr)
        return 1
    parent = (args.parent or args.model_path).absolute()
    learning = Learning(store, Path(__file__).with_name("corrections.py"), parent, args.old_data)
    archive = DicomWebArchive(args.dicomweb, TlsFiles(args.ca_file)) if args.dicomweb else None
    options = ServiceOptions(key, tuple(args.viewer_origin), args.max_upload << 20, archive, args.to_archive)
    app = create_service(store, segmenter, learning, options)
    port = listener.getsockname()[1]
    prefix = "/k/KEY" if key else ""
    print(f"serving at http://{args.host}:{port}{prefix}; stop with Ctrl-C. Research use only.", flush=True)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: None)  # the server ends by them, and raises them anew afterwards
    logging.disable()  # what libraries tell may name keys and images
    warnings.simplefilter("ignore")
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none")
    uvicorn.Server(config).run(sockets=[listener])
    store.close()
    return 0


if __name__ == "__main__":
    give_memory_back()
    sys.exit(main())
