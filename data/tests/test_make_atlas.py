"""The atlas: small, sensible, and made again from any training set."""

import gzip
from pathlib import Path

import numpy as np
import pytest

import make_atlas
import phantom


def test_the_committed_atlas_is_small_and_holds_no_single_crop():
    path = Path(phantom.__file__).with_name("atlas.npz")
    assert path.stat().st_size < 100_000
    atlas = phantom.load_atlas()
    foreground = atlas["anterior"] + atlas["posterior"]
    assert foreground.shape == atlas["background"].shape == atlas["hippocampus"].shape == make_atlas.GRID
    # The labels of one crop are 0 or 1 and nothing between; those of a mean are anything.
    assert ((foreground > 0.1) & (foreground < 0.9)).sum() > 1000
    assert (np.linalg.eigvalsh(atlas["affine_covariance"]) > 0).all()


@pytest.fixture(scope="module")
def training_set(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    phantom.make_training_set(root / "TrainingSet", 10)
    (root / "TrainingSet" / "labels" / "hippocampus_010.nii.gz").unlink()  # an image without a label
    return root


@pytest.mark.slow
def test_an_atlas_of_phantoms_is_like_theirs(training_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_atlas, "ROUNDS", 1)
    out = tmp_path / "atlas.npz"
    assert make_atlas.main(["--data-root", str(training_set), "--out", str(out)]) == 0
    assert "mean of 9 labelled crops" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]
    mine, theirs = np.load(out), phantom.load_atlas()
    for name in ("anterior", "posterior"):
        assert np.corrcoef(mine[name].ravel(), theirs[name].ravel())[0, 1] > 0.8


@pytest.mark.slow
def test_alignment_brings_the_crops_together(training_set):
    crops = make_atlas.load_crops(training_set / "TrainingSet")
    positions = make_atlas.grid_positions()
    make_atlas.align_centroids(crops)
    before = make_atlas.average(crops, positions)
    for crop in crops:
        make_atlas.register(crop, before, positions)
    after = make_atlas.average(crops, positions)

    def blur(mean: np.ndarray) -> float:
        foreground = mean[1] + mean[2]
        return np.minimum(foreground, 1 - foreground).sum() / foreground.sum()

    assert blur(after) < 0.8 * blur(before)


ZEROS = gzip.compress(bytes(400), mtime=0)


@pytest.mark.parametrize("contents", [b"", b"no gzip", ZEROS, ZEROS[:30]])
def test_a_broken_file_is_one_line(tmp_path, capsys, contents):
    for kind in ("images", "labels"):
        (tmp_path / "TrainingSet" / kind).mkdir(parents=True)
        (tmp_path / "TrainingSet" / kind / "hippocampus_001.nii.gz").write_bytes(contents)
    assert make_atlas.main(["--data-root", str(tmp_path), "--out", str(tmp_path / "atlas.npz")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_no_data_is_one_line(tmp_path, capsys):
    assert make_atlas.main(["--data-root", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
