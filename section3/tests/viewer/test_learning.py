"""Corrections of a systematic mistake: a candidate learns from them, and only a person puts it into use."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import corrections
from common.refusal import Refusal
from common.shipped import DEFAULT_LOCALISER
from measuring.hippocrop import Localiser
from measuring.unet_inference_agent import UNetInferenceAgent, onnxruntime
from phantom import make_phantom
from servers import wait_until
from teaching import learning
from teaching.image_store import FINAL, ImageStore
from teaching.images import as_nifti, read_image
from teaching.learning import AlreadyRunning, Learning, read_job

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
PIPELINE = ROOT / "section2" / "src" / "run_ml_pipeline.py"
RECIPE = {"dims": 3, "depth": 2, "filters": 8, "batch_size": 2, "learning_rate": 4e-3, "ema_decay": 0.9, "epochs": 12}
RECIPE |= {"test_share": 0.0, "validation_share": 0.0, "augment": False, "background": 1.0}


def mistaken(labels: np.ndarray) -> np.ndarray:
    """The outermost voxels of the hippocampus are missing."""
    return labels * ndimage.binary_erosion(labels > 0)


def save_pairs(folder: Path, seeds: range, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Phantoms and their labels, changed, as section 1 leaves pairs."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for seed in seeds:
        phantom = make_phantom(seed)
        name = f"phantom_{2 * seed + 1:03d}.nii.gz"
        nib.save(nib.Nifti1Image(phantom.image, np.eye(4)), folder / "images" / name)
        nib.save(nib.Nifti1Image(change(phantom.labels), np.eye(4)), folder / "labels" / name)
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """The model of a run that learned a mistake."""
    folder = tmp_path_factory.mktemp("parent")
    save_pairs(folder / "data", range(10), mistaken)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    command = [sys.executable, PIPELINE, "--config", folder / "recipe.json", "--data-root", folder / "data"]
    subprocess.run([*map(str, command), "--out", str(folder / "run")], check=True, capture_output=True)
    (model,) = (folder / "run").glob("*/model.onnx")
    return model


def person_of(seed: int) -> str:
    return hashlib.sha256(f"phantom {seed}".encode()).hexdigest()


def correct(store: ImageStore, packed, seed: int) -> None:
    """A person corrected this phantom, who is always the same person: the same seeds are held out in each run."""
    phantom = make_phantom(seed)
    content = packed(phantom.image.astype(np.float32), np.eye(4))
    image = store.add_image(content, ".nii.gz", "crop", f"phantom {seed}", person_of(seed))
    store.add_label(image, FINAL, as_nifti(read_image(content, ".nii.gz"), phantom.labels), "doctor", "hippocampus")


def volume_of(model: Path, seeds: range) -> float:
    """How much of the true volume a model finds, the mean."""
    session = onnxruntime.InferenceSession(model)
    shares = []
    for phantom in map(make_phantom, seeds):
        (answer,) = session.run(None, {"volume": phantom.image.astype(np.float32)})
        shares.append((answer.argmax(0) > 0).sum() / (phantom.labels > 0).sum())
    return float(np.mean(shares))


def test_a_candidate_makes_the_corrected_mistake_no_more(tmp_path, parent, packed, serving_viewers, capsys):
    store = ImageStore(tmp_path / "store")
    for seed in range(100, 120):
        correct(store, packed, seed)
    held_out = [name for name, image in store.names().items() if image.is_held_out]
    assert 1 <= len(held_out) <= 10
    in_use = tmp_path / "model.onnx"
    in_use.write_bytes(parent.read_bytes())
    old_data = save_pairs(tmp_path / "old", range(30, 36), np.asarray)
    options = ("--model-path", in_use, "--parent", parent, "--old-data", old_data)

    with serving_viewers(tmp_path, *options) as client:
        assert client.ask("GET", "/train/").status == 404
        body = json.dumps({"epochs": 10, "client_id": "x"}).encode()
        task = client.ask("POST", "/train/hippocampus", body, **{"Content-Type": "application/json"}).json
        assert task["status"] == "RUNNING" and task["details"]
        assert client.ask("POST", "/train/hippocampus", body, **{"Content-Type": "application/json"}).status == 429
        assert client.ask("GET", "/train/?check_if_running=true").json["status"] == "RUNNING"
    # The training goes on though the service has ended.
    with serving_viewers(tmp_path, *options) as client:
        wait_until(lambda: client.ask("GET", "/train/").json["status"] != "RUNNING")
        task = client.ask("GET", "/train/").json
        assert task["status"] == "DONE", task["details"]
        assert client.ask("GET", "/train/?check_if_running=true").status == 404
        stats = client.ask("GET", "/info/").json["train_stats"]["hippocampus"]
        assert (stats["epoch"], stats["total_epochs"]) == (10, 10) and 0.5 < stats["best_metric"] < 1
        assert task["dice_after"] > task["dice_before"] + 0.05

        before, after = volume_of(parent, range(200, 206)), volume_of(Path(task["candidate"]), range(200, 206))
        assert before < 0.85 and after == pytest.approx(1, abs=0.08)
        version = client.ask("GET", "/info/").json["version"]
        assert version == UNetInferenceAgent(parent).identity["version"]  # nothing takes a model's place by itself

        where = ("--store", str(tmp_path / "store"))
        assert corrections.main(["candidates", *where]) == 0 and "whole Dice" in capsys.readouterr().out
        assert corrections.main(["promote", "1", "--model-path", str(in_use), *where]) == 0
        assert client.ask("GET", "/info/").json["version"] == f"{version}+corrections.1"
        assert in_use.read_bytes() == Path(task["candidate"]).read_bytes()
        weights = in_use.with_name("best.pt")  # the next training goes on from these
        assert weights.read_bytes() == Path(task["candidate"]).with_name("best.pt").read_bytes()
        assert corrections.main(["promote", "1", "--model-path", str(in_use), *where]) == 1
        assert corrections.main(["demote", "--model-path", str(in_use), *where]) == 0
        assert client.ask("GET", "/info/").json["version"] == version and in_use.read_bytes() == parent.read_bytes()
        assert not weights.exists()  # as before
        assert corrections.main(["demote", "--model-path", str(in_use), *where]) == 1
    trained = json.loads(next((tmp_path / "store" / "training" / "1" / "run").glob("*/split.json")).read_text())[
        "train"
    ]
    persons = {image.person[:12] for image in store.names().values() if image.is_held_out}
    assert len(trained) == 6 + 20 - len(held_out) and not any(one in name for one in persons for name in trained)


def test_a_candidate_is_kept_where_one_person_alone_could_be_tested_on(tmp_path, parent, packed, capsys):
    store = ImageStore(tmp_path / "store")
    for seed in range(100, 106):
        correct(store, packed, seed)
    assert [image.is_held_out for image in store.names().values()].count(True) == 1
    jobs = Learning(store, Path(corrections.__file__), parent)
    jobs.start({"epochs": 1})
    wait_until(lambda: jobs.running() is None)
    assert jobs.latest()["status"] == "DONE", jobs.log(20)
    assert corrections.main(["candidates", "--store", str(store.folder)]) == 0
    assert "Not compared: 1 of the persons" in capsys.readouterr().out


def test_a_candidate_that_was_trained_elsewhere_is_compared_and_promoted_as_any_other(tmp_path, parent, packed, capsys):
    store = ImageStore(tmp_path / "store")
    for seed in range(100, 112):
        correct(store, packed, seed)
    persons = {image.person[:12] for image in store.names().values() if image.is_held_out}
    where = ("--store", str(store.folder))
    assert corrections.main(["export", str(tmp_path / "out"), "--to-train", *where]) == 0
    exported = [path.name for path in (tmp_path / "out" / "images").iterdir()]
    assert len(exported) == 12 - len(persons) and not any(one in name for one in persons for name in exported)

    assert corrections.main(["adopt", str(parent), "--parent", str(parent), *where]) == 0
    assert "candidate 1: hippovolume" in capsys.readouterr().out
    jobs = Learning(store, Path(corrections.__file__), parent)
    task = jobs.latest()
    assert task["status"] == "DONE" and 0.5 < task["dice_after"] == task["dice_before"]  # the same model
    assert jobs.running() is None and jobs.progress()["best_metric"] == task["dice_after"]
    assert corrections.main(["candidates", *where]) == 0 and "whole Dice" in capsys.readouterr().out
    in_use = tmp_path / "model.onnx"
    in_use.write_bytes(b"another")
    assert corrections.main(["promote", "1", "--model-path", str(in_use), *where]) == 0
    assert in_use.read_bytes() == parent.read_bytes()
    assert in_use.with_name("best.pt").read_bytes() == parent.with_name("best.pt").read_bytes()


def test_what_is_no_candidate_leaves_nothing(tmp_path, parent, packed, monkeypatch, capsys):
    store = ImageStore(tmp_path / "store")
    for seed in range(100, 112):
        correct(store, packed, seed)
    jobs, where = Learning(store, Path(corrections.__file__), parent), ("--store", str(store.folder))
    alone, none = tmp_path / "alone.onnx", tmp_path / "none.onnx"
    alone.write_bytes(parent.read_bytes())
    none.write_bytes(b"no model")
    same = f"it calls itself {UNetInferenceAgent(parent).identity['version']} as"
    for model, said in (
        (alone, "has no best.pt"),
        (none, "[bad-model]"),
        (tmp_path / "no", "[bad-model]"),
        (parent, same),
    ):
        assert corrections.main(["adopt", str(model), *where]) == 1
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(corrections, "_compared", interrupted)
    assert corrections.main(["adopt", str(parent), "--parent", str(parent), *where]) == 130
    assert not jobs.jobs() and not list(jobs.folder.iterdir())


def test_while_a_training_runs_nothing_takes_its_place_as_the_newest(tmp_path, parent, capsys):
    jobs = Learning(ImageStore(tmp_path / "store"), Path(corrections.__file__), parent)
    (jobs.folder / "1").mkdir(parents=True)
    (jobs.folder / "1" / "job.json").write_text(json.dumps({"id": "1", "status": "RUNNING", "pid": None}))
    options = ("--parent", str(parent), "--store", str(tmp_path / "store"))
    assert corrections.main(["adopt", str(parent), *options]) == 1
    assert "a training runs" in capsys.readouterr().err and [job.name for job in jobs.jobs()] == ["1"]


def test_a_training_can_be_stopped(tmp_path, parent, packed):
    store = ImageStore(tmp_path / "store")
    for seed in range(100, 112):
        correct(store, packed, seed)
    jobs = Learning(store, Path(corrections.__file__), parent)
    job = jobs.folder / jobs.start({"epochs": 200})["id"]
    with pytest.raises(AlreadyRunning):
        jobs.start({})
    wait_until(lambda: "epoch" in jobs.log(20), lambda: jobs.log(20))
    stopped = jobs.stop()
    assert stopped["status"] == "STOPPED" and stopped["details"] and jobs.stop() is None
    pid = read_job(job)["pid"]
    wait_until(lambda: not learning._lives(pid, job))
    assert jobs.latest()["status"] == "STOPPED" and not (job / "after").exists()


def test_a_training_whose_process_is_gone_has_failed(tmp_path, parent):
    jobs = Learning(ImageStore(tmp_path / "store"), Path(corrections.__file__), parent)
    job = jobs.folder / "1"
    job.mkdir(parents=True)
    (job / "job.json").write_text(json.dumps({"id": "1", "status": "RUNNING", "start_ts": "", "pid": 2**22 + 1}))
    assert jobs.running() is None and jobs.latest()["status"] == "ERROR"


def test_what_takes_another_programs_place_just_now_lives_and_what_has_ended_does_not(tmp_path):
    job = tmp_path / "3"
    with subprocess.Popen(["nice", "-n", "1", sys.executable, "-c", "input()", "train", "3"], stdin=-1) as process:
        assert all(learning._lives(process.pid, job) for _ in range(3000))  # from its very beginning on
        assert not learning._lives(process.pid, tmp_path / "4")
        process.stdin.write(b"\n")
        process.stdin.flush()
        wait_until(lambda: not learning._lives(process.pid, job))  # though nobody has asked how it ended
    assert not learning._lives(process.pid, job)


def test_a_folder_of_a_job_that_never_began_is_in_nobodys_way(tmp_path, parent, packed, monkeypatch):
    store = ImageStore(tmp_path / "store")
    for seed in range(100, 112):
        correct(store, packed, seed)
    jobs = Learning(store, Path(corrections.__file__), parent)
    (jobs.folder / "7").mkdir(parents=True)
    begun = []
    monkeypatch.setattr(learning.subprocess, "Popen", lambda command, **_: begun.append(command) or Process)
    assert jobs.start({})["id"] == "8" and begun[0][:3] == ["nice", "-n", "10"]


class Process:
    pid = os.getpid()


def test_what_is_too_little_is_refused(tmp_path, parent, packed, monkeypatch):
    store = ImageStore(tmp_path / "store")
    jobs = Learning(store, Path(corrections.__file__), parent)
    with pytest.raises(Refusal, match="0 persons") as refused:
        jobs.start({})
    assert refused.value.code == "too-little-to-learn" and not jobs.jobs()
    for epochs in (0, -1, True, "4", 10**9, None):
        with pytest.raises(Refusal, match="epochs"):
            jobs.start({"epochs": epochs})
    with pytest.raises(Refusal, match=r"best\.pt") as refused:
        Learning(store, jobs.program, tmp_path / "model.onnx").start({})
    assert str(tmp_path) not in refused.value.reason  # it goes to viewers
    monkeypatch.setattr(learning.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(learning, "ROOT", tmp_path)
    with pytest.raises(Refusal, match="torch"):
        jobs.start({})


def test_pairs_are_what_section_2_takes(tmp_path, packed, capsys):
    """Of crops on any grid, and of heads, whose right side is mirrored."""
    store = ImageStore(tmp_path / "store")
    phantom = make_phantom(1)
    fine = ndimage.zoom(phantom.image.astype(np.float32), 1 / 0.8, order=1, grid_mode=True, mode="nearest")
    labels = ndimage.zoom(phantom.labels, 1 / 0.8, order=0, grid_mode=True, mode="nearest")
    content = packed(fine, np.diag([0.8, 0.8, 0.8, 1]))
    image = store.add_image(content, ".nii.gz", "crop", "fine")
    store.add_label(image, FINAL, as_nifti(read_image(content, ".nii.gz"), labels), "doctor")
    head = (ROOT / "data" / "demo_head.nii.gz").read_bytes()
    source = read_image(head, ".nii.gz")
    grid = source.volume.grid
    drawn = np.zeros(grid.shape, np.uint8)
    middle = Localiser(DEFAULT_LOCALISER).find(source.volume).middles["right"]
    x, y, z = np.round(np.linalg.inv(grid.affine) @ [*middle, 1])[:3].astype(int)
    drawn[x - 3 : x + 3, y : y + 8, z - 3 : z + 3] = 3
    drawn[x - 3 : x + 3, y - 8 : y, z - 3 : z + 3] = 4
    cuboid = 6 * 8 * 6 * grid.voxel_mm3
    store.add_label(store.add_image(head, ".nii.gz", "head", "head"), FINAL, as_nifti(source, drawn), "doctor")

    assert corrections.main(["export", str(tmp_path / "out"), "--store", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out.startswith("2 hippocampi")
    check = (
        "import sys; from pathlib import Path; from hippocampus_data import LoadHippocampusData\n"
        "for one in LoadHippocampusData(Path(sys.argv[1]), 0):\n"
        "    print(one.name, one.person, *[(one.labels == n).sum() for n in (1, 2)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", check, str(tmp_path / "out")],
        cwd=PIPELINE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    (crop,) = (row for row in rows if "right" not in row[0])
    (right,) = (row for row in rows if "right" in row[0])
    assert all(row[0].startswith(row[1]) for row in rows) and crop[1] != right[1]
    for label, found in ((1, crop[2]), (2, crop[3])):
        assert int(found) == pytest.approx((phantom.labels == label).sum(), rel=0.05)
    assert int(right[2]) == pytest.approx(cuboid, rel=0.1) and int(right[3]) == pytest.approx(cuboid, rel=0.1)
    table = (tmp_path / "out" / "corrections.csv").read_text().splitlines()
    assert len(table) == 3 and table[0].startswith("name,held_out,client") and "doctor" in table[1]
