"""One digest tells what a study is measured with; whatever may give another result has another."""

import dataclasses
import hashlib
import json
import pickle
import shutil

import pytest

from checks.quality_limits import LIMITS_FILE, TEMPLATE_FILE
from choosing.series_rules import load_rules
from common.refusal import Failure
from common.shipped import DEFAULT_MODEL
from study.setup import SetupFiles


@pytest.fixture
def files(tmp_path, threshold_model) -> SetupFiles:
    """A model with limits beside it that are those of another one, as the digest does not mind."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(threshold_model, folder / "model.onnx")
    for name in (LIMITS_FILE, TEMPLATE_FILE):
        shutil.copy(DEFAULT_MODEL.parent / name, folder)
    return SetupFiles(folder / "model.onnx", load_rules())


def test_the_same_files_make_the_same_setup_wherever_they_lie(files, tmp_path):
    moved = files.model_path.parent.rename(tmp_path / "elsewhere")
    elsewhere = dataclasses.replace(files, model_path=moved / "model.onnx").load(threads=2)
    moved.rename(files.model_path.parent)
    setup = files.load()
    assert elsewhere.digest == setup.digest
    assert setup.agent.identity["sha256"] == hashlib.sha256(files.model_path.read_bytes()).hexdigest()
    assert setup.limits_sha256 == setup.limits.sha256


def _other_model(files, save_threshold_model, card):
    save_threshold_model(files.model_path, {**card, "version": "0.2"})


def _other_limits(files, **_):
    path = files.model_path.parent / LIMITS_FILE
    content = json.loads(path.read_text())
    content["ranges"]["total"]["warn"][1] += 1
    path.write_text(json.dumps(content))


def _other_mean_crop(files, **_):
    path = files.model_path.parent / TEMPLATE_FILE
    path.write_bytes(path.read_bytes() + b"\0")


def _no_limits(files, **_):
    for name in (LIMITS_FILE, TEMPLATE_FILE):
        (files.model_path.parent / name).unlink()


def _other_rules(files, **_):
    return dataclasses.replace(files, rules=files.rules[:-1])


def _other_values(files, **_):
    *others, last = files.rules
    return dataclasses.replace(files, rules=(*others, dataclasses.replace(last, values=(*last.values, 99))))


def _pseudonymous(files, **_):
    return dataclasses.replace(files, pseudonymous=True)


def test_whatever_may_give_another_result_has_another_digest(files, save_threshold_model, card):
    digests = [files.load().digest]
    for change in (
        _other_rules,
        _other_values,
        _pseudonymous,
        _other_limits,
        _other_mean_crop,
        _no_limits,
        _other_model,
    ):
        changed = change(files, save_threshold_model=save_threshold_model, card=card) or files
        digests.append(changed.load().digest)
    assert len(set(digests)) == len(digests)


def test_another_revision_of_the_objects_has_another_digest(files, monkeypatch):
    setup = files.load()
    before = setup.digest
    monkeypatch.setattr("study.setup.REVISION", "another")  # a constant of the program: nobody can hand it in
    assert setup.digest != before


def test_what_was_loaded_stays_when_the_files_change(files):
    setup = files.load()
    before = setup.digest
    files.model_path.write_text("no model any more")
    _no_limits(files)
    assert setup.digest == before
    with pytest.raises(Failure, match="bad-model"):
        files.load()


@pytest.mark.parametrize("of", ["files", "setup", "limits"])
def test_nothing_in_it_can_be_set(files, of):
    thing = {"files": files, "setup": files.load(), "limits": files.load().limits}[of]
    for field in dataclasses.fields(thing):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, field.name, None)
    assert isinstance(files.rules, tuple)


def test_the_files_can_be_sent_to_another_process(files):
    assert pickle.loads(pickle.dumps(files)) == files


@pytest.mark.parametrize("missing", [LIMITS_FILE, TEMPLATE_FILE])
def test_half_of_the_limits_is_a_bad_model(files, missing):
    (files.model_path.parent / missing).unlink()
    with pytest.raises(Failure, match="bad-model"):
        files.load()
