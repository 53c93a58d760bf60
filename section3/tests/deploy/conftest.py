"""The pieces of the network, started by their scripts on free ports, and stopped."""

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from inference_dcm import main
from phantom import make_phantom, write_study
from servers import LIMIT, wait_until

SCRIPTS = Path(__file__).resolve().parents[2] / "src" / "deploy_scripts"
PORTS = ("ARCHIVE_DICOM_PORT", "ARCHIVE_HTTP_PORT", "NODE_PORT", "SCANNER_PORT", "VIEWER_PORT")


def instances(paths: Iterable[Path]) -> set[str]:
    """Their SOPInstanceUIDs; a file that is still being written is none yet."""
    found = set()
    for path in paths:
        if path.is_file():
            with contextlib.suppress(InvalidDicomError, EOFError, AttributeError):
                found.add(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    return found


def _heed_signals() -> None:
    """What is started in the background, as CI may be, ignores Ctrl-C, and a script cannot change what it inherits."""
    for one in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)


class Network:
    """The environment of the scripts, and what they have started. `folder` is where all of it is written."""

    def __init__(self, folder: Path, ports: list[int], **settings: str) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen] = []
        without_ours = {name: value for name, value in os.environ.items() if not name.startswith("HIPPO_")}
        self.environment = {
            **without_ours,
            **{f"HIPPO_{name}": str(port) for name, port in zip(PORTS, ports, strict=True)},
            "HIPPO_NETWORK_DIR": str(folder),
            "HIPPO_PYTHON": sys.executable,
            "HIPPO_STABLE_SECONDS": "1",
            "HIPPO_RETRY_SECONDS": "1",
            **settings,
        }

    def __getitem__(self, name: str) -> str:
        return self.environment[f"HIPPO_{name}"]

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    def received(self) -> set[str]:
        """What came to the listener."""
        return instances(self.incoming.rglob("*.dcm"))

    def run(self, script: str, *arguments: object, **settings: str) -> subprocess.CompletedProcess:
        """A script that ends by itself, from a folder that is none of ours."""
        command = [SCRIPTS / script, *map(str, arguments)]
        environment = {**self.environment, **settings}
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=LIMIT)

    def start(self, script: str, *arguments: object, until: str = " answers: ", **settings: str) -> subprocess.Popen:
        """A script that runs until it is stopped; comes back once it has said `until`."""
        self.folder.mkdir(exist_ok=True)
        log = self.folder / f"{Path(script).name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [SCRIPTS / script, *map(str, arguments)],
                env={**self.environment, **settings},
                cwd="/",
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_heed_signals,
            )
        self.started.append(process)
        wait_until(lambda: until in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process

    def said(self, script: str) -> str:
        return (self.folder / f"{script}.log").read_text()

    def stop(self, process: subprocess.Popen, by: int = signal.SIGTERM) -> int:
        """Its exit code."""
        process.send_signal(by)
        return process.wait(LIMIT)

    def processes(self) -> list[str]:
        """All that runs with our environment."""
        mark = f"HIPPO_NETWORK_DIR={self.folder}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                pass  # it has ended meanwhile, or is another person's
        return found

    def stop_all(self) -> None:
        for process in reversed(self.started):
            if process.poll() is None:
                self.stop(process)

    def ask(self, path: str, body: object = None) -> object:
        """What Orthanc's own interface answers."""
        scheme, context = "http", None
        if self.environment.get("HIPPO_TLS") == "true":
            scheme, context = "https", self.tls("node")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        data = None if body is None else json.dumps(body).encode()
        with opener.open(f"{scheme}://127.0.0.1:{self['ARCHIVE_HTTP_PORT']}{path}", data, timeout=LIMIT) as answer:
            return json.loads(answer.read() or b"null")

    def tls(self, who: str | None) -> ssl.SSLContext:
        """How to speak to those of our authority, as somebody or as nobody."""
        folder = self.folder / "certificates"
        context = ssl.create_default_context(cafile=folder / "authority.crt")
        if who:
            context.load_cert_chain(folder / f"{who}.crt", folder / f"{who}.key")
        return context

    def status(self, url: str, method: str = "GET", context: ssl.SSLContext | None = None, **headers: str) -> int:
        """Of what is answered at a URL."""
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        request = urllib.request.Request(url, method=method, headers=headers)
        try:
            with opener.open(request, timeout=LIMIT) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def echo(self, calling: str, called: str, port: str, *options: object) -> bool:
        """Whether a C-ECHO comes back."""
        command = ["echoscu", "-aet", calling, "-aec", called, *map(str, options), "127.0.0.1", port]
        return subprocess.run(command, capture_output=True, timeout=LIMIT).returncode == 0


@pytest.fixture(scope="session")
def need_network(need_program) -> None:
    """Skips where the network's programs are missing; in CI that is a failure."""
    for program in ("Orthanc", "storescp", "dcmsend", "storescu", "echoscu", "dcmdump", "curl", "openssl"):
        need_program(program)
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if not plugin.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{plugin} is not installed (orthanc-dicomweb)")


@pytest.fixture
def make_network(tmp_path, find_port) -> Iterator[Callable[..., Network]]:
    """make_network(NAME=value): a network with these settings; afterwards no process of it is left."""
    made = []

    def make(**settings: str) -> Network:
        made.append(Network(tmp_path / f"network{len(made)}", [find_port() for _ in PORTS], **settings))
        return made[-1]

    yield make
    for network in made:
        network.stop_all()
    wait_until(lambda: not any(network.processes() for network in made))  # one may be about to end


@pytest.fixture
def network(make_network) -> Network:
    return make_network()


@pytest.fixture(scope="session")
def ohif_package(tmp_path_factory, need_program) -> Path:
    """OHIF's npm package, fetched once; where no registry can be reached the test is skipped."""
    if "HIPPO_OHIF_TARBALL" in os.environ:
        return Path(os.environ["HIPPO_OHIF_TARBALL"])
    need_program("npm")
    version = next(
        line.split("=")[1].split()[0]
        for line in (SCRIPTS / "launch_OHIF.sh").read_text().splitlines()
        if line.startswith("VERSION=")
    )
    folder = tmp_path_factory.mktemp("ohif")
    command = ["npm", "pack", "--silent", f"@ohif/app@{version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"OHIF cannot be fetched: {done.stderr[-300:]}")
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def small_study(tmp_path_factory) -> Path:
    """A HippoCrop, in which the threshold model finds both structures, and one brain series."""
    volume = np.full((20, 26, 17), 300, np.int16)
    volume[5:12, 14:20, 4:14], volume[5:12, 6:14, 4:14] = 500, 100
    return write_study(tmp_path_factory.mktemp("small") / "study", volume, seed=3, brain_series=1)


@pytest.fixture(scope="session")
def result(tmp_path_factory, small_study, threshold_model) -> Path:
    """What small_study becomes: page, masks, measurements, contours. Which of them matters little to the network."""
    out = tmp_path_factory.mktemp("result") / "out"
    main([str(small_study), "--output-dir", str(out), "--model-path", str(threshold_model)])
    assert list(out.rglob("*.dcm"))
    return out


@pytest.fixture
def uid() -> Callable[[Path], str]:
    """uid(folder): of the study of the first file in it."""

    def read(folder: Path) -> str:
        path = next(path for path in folder.rglob("*") if path.is_file())
        return pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID

    return read


@pytest.fixture
def other_study(tmp_path) -> Path:
    return write_study(tmp_path / "other", make_phantom(4), seed=4, brain_series=0)


@pytest.fixture
def copy_of(tmp_path) -> Callable[[Path], Path]:
    """copy_of(folder): one that may be changed."""
    return lambda folder: shutil.copytree(folder, tmp_path / f"copy_of_{folder.name}")
