"""What each inference runtime costs, and what it changes in the answer.

    python runtimes.py [MODEL ...] [--images PATH ...] [--repeats N] [--out FILE]

Runs every runtime in a process of its own, in turn, `--repeats` times: import, load and the first volume, as one study
does, then the other volumes once each, as a batch does. (Sizes differ from volume to volume, and what a runtime
prepares for a size is part of its cost.) Prints a table in Markdown for each model: processor and wall time, the least
of all repeats; peak memory of the process; voxels whose label is not that of the first row. The volumes are phantoms of
real sizes, or the NIfTI files at --images. OpenVINO is tried where it is installed: `pip install openvino`.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmark import SECTION, machine

sys.path.insert(0, str(SECTION / "src"))
sys.path.insert(0, str(SECTION.parent / "data"))

import clinic_environment  # noqa: F401  before anything that may be missing

# isort: split
import numpy as np

SIZES = [(35, 51, 36), (31, 40, 24), (43, 59, 47), (36, 50, 31), (38, 53, 40), (33, 47, 35)]
Inference = Callable[[np.ndarray], np.ndarray]  # raw volume [X, Y, Z] -> probabilities [3, X, Y, Z]


@dataclass(frozen=True)
class Runtime:
    name: str
    package: str
    threads: int = 1
    level: str = ""  # of ONNX Runtime's graph optimisation, where it is not the default: all
    optimised_beforehand: bool = False
    arena: bool = True  # memory once taken is kept for the next volume
    pattern: bool = True  # memory is planned, and kept, for each size of volume
    precision: str = ""  # of OpenVINO
    fixed_size: bool = False  # OpenVINO compiles anew for each size


REFERENCE = Runtime("ONNX Runtime, as section 3 uses it", "onnxruntime")
RUNTIMES = (
    REFERENCE,
    Runtime("ONNX Runtime, as section 3 uses it", "onnxruntime", threads=2),
    # The agent hands over the file's bytes, which the session then keeps. From here on the file is loaded by its path.
    Runtime("ONNX Runtime, by path", "onnxruntime"),
    Runtime("ONNX Runtime, by path, basic optimisation", "onnxruntime", level="ORT_ENABLE_BASIC"),
    Runtime(
        "ONNX Runtime, by path, optimised beforehand", "onnxruntime", level="ORT_DISABLE_ALL", optimised_beforehand=True
    ),
    Runtime("ONNX Runtime, by path, no memory arena", "onnxruntime", arena=False),
    Runtime("ONNX Runtime, by path, no memory pattern", "onnxruntime", pattern=False),
    Runtime("OpenVINO float32", "openvino", precision="f32"),
    Runtime("OpenVINO float32", "openvino", threads=2, precision="f32"),
    Runtime("OpenVINO float32, each size compiled", "openvino", precision="f32", fixed_size=True),
    Runtime("OpenVINO bfloat16", "openvino", precision="bf16"),
    Runtime("OpenVINO bfloat16", "openvino", threads=2, precision="bf16"),
)


# --- in a process of its own: nothing of a runtime is imported before the clock runs ----


def load_onnxruntime(model: Path, runtime: Runtime) -> Inference:
    from measuring.unet_inference_agent import UNetInferenceAgent, onnxruntime, session_options

    if runtime.name == REFERENCE.name:
        return UNetInferenceAgent(model, runtime.threads).single_volume_inference
    options = session_options(runtime.threads)
    if runtime.level:
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, runtime.level)
    options.enable_cpu_mem_arena = runtime.arena
    options.enable_mem_pattern = runtime.pattern
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    return lambda volume: session.run(["probabilities"], {"volume": volume})[0]


def load_openvino(model: Path, runtime: Runtime) -> Inference:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": runtime.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": runtime.precision,
    }
    network = core.read_model(model)
    if not runtime.fixed_size:
        request = core.compile_model(network, "CPU", settings).create_infer_request()
        return lambda volume: request.infer({"volume": volume})[0]

    def compile_and_infer(volume: np.ndarray) -> np.ndarray:
        network.reshape(list(volume.shape))
        return core.compile_model(network, "CPU", settings)({"volume": volume})[0]

    return compile_and_infer


LOAD = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}


def measure(model: Path, runtime: Runtime, volumes: list[np.ndarray], labels_path: Path) -> dict:
    """One study, then the other volumes. Writes all labels; returns [processor, wall] seconds and MB."""
    start = _clocks()
    infer = LOAD[runtime.package](model, runtime)
    probabilities = infer(volumes[0])
    study, study_memory = _clocks() - start, _peak_memory()
    labels, further = [probabilities.argmax(axis=0)], []
    for volume in volumes[1:]:
        start = _clocks()
        probabilities = infer(volume)
        further.append((_clocks() - start).tolist())
        labels.append(probabilities.argmax(axis=0))
    np.savez(labels_path, *(found.astype(np.uint8) for found in labels))
    return {"study": study.tolist(), "study_memory": study_memory, "further": further, "memory": _peak_memory()}


def _clocks() -> np.ndarray:
    return np.array([time.process_time(), time.perf_counter()])


def _peak_memory() -> float:
    """MB. Not from getrusage: there a process inherits the peak of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024


