"""Other modules beside the hippocampus: commands that take a folder with a series and a folder for what they make.

A file says which series goes to which module, a JSON list:

name       what it is called, and its folder among the outputs of a study
command    a list of words; {series} and {output} stand for the two folders
rules      a file of conditions (see choosing/series_rules.py), beside this one: every series that meets them goes to it
timeout    seconds for a study, 300 where nothing is said

What a command that ends with 0 leaves as *.dcm is sent with our own results. It must belong to the study, and its
SeriesDescription begin with the product's name: whatever comes back is then known as a result, not taken for input.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from choosing.series_rules import Condition, consider_series, is_ours, load_rules, rules_sha256
from common.product import PRODUCT
from common.refusal import Failure
from common.whole_files import write_json
from reading.dicom_file import Instance, read_instance
from reading.dicom_series import Series, Study, list_files
from study.output_folder import UNFINISHED, only_run_in
from study.study_result import sha256_of

FOLDER, RECORD = "modules", "module.json"
TIMEOUT = 300  # seconds


@dataclass(frozen=True)
class Module:
    """A command, and the conditions for its input."""

    name: str
    command: tuple[str, ...]
    rules: tuple[Condition, ...]
    timeout: float = TIMEOUT

    def key(self, series: Series) -> str:
        """What tells its work on this series from any that may give something else."""
        instances = sorted(instance.sha256 for instance in series.instances)
        return hashlib.sha256(
            repr((self.command, rules_sha256(self.rules), series.uid, instances)).encode()
        ).hexdigest()


def load_modules(path: Path) -> tuple[Module, ...]:
    """The modules of a file. Raises Failure: bad-rules."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise TypeError("not a list")
        modules = tuple(_module(row, path.absolute().parent) for row in rows)
    except OSError as error:
        raise Failure("bad-rules", f"modules {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Failure("bad-rules", f"{path} is no list of modules: {type(error).__name__}, {error}") from error
    if len({module.name for module in modules}) < len(modules):
        raise Failure("bad-rules", f"{path} has two modules of one name")
    return modules


def _module(row: dict, folder: Path) -> Module:
    name, command = row["name"], row["command"]
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name} is no name for a folder")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise TypeError("command is no list of words")
    return Module(name, tuple(command), load_rules(folder / row["rules"]), float(row.get("timeout", TIMEOUT)))


def run_modules(modules: tuple[Module, ...], study: Study, output_dir: Path) -> list[str]:
    """Have each module work on the series that are meant for it; what went wrong, a line each. Raises OSError."""
    troubles = []
    with only_run_in(output_dir):
        for module in modules:
            try:
                _work(module, study, output_dir)
            except Failure as failure:
                troubles.append(f"module {module.name}: {failure.reason}")
            except OSError as error:
                troubles.append(f"module {module.name}: {error.strerror or type(error).__name__}")
    return troubles


def _work(module: Module, study: Study, output_dir: Path) -> None:
    """Leave in its folder what it makes of each series, whole or not at all, unless that is there. Raises Failure."""
    end = time.monotonic() + module.timeout
    verdicts = consider_series(study, module.rules)
    wanted = [study.series_of(one.series_instance_uid) for one in verdicts if one.accepted]
    folder = output_dir / FOLDER / module.name
    for old in folder.iterdir() if folder.is_dir() else ():
        if old.name not in {series.uid for series in wanted}:
            shutil.rmtree(old)
    for series in wanted:
        target, key = folder / series.uid, module.key(series)
        if _is_proven(target, key):
            continue
        shutil.rmtree(target, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output_dir, prefix=UNFINISHED) as name:
            inputs, output = Path(name) / "series", Path(name) / "output"
            inputs.mkdir()
            output.mkdir()
            for number, path in enumerate(sorted({instance.path for instance in series.instances})):
                (inputs / f"{number:05d}.dcm").symlink_to(path.absolute())
            _call(module, inputs, output, end - time.monotonic())
            files = [_row(path, output, study.uid) for path in list_files(output) if path.suffix == ".dcm"]
            write_json(output / RECORD, {"key": key, "files": files})
            output.replace(target)


def _call(module: Module, inputs: Path, output: Path, seconds: float) -> None:
    """Run the command. What it prints is dropped, as it may name a patient. Raises Failure."""
    words = [word.replace("{series}", str(inputs)).replace("{output}", str(output)) for word in module.command]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        done = subprocess.run(words, timeout=seconds, check=False, preexec_fn=_lift_limit, **pipes)
    except subprocess.TimeoutExpired as error:
        raise Failure("helper-failed", f"not done within {module.timeout:g} s") from error
    except OSError as error:
        raise Failure("helper-failed", f"cannot be run: {error.strerror}") from error
    if done.returncode:
        raise Failure("helper-failed", f"ended with exit code {done.returncode}")


def _lift_limit() -> None:
    """What our own workers may use of memory says nothing of what a module needs."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _row(path: Path, output: Path, study_uid: str) -> dict:
    """A file as the record has it. Raises Failure where it must not be sent."""
    instance = read_instance(path)
    if not isinstance(instance, Instance) or instance.text("StudyInstanceUID") != study_uid:
        raise Failure("verification-failed", f"{path.name} is no object of the study")
    if not is_ours(Series("", [instance])):
        raise Failure("verification-failed", f"the SeriesDescription of {path.name} does not begin with {PRODUCT}")
    uid = instance.text("SOPInstanceUID")
    return {"file": str(path.relative_to(output)), "sop_instance_uid": uid, "sha256": instance.sha256}


def _is_proven(target: Path, key: str) -> bool:
    """Whether what is there was made of the same by the same, and is what it was."""
    try:
        record = json.loads((target / RECORD).read_text())
        return record["key"] == key and all(sha256_of(target / row["file"]) == row["sha256"] for row in record["files"])
    except (OSError, ValueError, TypeError, LookupError):
        return False


def outputs_of_modules(output_dir: Path) -> list[dict]:
    """What all modules have made of a study, as rows of result.json. Raises OSError, ValueError, LookupError."""
    rows = []
    for record in sorted(output_dir.glob(f"{FOLDER}/*/*/{RECORD}")):
        for row in json.loads(record.read_text())["files"]:
            rows.append({**row, "file": str((record.parent / row["file"]).relative_to(output_dir))})
    return rows
