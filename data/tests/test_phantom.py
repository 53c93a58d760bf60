"""Phantoms are deterministic, vary like the real crops, and reach DICOM and NIfTI with every voxel in its place."""

import itertools
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

import phantom

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)
]


def read_series(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def volumes_mm3(crop: phantom.Phantom) -> np.ndarray:
    return np.array([(crop.labels == k).sum() for k in (1, 2)]) * np.prod(crop.spacing)


def test_the_same_seed_makes_the_same_phantom():
    one, two, other = phantom.make_phantom(5), phantom.make_phantom(5), phantom.make_phantom(6)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.labels, two.labels)
    assert one.image.shape != other.image.shape or not np.array_equal(one.labels, other.labels)


@pytest.mark.slow
def test_volumes_and_sizes_vary_like_the_real_ones():
    """Real: anterior 1715 +- 307, posterior 1580 +- 229, total 3295 +- 433 mm3; about 35 x 50 x 36 voxels."""
    crops = [phantom.make_phantom(seed) for seed in range(30)]
    volumes = np.array([volumes_mm3(crop) for crop in crops])
    np.testing.assert_allclose(volumes.mean(axis=0), (1715, 1580), rtol=0.1)
    assert 250 < volumes.sum(axis=1).std() < 650
    np.testing.assert_allclose(np.mean([crop.labels.shape for crop in crops], axis=0), (35, 50, 36), rtol=0.1)
    for crop in crops:
        edge = crop.labels.copy()
        edge[3:-3, 3:-3, 3:-3] = 0
        assert not edge.any()  # the structure keeps its margin, as in the real crops
        anterior, posterior = (np.argwhere(crop.labels == k).mean(axis=0) for k in (1, 2))
        assert anterior[1] > posterior[1]  # y grows to the front


def test_the_structure_can_be_seen():
    for seed in range(5):
        crop = phantom.make_phantom(seed)
        low, high = np.percentile(crop.image, (0.5, 99.5))
        inside, outside = crop.image[crop.labels > 0], crop.image[crop.labels == 0]
        assert np.median(inside) < np.median(outside)  # grey matter among white, T1
        assert inside.std() < 0.5 * outside.std()
        assert high - low > 50


@pytest.mark.parametrize("spacing", [(1, 1, 2), (0.7, 1.3, 0.9), (0.5, 0.5, 0.5)])
def test_spacing_does_not_change_the_anatomy(spacing):
    fine, other = phantom.make_phantom(3), phantom.make_phantom(3, spacing=spacing)
    assert other.spacing == spacing
    np.testing.assert_allclose(volumes_mm3(other), volumes_mm3(fine), rtol=0.06)
    extent = np.array(other.labels.shape) * spacing
    assert (np.abs(extent - fine.labels.shape) <= np.maximum(spacing, 1)).all()


@pytest.mark.parametrize("shape", [(20, 20, 20), (33, 61, 40), (70, 80, 75)])
def test_shape_counts_voxels(shape):
    crop = phantom.make_phantom(2, shape=shape)
    assert crop.image.shape == crop.labels.shape == shape
    assert set(np.unique(crop.labels)) == {0, 1, 2}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_dtype_and_scale(dtype):
    crop = phantom.make_phantom(1, shape=(12, 12, 12), dtype=dtype)
    assert crop.image.dtype == dtype
    assert crop.image.max() >= 112
    assert phantom.make_phantom(1, shape=(12, 12, 12), dtype=dtype, intensity_max=200).image.max() == 200


def test_scales_vary_like_the_real_ones():
    peaks = [phantom.random_intensity_max(np.random.default_rng(seed)) for seed in range(200)]
    assert min(peaks) < 200
    assert 1000 < np.median(peaks) < 4000
    assert max(peaks) > 500_000


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_nifti_keeps_the_world(tmp_path, orientation):
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    phantom.save_nifti(array, tmp_path / "a.nii.gz", (1.5, 2, 3), orientation)
    image = nib.load(tmp_path / "a.nii.gz")
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    back = nib.as_closest_canonical(image)
    assert np.array_equal(back.get_fdata(), array)
    np.testing.assert_allclose(back.affine, np.diag([1.5, 2, 3, 1]))
    np.testing.assert_array_equal(phantom.read_nifti(tmp_path / "a.nii.gz").image, array)


