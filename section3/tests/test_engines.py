"""Calls go the same way through every engine, and none that dies or hangs takes others with it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pydicom
import pytest

import engines
from batch_inference_dcm import main
from dicom_series import list_files
from engines import LOCAL_ENGINES, ProcessExecutor, dask_engine, local_engine
from refusal import Refusal

# Importable also by processes that know nothing of this test.
CALLS = """
import os
from pathlib import Path

def square(number):
    if number < 0:
        raise ArithmeticError(number)
    return number * number

def die_once(path):
    if not Path(path).exists():
        Path(path).touch()
        os._exit(1)
    return "alive"

def swell(size):
    return len(bytearray(size))
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    (tmp_path / "engine_calls.py").write_text(CALLS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("engine_calls", None)
    import engine_calls

    return engine_calls


@pytest.mark.parametrize("name", LOCAL_ENGINES)
def test_every_call_gets_its_answer_or_its_error(calls, name):
    engine = local_engine(name, 2, timeout=60)
    with engine.executor:
        answers = dict(engine.completed(calls.square, [3, -1, 4, 5, 6]))
    assert {number: future.result() for number, future in answers.items() if number > 0} == {3: 9, 4: 16, 5: 25, 6: 36}
    with pytest.raises(ArithmeticError):
        answers[-1].result()


def test_the_serial_engine_tells_of_each_call_before_the_next(calls):
    engine = local_engine("serial", 2, timeout=60)
    submitted = []
    for number, _ in engine.completed(calls.square, (submitted.append(number) or number for number in range(3))):
        assert submitted[-1] == number


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 2, 4), (2, 2, 1), (2, 8, 1), (None, 1, 1)])
def test_workers_share_the_cores(monkeypatch, cores, workers, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert local_engine("threads", workers, 60).threads == threads


def test_a_call_whose_process_dies_gets_a_second_chance(calls, tmp_path):
    with ProcessExecutor(1, threads=1, timeout=60) as executor:
        assert executor.submit(calls.die_once, tmp_path / "died").result() == "alive"


def test_a_call_that_kills_two_processes_fails_alone(calls):
    with ProcessExecutor(1, threads=1, timeout=60) as executor:
        deadly, harmless = executor.submit(os._exit, 1), executor.submit(calls.square, 3)
        with pytest.raises(BrokenExecutor):
            deadly.result()
        assert harmless.result() == 9


def test_a_call_beyond_its_deadline_is_ended(calls):
    with ProcessExecutor(1, threads=1, timeout=3) as executor:
        process = executor.submit(os.getpid).result()
        endless, harmless = executor.submit(time.sleep, 600), executor.submit(calls.square, 3)
        with pytest.raises(TimeoutError, match="not done within 3 s"):
            endless.result()
        assert harmless.result() == 9
        assert not Path(f"/proc/{process}").exists()


def test_a_process_that_was_stopped_is_ended_too(calls):
    with ProcessExecutor(1, threads=1, timeout=3) as executor:
        os.kill(executor.submit(os.getpid).result(), signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            executor.submit(calls.square, 3).result()


def test_memory_is_bounded(calls):
    with ProcessExecutor(1, threads=1, timeout=60) as executor:
        assert executor.submit(calls.swell, 100 << 20).result() == 100 << 20
        with pytest.raises(MemoryError):
            executor.submit(calls.swell, engines.WORKER_MEMORY).result()
        assert executor.submit(calls.square, 3).result() == 9


def test_nothing_is_left_running(calls):
    with ProcessExecutor(2, threads=1, timeout=60) as executor:
        processes = [executor.submit(os.getpid).result() for _ in range(2)]
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a Dask cluster of two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (section3/requirements-cluster.txt)")
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "engine_calls.py").write_text(CALLS)
    environment = {**os.environ, "PYTHONPATH": f"{Path(engines.__file__).parent}:{folder}", "OMP_NUM_THREADS": "1"}
    options = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(folder / "scheduler.json")]
    started = []
    try:
        for module, *more in (["dask_scheduler", "--port", "0"], ["dask_worker", "--nworkers", "2", "--nthreads", "1"]):
            command = [sys.executable, "-m", f"distributed.cli.{module}", *more, *options]
            started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=folder))
        with distributed.Client(scheduler_file=options[-1], timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def test_all_engines_write_the_same(request, make_study, tmp_path, threshold_model):
    """Every file but for its times; run on a cluster too where Dask is installed."""
    for seed in (1, 2, 3):
        make_study(seed, f"root/{seed}")
    ways = {name: ["--engine", name] for name in LOCAL_ENGINES}
    if importlib.util.find_spec("distributed"):
        ways["dask"] = ["--scheduler", request.getfixturevalue("cluster")]
    arguments = [str(tmp_path / "root"), "--model-path", str(threshold_model), "--max-workers", "2"]
    for name, options in ways.items():
        assert main([*arguments, "--output-dir", str(tmp_path / name), *options]) == 0
    contents = {name: _timeless_contents(tmp_path / name) for name in ways}
    assert len(contents["serial"]) >= 3 * 3
    assert all(content == contents["serial"] for content in contents.values())


def _timeless_contents(folder: Path) -> dict[str, object]:
    return {str(path.relative_to(folder)): _timeless(path) for path in list_files(folder)}


def _timeless(path: Path) -> object:
    if path.suffix == ".dcm":
        dataset = pydicom.dcmread(path)
        dataset.walk(_drop_times)
        return dataset.to_json()
    if path.suffix == ".json":
        result = json.loads(path.read_text())
        digests = [output.pop("sha256") for output in result["outputs"]]
        assert all(digests)
        return {key: value for key, value in result.items() if key not in ("seconds", "output_dir")}
    return path.read_bytes()


def _drop_times(dataset: pydicom.Dataset, element: pydicom.DataElement) -> None:
    if element.VR in ("DA", "TM", "DT") and not element.keyword.startswith(("Study", "Patient")):
        del dataset[element.tag]


def test_a_cluster_hands_on_answers_and_errors(cluster, calls):
    engine = dask_engine(cluster, timeout=60)
    assert engine.workers == 2
    with engine.executor:
        answers = dict(engine.completed(calls.square, [3, -1, 4]))
    assert (answers[3].result(), answers[4].result()) == (9, 16)
    with pytest.raises(ArithmeticError):
        answers[-1].result()


def test_a_call_beyond_its_deadline_ends_its_cluster_worker(cluster, calls):
    engine = dask_engine(cluster, timeout=1)
    with engine.executor as executor:
        endless, harmless = executor.submit(time.sleep, 600), executor.submit(calls.square, 3)
        assert "KilledWorker" in type(endless.exception(timeout=120)).__name__
        assert harmless.result(timeout=60) == 9


def test_no_cluster_is_told_in_one_line(make_study, tmp_path, threshold_model, monkeypatch, capfd):
    pytest.importorskip("distributed", reason="Dask is not installed (section3/requirements-cluster.txt)")
    monkeypatch.setattr(engines, "CONNECT_TIMEOUT", 1)
    make_study(1, "root/1")
    arguments = [str(tmp_path / "root"), "--model-path", str(threshold_model), "--output-dir", str(tmp_path / "out")]
    assert main([*arguments, "--scheduler", "tcp://127.0.0.1:1"]) == 1
    assert capfd.readouterr().err == "no Dask scheduler answers at tcp://127.0.0.1:1 [no-scheduler]\n"


def test_dask_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(Refusal, match="pip install distributed"):
        dask_engine("tcp://127.0.0.1:1", 60)