# --- the comparison ----


def measure_in_own_process(model: Path, runtime: Runtime, volumes_path: Path, labels_path: Path) -> dict:
    """Raises RuntimeError, with the last line that the process said, if it fails."""
    job = {"model": str(model), "runtime": asdict(runtime), "volumes": str(volumes_path), "labels": str(labels_path)}
    process = subprocess.run([sys.executable, __file__, "--job", json.dumps(job)], capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise RuntimeError(f"{runtime.name} with {model}: {reason}")
    return json.loads(process.stdout.splitlines()[-1])


def run_job(text: str) -> None:
    job = json.loads(text)
    volumes = _load_arrays(Path(job["volumes"]))
    found = measure(Path(job["model"]), Runtime(**job["runtime"]), volumes, Path(job["labels"]))
    print(json.dumps(found))


def save_optimised(model: Path, path: Path) -> None:
    """The graph as ONNX Runtime rewrites it for this processor."""
    from measuring.unet_inference_agent import onnxruntime, session_options

    options = session_options(1)
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def compare(
    model: Path,
    runtimes: list[Runtime],
    volumes: list[np.ndarray],
    repeats: int,
    measured: Callable[[Path, Runtime, Path, Path], dict] = measure_in_own_process,
) -> str:
    """The table of one model, Markdown. `measured` is what runs one runtime once."""
    runs: dict[Runtime, list[dict]] = {runtime: [] for runtime in runtimes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "volumes.npz", *volumes)
        optimised = folder / "optimised.onnx"
        for repeat in range(repeats):
            for number, runtime in enumerate(runtimes):
                if sys.stderr.isatty():
                    print(f"{model}, {repeat + 1} of {repeats}: {_title(runtime)}", file=sys.stderr)
                if runtime.optimised_beforehand and not optimised.exists():
                    save_optimised(model, optimised)
                path = optimised if runtime.optimised_beforehand else model
                labels_path = folder / f"labels_{number}.npz"
                runs[runtime].append(measured(path, runtime, folder / "volumes.npz", labels_path))
        labels = [_load_arrays(folder / f"labels_{number}.npz") for number in range(len(runtimes))]
    rows = [
        "| runtime | one study: processor s | wall s | peak MB | a further volume: processor ms | wall ms | peak MB "
        "| voxels that differ | of the hippocampus's |",
        "|---|" + "---:|" * 8,
    ]
    rows += [_row(runtime, runs[runtime], labels[0], found) for runtime, found in zip(runtimes, labels, strict=True)]
    return "\n".join(rows)


def _row(runtime: Runtime, runs: list[dict], expected: list[np.ndarray], found: list[np.ndarray]) -> str:
    processor, wall = np.min([run["study"] for run in runs], axis=0)
    further = 1000 * np.median(np.min([run["further"] for run in runs], axis=0), axis=0)
    memory = [median(run[key] for run in runs) for key in ("study_memory", "memory")]
    differing = sum(int((a != b).sum()) for a, b in zip(expected, found, strict=True))
    structure = sum(int((labels > 0).sum()) for labels in expected)
    share = f"{differing / structure:.3%}" if structure else "-"
    return (
        f"| {_title(runtime)} | {processor:.2f} | {wall:.2f} | {memory[0]:.0f} "
        f"| {further[0]:.0f} | {further[1]:.0f} | {memory[1]:.0f} | {differing} | {share} |"
    )


def _title(runtime: Runtime) -> str:
    return f"{runtime.name}, {runtime.threads} thread{'s' if runtime.threads > 1 else ''}"


def install_size(package: str) -> float:
    """MB of the installed package and of what it requires, but for numpy, which section 3 needs anyway."""
    wanted, seen, size = [package], {"numpy"}, 0
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        paths = [Path(distribution.locate_file(file)) for file in distribution.files or []]
        size += sum(path.stat().st_size for path in paths if path.exists())
        required = [text for text in distribution.requires or [] if ";" not in text]  # the others are conditional
        wanted += [re.match(r"[\w.-]+", text)[0].lower() for text in required]
    return size / 2**20


def load_volumes(paths: list[Path]) -> list[np.ndarray]:
    """NIfTI files, or all in a folder, as RAS float32 [X, Y, Z]. Raises ValueError where there is none."""
    import nibabel

    files = [file for path in paths for file in (sorted(path.glob("*.nii*")) if path.is_dir() else [path])]
    if len(files) < 2:
        raise ValueError(f"{len(files)} NIfTI files at {', '.join(map(str, paths))}, expected two or more")
    return [nibabel.as_closest_canonical(nibabel.load(file)).get_fdata(dtype=np.float32) for file in files]


def phantoms() -> list[np.ndarray]:
    from phantom import make_phantom

    return [make_phantom(seed, size).image for seed, size in enumerate(SIZES)]


def _load_arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[name] for name in file.files]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What each inference runtime costs, and what it changes.")
    parser.add_argument("models", nargs="*", type=Path, default=[SECTION / "model" / "model.onnx"], metavar="MODEL")
    parser.add_argument("--images", nargs="+", type=Path, metavar="PATH", help="NIfTI, or folders; default: phantoms")
    parser.add_argument(
        "--repeats", type=int, choices=range(1, 100), default=3, metavar="N", help="of each; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the tables too")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # one measurement, in its own process
    return parser


def main(argv: list[str] | None = None, find_package: Callable[[str], object] = find_spec) -> int:
    """`find_package` is falsy of a package that is not installed."""
    args = _parser().parse_args(argv)
    if args.job:
        run_job(args.job)
        return 0
    runtimes = list(RUNTIMES)
    if not find_package("openvino"):
        runtimes = [runtime for runtime in RUNTIMES if runtime.package != "openvino"]
        print("OpenVINO is not installed and left out; `pip install openvino` adds it", file=sys.stderr)
    try:
        volumes = load_volumes(args.images) if args.images else phantoms()
        texts = [f"{machine()}; {len(volumes)} volumes, {args.repeats} repeats"]
        for package in dict.fromkeys(runtime.package for runtime in runtimes):
            texts.append(f"{package} {metadata.version(package)}: {install_size(package):.0f} MB installed")
        for model in args.models:
            table = compare(model, runtimes, volumes, args.repeats)
            texts.append(f"{model}, {model.stat().st_size / 2**20:.1f} MB\n\n{table}")
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    text = "\n\n".join(texts) + "\n"
    print(text, end="")
    if args.out:
        complete = args.out.with_name(args.out.name + ".new")
        complete.write_text(text)
        complete.replace(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
