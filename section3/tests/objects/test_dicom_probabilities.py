"""The probability map: every voxel in its place, whatever the orientation, and a lie is found out."""

import highdicom as hd
import numpy as np
import pydicom
import pytest

from objects.dicom_probabilities import save_probabilities
from objects.verify_objects import VerificationError, verify_probabilities


@pytest.fixture
def chances(labels) -> np.ndarray:
    """Unlike their mirror images; some slices have none."""
    return np.where(labels > 0, np.random.default_rng(5).random(labels.shape), 0).astype(np.float32)


@pytest.fixture
def write(make, chances, tmp_path):
    def write_map(**options):
        results = make(**options)
        path = tmp_path / "map.dcm"
        save_probabilities(results.source.by_slice(chances), path, results.provenance)
        return path, results

    return write_map


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SRA"])
@pytest.mark.parametrize("degrees", [0, 20])
def test_every_probability_comes_back_from_its_place(write, chances, dciodvfy, orientation, degrees):
    path, results = write(orientation=orientation, degrees=degrees)
    verify_probabilities(path, chances, results.source)
    assert dciodvfy(path) == []
    (mapping,) = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.RealWorldValueSlope * mapping.RealWorldValueLastValueMapped == pytest.approx(1)


def test_other_programs_read_it(write, chances):
    path, _ = write()
    volume = hd.imread(path).get_volume(apply_real_world_transform=True, dtype=np.float64)
    found = volume.to_patient_orientation("RAS") if hasattr(volume, "to_patient_orientation") else volume
    shown = np.argwhere(chances.any(axis=(0, 1))).ravel() if found.array.shape != chances.shape else None
    expected = chances if shown is None else chances[..., shown.min() : shown.max() + 1]
    np.testing.assert_allclose(found.array, expected, atol=1e-4)


@pytest.mark.parametrize(
    "harm", [lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))), lambda ds: ds.pop("Rows")]
)
def test_a_map_that_is_not_what_was_measured_is_found_out(write, chances, edit, harm):
    path, results = write()
    edit([path], harm)
    with pytest.raises(VerificationError, match="probability map"):
        verify_probabilities(path, chances, results.source)
    with pytest.raises(VerificationError, match="differs"):
        save_probabilities(results.source.by_slice(chances[::-1]), path, results.provenance)
        verify_probabilities(path, chances, results.source)