def test_training_set_has_persons(tmp_path):
    names = phantom.make_training_set(tmp_path, 8, seed=1, shape=(36, 50, 36))
    assert names == [f"hippocampus_{k:03d}.nii.gz" for k in range(1, 9)]
    images = [nib.load(tmp_path / "images" / name).get_fdata() for name in names]
    labels = [np.asarray(nib.load(tmp_path / "labels" / name).dataobj) for name in names]
    assert {label.dtype for label in labels} == {np.dtype(np.uint8)}

    def correlation(i: int, j: int) -> float:
        return np.corrcoef(images[i].ravel(), images[j].ravel())[0, 1]

    within = np.mean([correlation(k, k + 1) for k in (0, 2, 4, 6)])
    between = np.mean([correlation(k, k + 1) for k in (1, 3, 5)])
    assert within > between + 0.05
    assert not np.array_equal(labels[0], labels[1])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_leaves_each_voxel_in_its_place(tmp_path, orientation):
    shape, spacing = (4, 5, 6), (1.0, 1.5, 2.25)
    volume = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    files = phantom.write_series(tmp_path, volume, spacing=spacing, orientation=orientation)
    assert sorted(files) == sorted(tmp_path.iterdir())
    seen = np.full(shape, -1)
    for ds in read_series(tmp_path):
        column_step, row_step = np.array(ds.ImageOrientationPatient).reshape(2, 3)
        for row, column in np.ndindex(ds.Rows, ds.Columns):
            lps = (
                np.array(ds.ImagePositionPatient)
                + column * ds.PixelSpacing[1] * column_step
                + row * ds.PixelSpacing[0] * row_step
            )
            voxel = np.round(np.array([3, 4, 0]) + lps * (-1, -1, 1) / spacing).astype(int)
            seen[tuple(voxel)] = ds.pixel_array[row, column]
    assert np.array_equal(seen, volume)


