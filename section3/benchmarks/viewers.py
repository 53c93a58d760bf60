"""What the service for viewers bears: crops a minute, how long others wait meanwhile, and whether its memory grows.

    python viewers.py [--images N] [--workers N ...]

Starts the service with so many workers, sends it so many crops (phantoms of sizes as the real ones) from as many
clients, each uploaded and segmented, and asks /info/ all the time. Prints a table in Markdown.
"""

import argparse
import gzip
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmark import SECTION, machine, positive

sys.path.insert(0, str(SECTION.parent / "data"))

from phantom import make_phantom

PROGRAM = SECTION / "src" / "viewer_server.py"
KINDS = 8  # phantoms that differ; of each image a voxel is its own, so that none is known already


@contextmanager
def serving(store: Path, workers: int) -> Iterator[tuple[str, int]]:
    """The address of a service, and its process."""
    command = [sys.executable, PROGRAM, "--port", "0", "--store", store, "--max-workers", workers]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://\S+?(?=;)", process.stdout.readline())[0], process.pid
        finally:
            process.terminate()


def crops(count: int) -> list[bytes]:
    phantoms = [make_phantom(seed).image.astype(np.float32) for seed in range(KINDS)]
    found = []
    for number in range(count):
        voxels = phantoms[number % KINDS].copy()
        voxels[0, 0, 0] += number
        found.append(gzip.compress(nib.Nifti1Image(voxels, np.eye(4)).to_bytes(), 1))
    return found


def ask(url: str, method: str = "GET", fields: dict[str, bytes] | None = None, file: bytes | None = None) -> bytes:
    boundary = uuid.uuid4().hex
    body = io.BytesIO()
    for name, value in (fields or {}).items():
        body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n")
    if file is not None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x.nii.gz"\r\n\r\n'
        body.write(head.encode() + file + b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"} if method != "GET" else {}
    request = urllib.request.Request(url, body.getvalue() if headers else None, headers, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as answer:
        return answer.read()


def megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def measure(images: list[bytes], workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), workers) as (url, pid):
        waits, done, memory = [], threading.Event(), []

        def watch() -> None:
            while not done.wait(0.05):
                begin = time.perf_counter()
                ask(f"{url}/info/")
                waits.append(time.perf_counter() - begin)

        def one(number: int) -> None:
            said = {"params": json.dumps({"client_id": "x"}).encode()}
            ask(f"{url}/datastore/?image={number}", "PUT", said, images[number])
            ask(f"{url}/infer/hippocampus?image={number}", "POST", said)
            memory.append(megabytes(pid))

        one(0)
        watcher = threading.Thread(target=watch)
        watcher.start()
        begin = time.perf_counter()
        with ThreadPoolExecutor(workers) as clients:
            list(clients.map(one, range(1, len(images))))
        seconds = time.perf_counter() - begin
        done.set()
        watcher.join()
    tenth = max(1, len(memory) // 10)
    return {
        "a second": (len(images) - 1) / seconds,
        "info median": 1000 * float(np.median(waits)),
        "info longest": 1000 * max(waits),
        "first": float(np.median(memory[tenth : 2 * tenth])),
        "last": float(np.median(memory[-tenth:])),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=200, metavar="N", help="crops (%(default)s)")
    parser.add_argument("--workers", type=positive, nargs="+", default=[1, 2], metavar="N", help="of the service (1 2)")
    args = parser.parse_args(argv)
    images = crops(args.images)
    print(f"{machine()}; {args.images} crops, each uploaded and segmented\n")
    print("| workers | crops a second | /info/ meanwhile, ms: median, longest | MB in the second tenth, in the last |")
    print("|---|---|---|---|")
    for workers in args.workers:
        found = measure(images, workers)
        print(
            f"| {workers} | {found['a second']:.1f} | {found['info median']:.0f}, {found['info longest']:.0f} "
            f"| {found['first']:.0f}, {found['last']:.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
