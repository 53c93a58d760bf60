"""Corrections that viewers sent: as pairs to learn from, as a trained candidate, as the model in use.

    python corrections.py export DIR [--to-train]       image and label pairs as section 1 leaves them
    python corrections.py pull --dicomweb URL           those drawn in OHIF: segmentations in the archive of our images
    python corrections.py send --dicomweb URL           the newest of each into the archive: SEG, SR, page by a person
    python corrections.py train JOB --parent MODEL      what the service starts: a candidate, and how it compares
    python corrections.py adopt MODEL                   a candidate that was trained elsewhere, and how it compares
    python corrections.py candidates                    all of them, with what the comparison says
    python corrections.py promote JOB                   the candidate becomes the model in use; nothing else does that
    python corrections.py demote                        the model before it comes back

Persons are held out for ever by the digest of who they are: one of five is never trained on, and candidates are tested
on these. Exit code 0: done. 1: refused or failed; one line on stderr. 2: usage. Research use only.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import clinic_environment  # noqa: F401  before anything that may be missing
from archive.dicomweb import DicomWebArchive
from archive.tls import TlsFiles
from choosing.series_rules import load_rules
from common.refusal import Failure, Refusal, Stop
from common.shipped import DEFAULT_LOCALISER, DEFAULT_MODEL
from common.whole_files import write_bytes, write_text
from measuring.hippocrop import Localiser
from measuring.unet_inference_agent import UNetInferenceAgent
from options import DEFAULT_HEAD_RULES, dicomweb_url, uid
from study.process_study import DEFAULT_OUTPUT
from study.setup import SetupFiles
from teaching.archive_images import image_of_series, pull_corrections
from teaching.correction_results import CORRECTED, send_correction
from teaching.image_store import ImageStore, NoSuchThing
from teaching.learning import DONE, EPOCHS, ERROR, SECTION2, WEIGHTS, Learning, finish, require_weights, training_python
from teaching.training_pairs import IMAGES, LABELS, corrected, write_pairs

COMPARISON = "comparison.md"
LEAST_COMPARED = 2  # persons; from one alone no interval can be told
BEFORE = "before-promotion"
WHOLE_DICE = re.compile(r"\|\s*after\s*\|\s*whole\s*\|\s*Dice\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)")


def export(args: argparse.Namespace) -> int:
    held_out = False if args.to_train else None
    rows = write_pairs(ImageStore(args.store.absolute()), args.folder, Localiser(DEFAULT_LOCALISER), held_out)
    print(f"{len(rows)} hippocampi, of which {sum(row['held_out'] for row in rows)} of persons held out: {args.folder}")
    return 0


def pull(args: argparse.Namespace) -> int:
    """Of all images that came from the archive, and of the series that are named."""
    store, archive = ImageStore(args.store.absolute()), DicomWebArchive(args.dicomweb, TlsFiles(args.ca_file))
    for series_uid in args.series:
        image_of_series(archive, series_uid, store)
    images = {one.sha256: one for one in store.names().values() if one.series_uid}
    kept = 0
    for image in images.values():
        more, told = pull_corrections(archive, image, store)
        kept += more
        for line in told:
            print(f"not used: {line}", file=sys.stderr)
    print(f"{kept} new corrections of {len(images)} images")
    return 0


def send(args: argparse.Namespace) -> int:
    """Of all images that came from the archive and were corrected; again is the same, not more."""
    store, archive = ImageStore(args.store.absolute()), DicomWebArchive(args.dicomweb, TlsFiles(args.ca_file))
    files = SetupFiles(args.model_path.absolute(), load_rules(), head_rules=load_rules(DEFAULT_HEAD_RULES))
    setup, failed = files.load(), 0
    for image, _ in corrected(store):
        if image.series_uid:
            result = send_correction(archive, store, image, setup, store.folder / CORRECTED)
            said = f"{result.reason} [{result.code}]" if result.code else result.send_detail or "stored"
            print(f"{image.series_uid}: {said}")
            failed += result.code is not None or not result.sent
    return 1 if failed else 0


def train(args: argparse.Namespace) -> int:
    """All steps of a job, told on stderr, which is its log."""
    store = ImageStore(args.store.absolute())
    job = _learning(args, store).folder / args.job
    try:
        candidate = _trained(args, store, job)
        found = _compared(args, store, job, candidate)
    except (Stop, OSError, subprocess.CalledProcessError) as error:
        line = f"{Path(error.cmd[1]).name} failed" if isinstance(error, subprocess.CalledProcessError) else str(error)
        print(line, file=sys.stderr)
        finish(job, ERROR)
        return 1
    finish(job, DONE, candidate=os.fspath(candidate), **found)
    return 0


def _trained(args: argparse.Namespace, store: ImageStore, job: Path) -> Path:
    """The candidate, trained on the corrections and on what its parent was trained on."""
    write_pairs(store, job / "data", Localiser(DEFAULT_LOCALISER), held_out=False)
    if args.old_data:
        for part in (IMAGES, LABELS):
            for path in sorted((args.old_data / part).glob("*.nii.gz")):
                (job / "data" / part / path.name).symlink_to(path.absolute())
    version = f"{UNetInferenceAgent(args.parent).identity['version']}+corrections.{job.name}"
    _run("src/run_ml_pipeline.py", "--fine-tune", args.parent, "--data-root", job / "data", "--out", job / "run",
         "--epochs", args.epochs, "--test-share", 0, "--validation-share", 0, "--version", version)  # fmt: skip
    (run,) = (path.parent for path in (job / "run").glob("*/model.onnx"))
    return run / "model.onnx"


def _compared(args: argparse.Namespace, store: ImageStore, job: Path, candidate: Path) -> dict:
    """How candidate and parent do on persons who are held out, where these are enough for an interval."""
    persons = {image.person for image, _ in corrected(store) if image.is_held_out}
    if len(persons) < LEAST_COMPARED:
        said = f"{len(persons)} of the persons who were corrected are held out, and it takes {LEAST_COMPARED}"
        write_text(job / COMPARISON, f"Not compared: {said}.\n")
        return {}
    write_pairs(store, job / "held_out", Localiser(DEFAULT_LOCALISER), held_out=True)
    for name, model in (("before", args.parent), ("after", candidate)):
        out = job / name
        _run("src/predict.py", "--model-path", model, "--images", job / "held_out" / IMAGES, "--out", out, "--labels",
             job / "held_out" / LABELS)  # fmt: skip
        shutil.copyfile(out / "metrics.csv", out / "results.csv")
    said = _run("analyses/compare_runs.py", job / "before", job / "after", "--names", "before", "after")
    write_text(job / COMPARISON, said)
    found = WHOLE_DICE.search(said)
    return {"dice_before": float(found[1]), "dice_after": float(found[2])} if found else {}


def adopt(args: argparse.Namespace) -> int:
    """Its files are copied into the store, so that what is promoted is what was compared."""
    store, trained = ImageStore(args.store.absolute()), args.model.absolute()
    identity, before = (UNetInferenceAgent(path).identity for path in (trained, args.parent))
    require_weights(trained)
    if identity["version"] == before["version"] and identity["sha256"] != before["sha256"]:
        said = f"it calls itself {identity['version']} as the model that it is compared with"
        raise Refusal("too-little-to-learn", f"{said}: train it with another --version")
    learning = _learning(args, store)
    if learning.running():  # the newest job is the one that viewers ask about and can stop
        raise Refusal("too-little-to-learn", "a training runs: wait for its end, or stop it")
    job = learning.new_folder()
    try:
        candidate = job / "model.onnx"
        for path, new in zip(_files(candidate), _files(trained), strict=True):
            write_bytes(path, new.read_bytes())
        learning.adopt(job, candidate, _compared(args, store, job, candidate))
    except BaseException:  # Ctrl-C too
        shutil.rmtree(job)
        raise
    print(f"candidate {job.name}: {identity['name']} {identity['version']}; see candidates, promote")
    return 0


def _run(program: str, *arguments: object) -> str:
    """A program of section 2, which says how it goes into our log. Raises CalledProcessError."""
    command = [os.fspath(training_python()), os.fspath(SECTION2 / program), *map(str, arguments)]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            said.append(line)
            print(line, end="", file=sys.stderr, flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return "".join(said)


def candidates(args: argparse.Namespace) -> int:
    learning = _learning(args, ImageStore(args.store.absolute()))
    for job in learning.jobs():
        task = learning.task(job)
        dice = " to ".join(f"{task[key]:.4f}" for key in ("dice_before", "dice_after") if key in task)
        print(f"{task['id']}: {task['status']}, begun {task['start_ts']}{f', whole Dice {dice}' if dice else ''}")
        if (job / COMPARISON).is_file():
            print((job / COMPARISON).read_text())
    return 0


def promote(args: argparse.Namespace) -> int:
    """The file is replaced whole; the service, and whoever starts later, takes the new one."""
    task = _learning(args, ImageStore(args.store.absolute())).task(args.store.absolute() / "training" / args.job)
    if task["status"] != DONE:
        raise Refusal("too-little-to-learn", f"job {args.job} has no candidate: it is {task['status']}")
    candidate = Path(task["candidate"])
    identity = UNetInferenceAgent(candidate).identity
    if candidate.read_bytes() == args.model_path.read_bytes():
        raise Refusal("too-little-to-learn", f"{identity['version']} is in use already")
    for path, new in zip(_files(args.model_path), _files(candidate), strict=True):
        if path.is_file():
            write_bytes(_kept(path), path.read_bytes())
        write_bytes(path, new.read_bytes())
    print(f"in use: {identity['name']} {identity['version']}; its numbers warn that limits are of the model before")
    return 0


def demote(args: argparse.Namespace) -> int:
    if not _kept(args.model_path).is_file():
        raise Refusal("too-little-to-learn", "no model was promoted: there is none to go back to")
    identity = UNetInferenceAgent(_kept(args.model_path)).identity
    for path in _files(args.model_path):
        if _kept(path).is_file():
            _kept(path).replace(path)
        else:  # the model before had no weights beside it
            path.unlink()
    print(f"in use: {identity['name']} {identity['version']}")
    return 0


def _files(model_path: Path) -> tuple[Path, Path]:
    """Of a model: the weights that training goes on from, and itself, which changes last."""
    return model_path.with_name(WEIGHTS), model_path


def _kept(path: Path) -> Path:
    """Where a file of the model before is."""
    return path.with_name(f"{path.stem}-{BEFORE}{path.suffix}")


def _learning(args: argparse.Namespace, store: ImageStore) -> Learning:
    return Learning(store, Path(__file__), getattr(args, "parent", DEFAULT_MODEL))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Corrections that viewers sent. Research use only.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: object, what: str) -> argparse.ArgumentParser:
        one = commands.add_parser(function.__name__, help=what, description=what)
        one.add_argument("--store", type=Path, default=DEFAULT_OUTPUT / "viewer", metavar="DIR", help="of the service")
        one.set_defaults(function=function)
        return one

    one = command(export, "Write image and label pairs.")
    one.add_argument("folder", type=Path, metavar="DIR")
    one.add_argument("--to-train", action="store_true", help="without the persons who are held out")
    one = command(pull, "Keep what was drawn in OHIF and stored in the archive.")
    one.add_argument("--dicomweb", type=dicomweb_url, required=True, metavar="URL", help="the archive")
    one.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust instead of the system's")
    one.add_argument("--series", type=uid, nargs="*", default=[], metavar="UID", help="besides the known ones")
    one = command(send, "Write corrections as DICOM, and send them to the archive.")
    one.add_argument("--dicomweb", type=dicomweb_url, required=True, metavar="URL", help="the archive")
    one.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust instead of the system's")
    one.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="what was corrected")
    one = command(train, "Train a candidate, as the service asks for it.")
    one.add_argument("job", metavar="JOB")
    one.add_argument("--parent", type=Path, default=DEFAULT_MODEL, metavar="MODEL", help="whose weights are the start")
    one.add_argument("--old-data", type=Path, metavar="DIR", help="pairs to learn from besides")
    one.add_argument("--epochs", type=int, default=EPOCHS, metavar="N")
    one = command(adopt, "Take in a candidate that was trained elsewhere.")
    one.add_argument("model", type=Path, metavar="MODEL", help=f"model.onnx of a run, with {WEIGHTS} beside it")
    one.add_argument("--parent", type=Path, default=DEFAULT_MODEL, metavar="MODEL", help="what it is compared with")
    command(candidates, "List candidates and what the comparisons say.")
    one = command(promote, "Use a candidate from now on.")
    one.add_argument("job", metavar="JOB")
    one.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="the model in use")
    one = command(demote, "Use the model before again.")
    one.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="the model in use")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    os.umask(0o077)
    try:
        return args.function(args)
    except (Stop, NoSuchThing) as stop:
        print(stop, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError as error:
        print(Failure("helper-failed", f"{Path(error.cmd[1]).name} failed"), file=sys.stderr)
    except OSError as error:
        print(Failure("cannot-write", f"a file cannot be read or written: {error.strerror}"), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
