"""Fetch the labelled hippocampus volumes into data/TrainingSet, from the official archive or from a local copy.

python get_data.py                     download (28 MB)
python get_data.py --from DIR|FILE.tar take a local copy: imagesTr/labelsTr, images/labels, or TrainingSet/images ...

Any Python from 3.10 on runs it, without a virtual environment: it comes before `make`. Exit codes: 0 done; 1 the data
cannot be had, in one line; 2 usage.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import environment  # noqa: F401  # isort: skip

try:
    from tqdm import tqdm
except ModuleNotFoundError:  # a bare Python: the same without bars

    def tqdm(items: Iterable, **_: object) -> Iterable:
        return items


ARCHIVE_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar"
ARCHIVE_MD5 = "9d24dba78a72977dbd1d2e110310f31b"
LAYOUTS = (("images", "labels"), ("imagesTr", "labelsTr"))
TIMEOUT = 30  # seconds without a byte
MEGABYTE = 10**6


class DataError(Exception):
    """The data cannot be had; the message says what was found and what to do."""


def download(path: Path, url: str, md5: str) -> None:
    """Download `url` to `path` and compare its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:
            size = int(response.headers.get("Content-Length", 0)) // MEGABYTE or None
            blocks = iter(lambda: response.read(MEGABYTE), b"")
            for block in tqdm(blocks, total=size, unit="MB", desc=path.name, disable=None):
                file.write(block)
                digest.update(block)
    except (OSError, http.client.HTTPException) as error:  # refused, timed out, not found, cut off
        raise DataError(
            f"could not download {url} ({error}): get the archive by other means and run get_data.py --from FILE.tar"
        ) from error
    if digest.hexdigest() != md5:
        raise DataError(f"{url} is not the archive expected: MD5 {digest.hexdigest()}, not {md5}; try again later")


def extract(archive: Path, folder: Path) -> None:
    """Copy the files of a tar archive below `folder`, without macOS's `._` companions.

    Only files and folders that stay below `folder` are taken: one absolute path, `..`, link or device, and the archive
    is refused. tarfile's own filter "data" says no to the same, but Debian 12's Python 3.11.2 does not have it.
    """
    try:
        with tarfile.open(archive) as tar:
            members = [m for m in tar if not PurePosixPath(m.name).name.startswith("._")]
            for member in members:
                refuse_unsafe(member)
            for member in tqdm([m for m in members if m.isfile()], desc="extracting", disable=None):
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    # Each of tarfile's decompressors has errors of its own.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive} cannot be unpacked as a tar archive ({reason})") from error


def refuse_unsafe(member: tarfile.TarInfo) -> None:
    """Raise TarError for a member that is no file or folder, or whose place is not below the folder extracted to."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise tarfile.TarError(f"{member.name!r} leads out of it")
    if not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")


def find_pairs(root: Path) -> tuple[list[Path], list[Path]]:
    """The images and labels below `root`, in whichever layout they are."""
    folders = [root, root / "TrainingSet", *sorted(p for p in root.iterdir() if p.is_dir())]
    for folder in folders:
        for images, labels in LAYOUTS:
            if (folder / images).is_dir() and (folder / labels).is_dir():
                return volumes(folder / images), volumes(folder / labels)
    raise DataError(f"{root} holds neither images and labels nor imagesTr and labelsTr")


def volumes(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.nii*") if not p.name.startswith("._"))


def copy_training_set(source: Path, target: Path) -> None:
    """Copy images and labels found below `source` to target/images, target/labels."""
    for kind, files in zip(("images", "labels"), find_pairs(source), strict=True):
        if not files:
            raise DataError(f"no {kind} (*.nii.gz) in {source}")
        copy_files(files, files[0].parent, target / kind)


def copy_files(files: list[Path], source: Path, target: Path) -> None:
    """Copy files below `source` to the same place below `target`. The source may be read-only: no permissions."""
    for path in tqdm(files, desc=f"copying {target.name}", disable=None):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def get_data(root: Path, source: Path | None = None, url: str = ARCHIVE_URL, md5: str = ARCHIVE_MD5) -> None:
    """Fill root/TrainingSet (and root/TestVolumes, where `source` has them), all at once or not at all.

    Raises DataError where the data cannot be had.
    """
    if (root / "TrainingSet").exists():
        raise DataError(f"{root / 'TrainingSet'} exists but is not complete: remove it and run again")
    root.mkdir(parents=True, exist_ok=True)
    # Beside the target: moving into place is then a rename, and nothing half-written is ever seen there.
    with tempfile.TemporaryDirectory(dir=root, prefix=".get_data-") as name:
        work = Path(name)
        if source is None:
            source = work / "Task04_Hippocampus.tar"
            download(source, url, md5)
        if source.is_file():
            extract(source, work / "archive")
            source = work / "archive"
        if not source.is_dir():
            raise DataError(f"there is no folder or archive {source}")
        copy_training_set(source, work / "TrainingSet")
        if (source / "TestVolumes").is_dir() and not (root / "TestVolumes").exists():
            files = [p for p in (source / "TestVolumes").rglob("*") if p.is_file() and not p.name.startswith("._")]
            copy_files(files, source, work)
            (work / "TestVolumes").rename(root / "TestVolumes")
        (work / "TrainingSet").rename(root / "TrainingSet")


def report(root: Path) -> str:
    training = root / "TrainingSet"
    text = f"{training}: {len(volumes(training / 'images'))} images, {len(volumes(training / 'labels'))} labels"
    if (root / "TestVolumes").is_dir():
        text += f"; {sum(p.is_dir() for p in (root / 'TestVolumes').iterdir())} test studies"
    return text


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Fetch the labelled hippocampus volumes into data/TrainingSet.")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR|FILE.tar", help="a local copy; no network")
    parser.add_argument(
        "--data-root", type=Path, default=Path(__file__).resolve().parent, help="where to (%(default)s)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    training = args.data_root / "TrainingSet"
    if volumes(training / "images") and volumes(training / "labels"):
        print(f"already there: {report(args.data_root)}")
        return 0
    try:
        get_data(args.data_root, args.source)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report(args.data_root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