def test_the_default_series_is_like_the_real_one(tmp_path):
    """The mapping found on the real studies: volume[x, y, z] = pixels_z[rows-1-y, columns-1-x]."""
    volume = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    phantom.write_series(tmp_path, volume)
    slices = sorted(read_series(tmp_path), key=lambda ds: ds.ImagePositionPatient[2])
    assert [list(ds.ImagePositionPatient) for ds in slices] == [[0, 0, k] for k in range(5)]
    stack = np.stack([ds.pixel_array for ds in slices])
    assert np.array_equal(stack[:, ::-1, ::-1].transpose(2, 1, 0), volume)
    first = slices[0]
    assert list(first.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert (first.SeriesDescription, first.WindowCenter, first.WindowWidth) == ("HippoCrop", 470, 950)
    assert first.SeriesNumber is None
    for gap in ("PatientBirthDate", "PatientSex", "PatientPosition", "SpacingBetweenSlices", "RescaleSlope"):
        assert gap not in first


def test_names_and_numbers_say_nothing_about_the_order(tmp_path):
    phantom.write_series(tmp_path, np.zeros((2, 2, 12), np.int16))
    by_name = read_series(tmp_path)
    place = [float(ds.ImagePositionPatient[2]) for ds in by_name]
    number = [int(ds.InstanceNumber) for ds in by_name]
    assert place != sorted(place)
    assert sorted(number) == list(range(1, 13))
    assert [p for _, p in sorted(zip(number, place, strict=True))] not in (sorted(place), sorted(place, reverse=True))
    assert len({ds.SOPInstanceUID for ds in by_name}) == 12


def test_overrides(tmp_path):
    phantom.write_series(tmp_path, np.zeros((2, 2, 2)), StudyTime=None, PixelSpacing=[2, 3], SliceThickness="7")
    for ds in read_series(tmp_path):
        assert "StudyTime" not in ds
        assert list(ds.PixelSpacing) == [2, 3]
        assert ds.SliceThickness == 7


@pytest.mark.parametrize("peak", [1.0, 150.0, 30000.0, 1.7e6])
def test_any_scale_fits_16_bits(tmp_path, peak):
    volume = np.linspace(0, peak, 4 * 4 * 4).reshape(4, 4, 4)
    phantom.write_series(tmp_path, volume)
    values = np.sort(np.concatenate([ds.pixel_array.ravel() for ds in read_series(tmp_path)]))
    assert values.dtype == np.int16
    assert np.corrcoef(values, np.sort(volume.ravel()))[0, 1] > 0.999


def test_a_study_is_like_the_real_ones(tmp_path):
    folder = phantom.write_study(tmp_path / "study", seed=4)
    series = {sub.name: read_series(sub) for sub in folder.iterdir()}
    crops = [slices for slices in series.values() if slices[0].SeriesDescription == "HippoCrop"]
    brains = [slices for slices in series.values() if slices[0].SeriesDescription != "HippoCrop"]
    assert (len(crops), len(brains)) == (1, 2)
    every = [ds for slices in series.values() for ds in slices]
    assert len({ds.StudyInstanceUID for ds in every}) == 1
    assert {str(ds.PatientName) for ds in every} == {"Phantom^0004"}
    assert len({ds.SeriesInstanceUID for ds in every}) == 3
    assert len({ds.SOPInstanceUID for ds in every}) == len(every)
    assert crops[0][0].StudyTime != brains[0][0].StudyTime
    for slices in brains:
        assert len(slices) == 22
        normal = np.cross(*np.array(slices[0].ImageOrientationPatient).reshape(2, 3))
        assert 0.9 < normal[2] < 0.99  # oblique
        place = np.sort([normal @ np.array(ds.ImagePositionPatient) for ds in slices])
        np.testing.assert_allclose(np.diff(place), 6.5, atol=1e-4)
        assert slices[0].pixel_array.std() > 100


def test_command_line(tmp_path, capsys):
    assert phantom.main(["nifti", "--out", str(tmp_path / "set"), "--count", "2", "--shape", "10,12,14"]) == 0
    assert "2 images and labels" in capsys.readouterr().out
    volume = tmp_path / "set" / "images" / "hippocampus_001.nii.gz"
    out = tmp_path / "dicom"
    assert phantom.main(["dicom", "--out", str(out), "--volume", str(volume), "--brain-series", "0"]) == 0
    assert str(out / "Study1") in capsys.readouterr().out
    assert len(list((out / "Study1").rglob("IM*"))) == 14


@pytest.mark.parametrize(
    "arguments", [["dicom", "--volume", "nowhere.nii.gz"], ["nifti", "--orientation", "XYZ", "--shape", "9,9,9"]]
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments):
    assert phantom.main([*arguments, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["nifti"],
        ["nonsense"],
        ["nifti", "--out", "x", "--shape", "1,2"],
        ["nifti", "--out", "x", "--spacing", "1,nan,1"],
        ["nifti", "--out", "x", "--spacing", "inf,1,1"],
    ],
)
def test_wrong_arguments_exit_2(arguments):
    with pytest.raises(SystemExit) as stop:
        phantom.main(arguments)
    assert stop.value.code == 2


def test_dicom_needs_no_nibabel_torch_or_tqdm(tmp_path):
    """The demo's environment has the clinical host's requirements alone."""
    code = (
        "import sys; sys.modules.update(nibabel=None, torch=None, tqdm=None); import phantom; "
        f"sys.exit(phantom.main(['dicom', '--out', {str(tmp_path)!r}, '--brain-series', '0']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(phantom.__file__).parent)
