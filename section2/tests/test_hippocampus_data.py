import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from config import Config
from hippocampus_data import (
    DataError,
    LoadHippocampusData,
    SlicesDataset,
    fold_splits,
    person_of,
    split_by_person,
)

NAMES = [f"hippocampus_{n:03d}.nii.gz" for n in range(1, 41)]


def test_parallel_loading_gives_what_serial_loading_gives(phantom_set):
    serial, parallel = LoadHippocampusData(phantom_set, max_workers=0), LoadHippocampusData(phantom_set)
    assert [c.name for c in serial] == [c.name for c in parallel] and len(serial) == 10
    for a, b in zip(serial, parallel, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels)
        assert set(np.unique(a.labels)) == {0, 1, 2}


def rewrite(path, voxels=None, affine=None):
    image = nib.load(path)
    voxels = image.get_fdata(dtype=np.float32) if voxels is None else voxels
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine), path)


def with_nan(path):
    voxels = nib.load(path).get_fdata(dtype=np.float32)
    voxels[3, 4, 5] = np.nan
    rewrite(path, voxels)


BROKEN = {
    "expected RAS": lambda image, label: rewrite(image, affine=np.diag([-1, 1, 1, 1])),
    "expected 1 mm": lambda image, label: rewrite(image, affine=np.diag([1, 1, 1.2, 1])),
    "no finite numbers": lambda image, label: with_nan(image),
    "expected 3": lambda image, label: rewrite(image, voxels=np.zeros((4, 4, 4, 2), np.float32)),
    "its image has": lambda image, label: rewrite(label, voxels=np.zeros((4, 4, 4), np.float32)),
    "expected 0, 1, 2": lambda image, label: rewrite(label, voxels=nib.load(label).get_fdata(dtype=np.float32) * 2),
    "cannot be read": lambda image, label: image.write_bytes(image.read_bytes()[:2000]),
    "image or label missing": lambda image, label: label.unlink(),
}


@pytest.mark.parametrize("complaint", BROKEN)
def test_what_breaks_the_contract_is_named(phantom_set, tmp_path, complaint):
    shutil.copytree(phantom_set, tmp_path, dirs_exist_ok=True)
    name = "hippocampus_003.nii.gz"
    BROKEN[complaint](tmp_path / "images" / name, tmp_path / "labels" / name)
    with pytest.raises(DataError, match=complaint) as error:
        LoadHippocampusData(tmp_path, max_workers=0)
    assert name in str(error.value)


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="make the curated set first"):
        LoadHippocampusData(tmp_path)


def test_both_hippocampi_belong_to_one_person():
    assert person_of("hippocampus_001.nii.gz") == person_of("hippocampus_002.nii.gz")
    assert person_of("hippocampus_002.nii.gz") != person_of("hippocampus_003.nii.gz")
    assert person_of("somebody.nii.gz") != person_of("else.nii.gz")


def persons(names):
    return {person_of(name) for name in names}


def test_a_split_never_divides_a_person():
    split = split_by_person(NAMES, test_share=0.2, validation_share=0.1, seed=3)
    assert sorted(split.train + split.validation + split.test) == NAMES
    assert (len(split.test), len(split.validation)) == (8, 4)
    assert not persons(split.train) & persons(split.validation + split.test)
    assert not persons(split.validation) & persons(split.test)
    assert split == split_by_person(NAMES, 0.2, 0.1, seed=3) != split_by_person(NAMES, 0.2, 0.1, seed=4)


def test_folds_test_everybody_once():
    splits = fold_splits(NAMES, folds=5, validation_share=0.1, seed=0)
    assert sorted(name for split in splits for name in split.test) == NAMES
    for split in splits:
        assert sorted(split.train + split.validation + split.test) == NAMES
        assert not persons(split.train + split.validation) & persons(split.test)


def test_holding_out_everybody_is_refused():
    with pytest.raises(DataError, match="nothing left to train on"):
        split_by_person(NAMES[:2], test_share=0.9, validation_share=0, seed=0)


@pytest.mark.parametrize(
    "context, plane, axis", [(1, "coronal", 1), (5, "coronal", 1), (3, "sagittal", 0), (3, "axial", 2)]
)
def test_slices_are_those_of_the_volumes(phantom_set, context, plane, axis):
    cases = LoadHippocampusData(phantom_set, max_workers=0)[:3]
    config = Config(context=context, plane=plane)
    slices = SlicesDataset(cases, config, multiple=16, device=torch.device("cpu"))
    assert len(slices) == sum(case.image.shape[axis] for case in cases)
    inputs, labels = slices.__getitems__(list(range(len(slices))))
    assert inputs.shape[1] == context and inputs.shape[2] % 16 == inputs.shape[3] % 16 == 0
    # Nothing of a structure is lost, and the middle channel is the labelled slice: structures are darker than the rest.
    assert [(labels == s).sum() for s in (1, 2)] == [sum((c.labels == s).sum() for c in cases) for s in (1, 2)]
    middle = inputs[:, context // 2]
    volume = torch.cat([slices.images[n, :, y][None] for n, y in slices.items])
    assert torch.equal(middle, volume)


def test_augmentation_is_new_each_time_and_starts_from_the_original(phantom_set):
    cases = LoadHippocampusData(phantom_set, max_workers=0)[:2]
    slices = SlicesDataset(cases, Config(dims=3), multiple=8, device=torch.device("cpu"))
    original = slices.images.clone()
    slices.augment()
    first = slices.__getitems__([0, 1])[0].clone()
    slices.augment()
    second = slices.__getitems__([0, 1])[0]
    assert first.shape == second.shape == (2, 1, *original.shape[1:])
    assert not torch.allclose(first, second)
    assert torch.equal(slices.images, original)
