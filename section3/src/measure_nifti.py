"""Measure both hippocampi in T1-weighted images of heads.

    python measure_nifti.py IMAGE|DIR ... --out DIR [--max-workers N]

Takes .nii, .nii.gz and .mgz in any orientation, with or without skull, with voxels of at most 1.5 mm; of a DIR all of
these in and below it. Writes into --out, for each image: NAME_hippocampus.nii.gz (uint8 on the image's own grid: 1 left
anterior, 2 left posterior, 3 right anterior, 4 right posterior), NAME.png (the page) and NAME.json (everything that was
found); and volumes.csv with a row for each image, whatever became of it. An image that was measured before, by the same
models, is not measured again.

Exit code 0: all images were measured. 1: any was refused or failed, on either side, or there was none. 2: usage.
Research use only.
"""

import argparse
import csv
import io
import os
import sys
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

import clinic_environment  # noqa: F401  before anything that may be missing
from batches.engines import failure_of, local_engine
from common.refusal import SUCCESS, Failure, Stop
from common.start import positive, start_program
from common.whole_files import write_text
from reading.nifti_head import SUFFIXES
from study.head_study import MASKS, VOLUMES, HeadTask, measure_image

DEADLINE = 300  # seconds for an image of two or three
TABLE = "volumes.csv"
COLUMNS = ("file", "status", "code", "reason", *VOLUMES, "left_code", "right_code", "verdict")


def images_in(paths: list[Path]) -> list[Path]:
    """The images that the arguments name, each once. Raises FileNotFoundError."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file() and _is_image(one.name))
            found.update(dict.fromkeys(one.absolute() for one in inside))
        elif path.is_file():
            found[path.absolute()] = None
        else:
            raise FileNotFoundError(f"there is no {path}")
    return list(found)


def _is_image(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".") and not name.endswith(MASKS)


def names_of(images: list[Path]) -> dict[Path, str]:
    """What each image is called in --out: its name without the ending, with as many folders before it as needed."""
    bare = {path: path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".mgz") for path in images}
    beside = Counter((path.parent, name) for path, name in bare.items())
    ends = {path: (name if beside[path.parent, name] == 1 else path.name) for path, name in bare.items()}
    names, folders = ends, 0
    while len(set(names.values())) < len(images):
        folders += 1
        shared = {name for name, count in Counter(names.values()).items() if count > 1}
        longer = {path: "__".join([*path.parts[-1 - folders : -1], ends[path]]) for path in images}
        names = {path: longer[path] if name in shared else name for path, name in names.items()}
    return names


def _row(record: dict) -> dict:
    volumes = record.get("volumes_mm3") or {}
    row = {key: record.get(key) for key in COLUMNS}
    for side, parts in volumes.items():
        row |= {f"{side}_{key}_mm3": round(value, 1) for key, value in parts.items()}
    row |= {f"{side}_code": one.get("code") for side, one in record.get("sides", {}).items()}
    return row


def table_of(records: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(record) for record in sorted(records, key=lambda record: record["file"]))
    return text.getvalue()


def _told(record: dict) -> str:
    volumes = record.get("volumes_mm3") or {}
    totals = ", ".join(f"{side} {parts['total']:.0f} mm3" for side, parts in volumes.items())
    codes = ", ".join(f"{side} [{one['code']}]" for side, one in record.get("sides", {}).items() if one.get("code"))
    if record["status"] != SUCCESS:
        return f"{record['status']} [{record['code']}] {record['reason']}"
    return ", ".join(filter(None, (totals, codes)))


def _outcome(task: HeadTask, future: Future) -> dict:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  engines differ in what they raise, and one image must not stop the others
        stop = failure_of(error)
        return {"file": str(task.path), "status": stop.status, "code": stop.code, "reason": stop.reason}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure both hippocampi in T1-weighted images of heads. Research use only.",
        epilog="Left and right are those of the image's header.",
    )
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE|DIR", help="NIfTI or MGH images, or folders of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--max-workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="images at a time"
    )
    return parser


def _measure_all(tasks: list[HeadTask], workers: int, out: Path) -> list[dict]:
    """The records; the table is written anew after each, so that it is there whatever happens."""
    records, begin = [], time.perf_counter()
    # One alone needs no process of its own, which would import everything again.
    engine = local_engine("processes" if len(tasks) > 1 else "serial", workers, DEADLINE)
    with engine.executor:
        for task, future in engine.completed(measure_image, [_with_threads(task, engine.threads) for task in tasks]):
            records.append(_outcome(task, future))
            write_text(out / TABLE, table_of(records), shared=True)
            left = (time.perf_counter() - begin) / len(records) * (len(tasks) - len(records))
            print(f"[{len(records)}/{len(tasks)}] {task.name}: {_told(records[-1])} ({left:.0f} s left)", flush=True)
    return records


def _with_threads(task: HeadTask, threads: int) -> HeadTask:
    return HeadTask(task.path, task.name, task.output_dir, threads=threads)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        images = images_in(args.images)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    out = args.out.absolute()
    images = [path for path in images if not path.is_relative_to(out)]
    if not images:
        print(f"there is no image ({', '.join(SUFFIXES)}) to measure", file=sys.stderr)
        return 1
    tasks = [HeadTask(path, name, out) for path, name in names_of(images).items()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        records = _measure_all(tasks, min(args.max_workers, len(tasks)), out)
    except OSError as error:
        print(Failure("cannot-write", f"nothing can be written to {out}: {error.strerror}"), file=sys.stderr)
        return 1
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is left", file=sys.stderr)
        return 130
    whole = [one for one in records if one["status"] == SUCCESS and len(one["volumes_mm3"]) == 2]
    print(f"{len(whole)} of {len(records)} images were measured on both sides: {out / TABLE}. Research use only.")
    return 0 if len(whole) == len(records) else 1


if __name__ == "__main__":
    start_program()
    sys.exit(main())
