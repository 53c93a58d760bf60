"""get_data.py against archives of phantoms: from a folder, from a file, over HTTP, and all the ways it can fail."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import get_data
import phantom


@pytest.fixture(scope="module")
def training_set(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    phantom.make_training_set(root, 2, shape=(12, 14, 10))
    return root


@pytest.fixture(scope="module")
def archive(training_set, tmp_path_factory) -> Path:
    """The official layout, with macOS companions."""
    path = tmp_path_factory.mktemp("archive") / "Task04.tar"
    with tarfile.open(path, "w") as tar:
        for kind, folder in (("images", "imagesTr"), ("labels", "labelsTr")):
            for file in sorted((training_set / kind).iterdir()):
                tar.add(file, f"Task04/{folder}/{file.name}")
                companion = tarfile.TarInfo(f"Task04/{folder}/._{file.name}")
                companion.size = 3
                tar.addfile(companion, io.BytesIO(b"mac"))
    return path


@pytest.fixture
def server(archive):
    """An HTTP server on this machine that has the archive; yields its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=archive.parent)) as http:
        threading.Thread(target=http.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def assert_same_set(training_set: Path, root: Path) -> None:
    for kind in ("images", "labels"):
        expected = {p.name: md5(p) for p in (training_set / kind).iterdir()}
        assert {p.name: md5(p) for p in (root / "TrainingSet" / kind).iterdir()} == expected


def test_download(server, archive, training_set, tmp_path):
    get_data.get_data(tmp_path, url=f"{server}/{archive.name}", md5=md5(archive))
    assert_same_set(training_set, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["TrainingSet"]  # no temporary file stays


@pytest.mark.parametrize("name, digest, message", [("Task04.tar", "0" * 32, "MD5"), ("missing.tar", "0" * 32, "404")])
def test_a_bad_download_leaves_nothing(server, tmp_path, name, digest, message):
    with pytest.raises(get_data.DataError, match=message):
        get_data.get_data(tmp_path, url=f"{server}/{name}", md5=digest)
    assert list(tmp_path.iterdir()) == []


def test_without_network_one_line_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(get_data.get_data, "__defaults__", (None, "http://127.0.0.1:9/x.tar", ""))
    assert get_data.main(["--data-root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "--from" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["{}", "TrainingSet/{}", "copy/{}", "{}Tr"])
def test_from_a_folder_in_any_layout(training_set, tmp_path, capsys, layout):
    source, root = tmp_path / "source", tmp_path / "root"
    for kind in ("images", "labels"):
        folder = source / layout.format(kind)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(training_set / kind)
    phantom.write_study(source / "TestVolumes" / "Study1", seed=1, brain_series=0)
    assert get_data.main(["--data-root", str(root), "--from", str(source)]) == 0
    assert "2 images, 2 labels; 1 test studies" in capsys.readouterr().out
    assert_same_set(training_set, root)
    assert get_data.main(["--data-root", str(root)]) == 0  # no download: it is there
    assert "already there" in capsys.readouterr().out


def test_from_an_archive(archive, training_set, tmp_path):
    assert get_data.main(["--data-root", str(tmp_path), "--from", str(archive)]) == 0
    assert_same_set(training_set, tmp_path)


def member(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, linkname, {"path": name}
    return info


HOSTILE = {
    "absolute path": [member("/escaped.nii.gz")],
    "path traversal": [member("Task04/../../escaped.nii.gz")],
    "no character": [member("Task04/\0.nii.gz")],
    "symbolic link": [member("Task04", tarfile.SYMTYPE, ".."), member("Task04/escaped.nii.gz")],
    "hard link": [member("Task04/notes.nii.gz", tarfile.LNKTYPE, "../../notes.tar")],
    "device": [member("Task04/zero.nii.gz", tarfile.CHRTYPE)],
    "pipe": [member("Task04/pipe.nii.gz", tarfile.FIFOTYPE)],
}


def bad_sources(folder: Path) -> dict[str, Path]:
    text, empty, cut = folder / "notes.tar", folder / "empty", folder / "cut.tar.gz"
    text.write_text("no archive")
    empty.mkdir()
    cut.write_bytes(gzip.compress(bytes(range(256)) * 100)[:60])
    sources = {"missing": folder / "nowhere", "text": text, "empty": empty, "cut off": cut}
    for name, members in HOSTILE.items():
        sources[name] = folder / f"{name}.tar"
        with tarfile.open(sources[name], "w", format=tarfile.PAX_FORMAT) as tar:
            for each in members:
                tar.addfile(each)
    return sources


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "cut off", *HOSTILE])
def test_a_bad_source_is_one_line_and_leaves_nothing(tmp_path, capsys, kind):
    source, root = bad_sources(tmp_path)[kind], tmp_path / "root"
    before = set(tmp_path.rglob("*"))
    assert get_data.main(["--data-root", str(root), "--from", str(source)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ("out of it" in error or "neither a file" in error) == (kind in HOSTILE)
    assert set(tmp_path.rglob("*")) - before <= {root}
    assert not Path("/escaped.nii.gz").exists()


def test_a_bare_python_is_enough(archive, training_set, tmp_path):
    """-S leaves out what is installed: the standard library alone, as before there is an environment."""
    command = [sys.executable, "-S", get_data.__file__, "--data-root", str(tmp_path), "--from", str(archive)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert_same_set(training_set, tmp_path)


def test_an_incomplete_set_is_not_touched(training_set, tmp_path, capsys):
    (tmp_path / "TrainingSet" / "images").mkdir(parents=True)
    assert get_data.main(["--data-root", str(tmp_path), "--from", str(training_set)]) == 1
    assert "remove it" in capsys.readouterr().err
