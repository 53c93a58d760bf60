"""What one study and many cost, as whole processes: start, import, read, segment, write, end.

    python benchmark.py [--studies N] [--workers N] [--repeats N] [--root DIR]

Makes phantom studies as the real ones are (a HippoCrop series and four brain series, some 120 files), or takes the
studies below DIR. Runs inference_dcm.py on one and batch_inference_dcm.py on all, `--repeats` times each, after one
run that is not counted and warms the disk cache. Prints tables in Markdown: processor time, wall time and peak memory
(of the largest process), each as least, median and most; and the seconds of each step as result.json has them. Wall
times mean little where other programs run: the load average that is printed says whether they do.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

SECTION = Path(__file__).resolve().parents[1]
PHANTOM = SECTION.parent / "data" / "phantom.py"
PACKAGES = ("numpy", "onnxruntime", "pydicom", "Pillow")
BRAIN_SERIES = 4


@dataclass(frozen=True)
class Cost:
    """Of one process and all that it started and waited for."""

    processor: float  # seconds, user and system
    wall: float  # seconds
    memory: float  # MB, of the largest process


def measure(program: str, *arguments: object) -> Cost:
    """Run a program of src/. Raises RuntimeError, with what the program said, if it does not exit with 0."""
    command = [sys.executable, str(SECTION / "src" / program), *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{program} exited with {process.returncode}:\n{output.read()}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def costs_row(name: str, costs: list[Cost]) -> str:
    cells = [name]
    for attribute, digits in (("processor", 2), ("wall", 2), ("memory", 0)):
        values = [getattr(cost, attribute) for cost in costs]
        cells.append(" / ".join(f"{value:.{digits}f}" for value in (min(values), median(values), max(values))))
    return f"| {' | '.join(cells)} |"


def step_rows(one: list[dict[str, float]], many: list[dict[str, float]]) -> list[str]:
    """The median seconds of every step, alone and in the batch, from the `seconds` of result.json."""
    rows = []
    for step in one[0]:
        rows.append(f"| {step} | {median(run[step] for run in one):.3f} | {median(run[step] for run in many):.3f} |")
    total = [median(sum(run.values()) for run in runs) for runs in (one, many)]
    return [*rows, f"| all steps | {total[0]:.3f} | {total[1]:.3f} |"]


def seconds_of(output_dir: Path) -> list[dict[str, float]]:
    return [json.loads(path.read_text())["seconds"] for path in sorted(output_dir.rglob("result.json"))]


def machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((line.split(": ")[1] for line in cpuinfo.read_text().splitlines() if "model name" in line), model)
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}; "
        f"load average before: {os.getloadavg()[0]:.1f}"
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What one study and many cost, as whole processes.")
    parser.add_argument("--studies", type=positive, default=24, metavar="N", help="how many; default: %(default)s")
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="of the batch; default: %(default)s")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="of each; default: %(default)s")
    parser.add_argument("--root", type=Path, metavar="DIR", help="with a study in each folder; default: phantoms")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        root, one_out, many_out = args.root, Path(name) / "one", Path(name) / "many"
        if root is None:
            root = Path(name) / "studies"
            options = ["--out", root, "--count", args.studies, "--brain-series", BRAIN_SERIES]
            subprocess.run(
                [sys.executable, PHANTOM, "dicom", *map(str, options)], check=True, stdout=subprocess.DEVNULL
            )
        studies = sorted(path for path in root.iterdir() if path.is_dir())
        one, many, one_steps, many_steps = [], [], [], []
        for _ in range(args.repeats + 1):
            one.append(measure("inference_dcm.py", studies[0], "--output-dir", one_out))
            many.append(
                measure("batch_inference_dcm.py", root, "--output-dir", many_out, "--max-workers", args.workers)
            )
            one_steps += seconds_of(one_out)
            many_steps += seconds_of(many_out)
    files = len(many_steps) // (args.repeats + 1)
    print("\n| least / median / most | processor s | wall s | peak MB |\n|---|---|---|---|")
    print(costs_row("one study", one[1:]))
    print(costs_row(f"{files} studies, {args.workers} workers", many[1:]))
    print("\n| step, median wall s | one study | each of the batch |\n|---|---|---|")
    print("\n".join(step_rows(one_steps[1:], many_steps[files:])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
