"""From slices to a volume in the right place, and back."""

import io
import subprocess
from itertools import permutations, product

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicom_series import Instance, Series, list_files, read_study
from dicom_volume import (
    get_predicted_volumes,
    load_dicom_volume_as_numpy_from_list,
    to_model_grid,
    to_source_grid,
    to_source_slices,
)
from phantom import write_series
from refusal import Refusal
from unet_inference_agent import UNetInferenceAgent

SPACING = (0.8, 1.1, 1.7)
ORIENTATIONS = [
    "".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)
]  # all 48 ways to lay columns, rows and slices along the patient's axes
GRIDS = [
    ((1, 1, 1), (36, 50, 34)),
    ((0.5, 0.9, 1.4), (72, 56, 25)),
    ((1.3, 0.7, 0.45), (28, 72, 76)),
    (SPACING, (45, 46, 20)),
]


def _load(folder):
    (series,) = read_study(list_files(folder)).series
    return load_dicom_volume_as_numpy_from_list(series)


@pytest.fixture
def noise():
    """A volume [X, Y, Z] in which every voxel is different, with three unequal sides."""
    return np.random.default_rng(0).permutation(7 * 6 * 5).reshape(7, 6, 5).astype(np.int16) + 10


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_axis_order_and_sign_gives_the_same_volume(tmp_path, noise, orientation):
    write_series(tmp_path, noise, spacing=SPACING, orientation=orientation)
    source = _load(tmp_path)
    np.testing.assert_array_equal(source.voxels, noise)
    np.testing.assert_allclose(source.spacing, SPACING)
    expected = np.diag([*SPACING, 1])
    expected[:2, 3] = -6 * SPACING[0], -5 * SPACING[1]  # the phantom has its origin at voxel (X-1, Y-1, 0)
    np.testing.assert_allclose(source.affine, expected, atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_back_in_the_slices_every_voxel_is_where_it_came_from(tmp_path, noise, edit, orientation, degrees):
    paths = write_series(tmp_path, noise, spacing=SPACING, orientation=orientation)
    edit(paths, lambda dataset: _turn(dataset, _rotation(np.radians(degrees))))
    source = _load(tmp_path)
    pixels = [pydicom.dcmread(instance.path).pixel_array for instance in source.instances]
    np.testing.assert_array_equal(to_source_slices(source.voxels, source), pixels)


def test_neither_names_nor_instance_numbers_order_the_slices(tmp_path, noise, edit):
    paths = write_series(tmp_path, noise)
    for number, path in enumerate(np.random.default_rng(1).permutation(paths)):
        edit([path], lambda dataset, number=number: setattr(dataset, "InstanceNumber", number))
        path.rename(path.with_name(f"{number:03d}.dcm"))
    source = _load(tmp_path)
    np.testing.assert_array_equal(source.voxels, noise)
    heights = [float(instance.header.ImagePositionPatient[2]) for instance in source.instances]
    assert heights == sorted(heights)


def test_rescale_is_applied_slice_by_slice(tmp_path, noise, edit):
    paths = write_series(tmp_path, noise)
    edit(paths, lambda dataset: dataset.update({"RescaleSlope": 0.5, "RescaleIntercept": -3}))
    edit(paths[:1], lambda dataset: dataset.update({"RescaleSlope": 2, "RescaleIntercept": 0}))
    height = int(pydicom.dcmread(paths[0]).ImagePositionPatient[2])
    expected = noise * 0.5 - 3
    expected[..., height] = noise[..., height] * 2
    np.testing.assert_array_equal(_load(tmp_path).voxels, expected)


def test_unsigned_pixels_above_the_signed_range(tmp_path, noise, edit):
    def shift(dataset):
        stored = dataset.pixel_array.astype(np.uint16) + 40000
        dataset.PixelRepresentation, dataset.PixelData = 0, stored.tobytes()

    edit(write_series(tmp_path, noise), shift)
    np.testing.assert_array_equal(_load(tmp_path).voxels, noise.astype(np.float32) + 40000)


def test_monochrome1_is_inverted(tmp_path, noise):
    write_series(tmp_path, noise, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(_load(tmp_path).voxels, noise.max() - noise)


def test_an_enhanced_image_is_the_same_volume(tmp_path, noise, edit, to_enhanced):
    paths = write_series(tmp_path, noise, spacing=SPACING, orientation="PIR")
    single = _load(tmp_path)
    path = to_enhanced(paths)
    source = _load(tmp_path)
    np.testing.assert_array_equal(source.voxels, single.voxels)
    np.testing.assert_allclose(source.affine, single.affine)
    assert [instance.path for instance in source.instances] == [path] * len(paths)
    slices = to_source_slices(source.voxels, source)
    stored = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(slices, stored[[instance.frame for instance in source.instances]])


def test_an_enhanced_image_rescales_frame_by_frame(tmp_path, noise, edit, to_enhanced):
    def rescale(dataset):
        for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = pydicom.Dataset()
            item.RescaleSlope, item.RescaleIntercept = number + 1, -number
            groups.PixelValueTransformationSequence = [item]

    path = to_enhanced(write_series(tmp_path, noise))
    plain = _load(tmp_path)
    edit([path], rescale)
    number = np.array([instance.frame for instance in plain.instances])
    np.testing.assert_array_equal(_load(tmp_path).voxels, plain.voxels * (number + 1) - number)


def test_a_missing_frame_is_a_gap_and_named(tmp_path, noise, edit, to_enhanced):
    path = to_enhanced(write_series(tmp_path, noise))
    source = _load(tmp_path)
    middle = source.instances[2].frame
    edit([path], lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(middle))
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == "geometry-gap"
    assert "frame" in refused.value.reason


def _with_pydicom(syntax):
    def compress(path):
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)

    return compress


def _with_program(*command):
    def compress(path):
        subprocess.run([*command, path, path], check=True)

    compress.program = command[0]
    return compress


def _with_pillow(path):
    dataset = pydicom.dcmread(path)
    encoded = io.BytesIO()
    Image.fromarray(dataset.pixel_array.astype(np.uint16)).save(encoded, "JPEG2000", no_jp2=True)
    dataset.PixelData = pydicom.encaps.encapsulate([encoded.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.PixelRepresentation, dataset.file_meta.TransferSyntaxUID = 0, pydicom.uid.JPEG2000Lossless
    dataset.save_as(path)


@pytest.mark.parametrize(
    "write",
    [
        _with_program("dcmconv", "+ti"),
        _with_program("dcmconv", "+tb"),
        _with_program("dcmconv", "+td"),
        _with_pydicom(pydicom.uid.RLELossless),
        _with_pillow,
        _with_program("dcmcjpeg", "+e1"),
        _with_program("dcmcjpeg", "+el"),
        _with_program("dcmcjpls"),
    ],
    ids=["implicit", "big-endian", "deflated", "RLE", "JPEG 2000", "JPEG lossless 1", "JPEG lossless", "JPEG-LS"],
)
def test_every_lossless_transfer_syntax_gives_the_same_voxels(tmp_path, noise, write, need_program):
    if hasattr(write, "program"):
        need_program(write.program)
    for path in write_series(tmp_path, noise):
        write(path)
    np.testing.assert_array_equal(_load(tmp_path).voxels, noise)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("spacing", [(0.5, 0.9, 1.4), (1.3, 0.7, 0.45), (1, 1, 1), (1.5, 1.5, 1.5)])
def test_the_mask_on_the_source_has_the_volume_found_on_the_model_grid(tmp_path, edit, spacing, degrees):
    shape = tuple(int(48 / step) for step in spacing)
    paths = write_series(tmp_path, _unlike_padding(np.zeros(shape, np.int16)), spacing=spacing)
    edit(paths, lambda dataset: _turn(dataset, _rotation(np.radians(degrees))))
    source = _load(tmp_path)
    model_shape = to_model_grid(source).shape
    centre = (np.array(model_shape) - 1) / 2
    points = np.stack(np.meshgrid(*map(np.arange, model_shape), indexing="ij"), -1) - centre
    anterior, posterior = (np.linalg.norm(points - (0, y, 0), axis=-1) < 7.3 for y in (6, -6))
    posterior &= ~anterior
    probabilities = np.stack([~(anterior | posterior), anterior, posterior]).astype(np.float32)
    labels = to_source_grid(probabilities, source)
    volumes = get_predicted_volumes(labels, source.spacing)
    assert volumes["anterior"] == pytest.approx(anterior.sum(), abs=float(np.prod(spacing)))
    assert volumes["total"] == pytest.approx((anterior | posterior).sum(), abs=float(np.prod(spacing)))


def _unlike_padding(image: np.ndarray) -> np.ndarray:
    """The image with one corner unlike the others."""
    image[0, 0, 0] += 50
    return image


@pytest.mark.parametrize("degrees", [10, 20, 30])
def test_of_a_padded_crop_the_model_gets_what_was_there_before_it_was_padded(tmp_path, edit, degrees):
    crop = (35, 50, 36)
    turn = _rotation(np.radians(degrees))
    axes = np.diag([-1, -1, 1]) @ turn @ np.diag([-1, -1, 1])  # RAS, where DICOM has LPS
    shape = tuple(np.round(np.abs(axes.T) @ crop).astype(int))
    centred = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - (np.array(shape) - 1) / 2
    inside = (np.abs(centred @ axes.T) < np.array(crop) / 2).all(axis=-1)
    edit(write_series(tmp_path, 900 * inside), lambda dataset: _turn(dataset, turn))
    volume = to_model_grid(_load(tmp_path))
    np.testing.assert_allclose(volume.shape, crop, atol=1)
    assert volume.mean() > 860


def test_an_oblique_crop_without_padding_keeps_its_size_and_fills_its_corners_with_what_is_near(tmp_path, edit):
    crop = (36, 50, 34)
    image = _unlike_padding(np.full(crop, 400, np.int16))
    edit(write_series(tmp_path, image), lambda dataset: _turn(dataset, _rotation(np.radians(20))))
    volume = to_model_grid(_load(tmp_path))
    assert volume.shape == crop
    assert volume.min() >= 395


def test_at_1_mm_the_model_gets_the_voxels_as_they_are(tmp_path, noise):
    write_series(tmp_path, noise, orientation="PIR")
    np.testing.assert_array_equal(to_model_grid(_load(tmp_path)), noise)


def test_noise_finer_than_the_model_s_voxels_is_averaged_not_sampled(tmp_path):
    fine = (1000 + 100 * np.random.default_rng(0).standard_normal((60, 80, 60))).astype(np.int16)
    write_series(tmp_path, fine, spacing=(0.5, 0.5, 0.5))
    middle = to_model_grid(_load(tmp_path))[3:-3, 3:-3, 3:-3]
    assert middle.std() == pytest.approx(100 / np.sqrt(8), rel=0.05)


RADII = np.array([7, 9, 8])  # mm
FORWARD = np.array([0, 11, 0])  # mm


def _two_ellipsoids(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Brightness at patient coordinates [..., 3] (RAS, mm): one in front, one behind, blurred over 1 mm."""
    return 300 + 200 * _inside(points - centre - FORWARD) - 200 * _inside(points - centre + FORWARD)


def _inside(points: np.ndarray) -> np.ndarray:
    scaled = points / RADII
    radius = np.linalg.norm(scaled, axis=-1)
    depth = radius * (1 - radius) / np.linalg.norm(scaled / RADII, axis=-1)  # mm below the surface, to first order
    return np.clip(depth + 0.5, 0, 1)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize(("spacing", "shape"), GRIDS)
def test_one_anatomy_has_one_volume_and_place_on_any_grid(tmp_path, threshold_model, edit, spacing, shape, degrees):
    """Against the formula of ellipsoids; oblique series are the same slices turned about two axes."""
    turn = _rotation(np.radians(degrees))
    folder = tmp_path / "series"
    paths = write_series(folder, np.zeros(shape, np.int16), spacing=spacing)
    edit(paths, lambda dataset: _turn(dataset, turn))
    affine = _load(folder).affine
    centre = affine[:3, :3] @ (np.array(shape) / 2 + (0.13, 0.31, -0.2)) + affine[:3, 3]
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    write_series(folder, _unlike_padding(_two_ellipsoids(points, centre)), spacing=spacing)
    edit(paths, lambda dataset: _turn(dataset, turn))

    source = _load(folder)
    volume = to_model_grid(source)
    np.testing.assert_allclose(volume.shape, np.array(shape) * spacing, atol=0.51)
    labels = to_source_grid(UNetInferenceAgent(threshold_model).single_volume_inference(volume), source)
    assert labels.shape == source.voxels.shape
    volumes = get_predicted_volumes(labels, source.spacing)
    for label, structure, shift in ((1, "anterior", FORWARD), (2, "posterior", -FORWARD)):
        assert volumes[structure] == pytest.approx(4 / 3 * np.pi * RADII.prod(), rel=0.013)
        found = source.affine[:3, :3] @ np.argwhere(labels == label).mean(axis=0) + source.affine[:3, 3]
        np.testing.assert_allclose(found, centre + shift, atol=0.12)


def _rotation(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return about_z @ about_x


def _turn(dataset: pydicom.Dataset, rotation: np.ndarray) -> None:
    orientation = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3) @ rotation.T
    dataset.ImageOrientationPatient = [f"{value:.10g}" for value in orientation.ravel()]
    position = rotation @ np.array(dataset.ImagePositionPatient, float)
    dataset.ImagePositionPatient = [f"{value:.10g}" for value in position]


def _move(*shift: float):
    def change(dataset):
        position = np.array(dataset.ImagePositionPatient, float) + shift
        dataset.ImagePositionPatient = [f"{value:.6g}" for value in position]

    return change


def _halve_rows(dataset):
    dataset.PixelData = dataset.pixel_array[: dataset.Rows // 2].tobytes()
    dataset.Rows //= 2


def _set(keyword, value):
    return lambda dataset: setattr(dataset, keyword, value)


TILTED = [0.98480775, 0.17364818, 0, -0.17364818, 0.98480775, 0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_move(0, 0, 1), "geometry-duplicate-position"),
        (_move(0, 0, 0.3), "geometry-uneven"),
        (_move(0, 2, 0), "geometry-gantry-tilt"),
        (_halve_rows, "geometry-mixed-size"),
        (_set("PixelSpacing", [1, 1.2]), "geometry-mixed-spacing"),
        (_set("ImageOrientationPatient", TILTED), "geometry-mixed-orientation"),
        (_set("FrameOfReferenceUID", "1.2.3"), "geometry-mixed-frame"),
    ],
)
def test_one_slice_unlike_the_others_is_refused_with_both_files(tmp_path, noise, edit, change, code):
    paths = sorted(write_series(tmp_path, noise), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    edit([paths[2]], change)
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == code
    assert sum(path.name in refused.value.reason for path in paths) == 2
    assert "\n" not in refused.value.reason


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, noise):
    paths = sorted(write_series(tmp_path, noise), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    paths[2].unlink()
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == "geometry-gap"
    assert paths[1].name in refused.value.reason
    assert paths[3].name in refused.value.reason


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImagePositionPatient", None),
        ("ImagePositionPatient", [0, 0]),
        ("ImageOrientationPatient", None),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("PixelSpacing", None),
        ("PixelSpacing", [1, 0]),
        ("PixelSpacing", []),
    ],
)
def test_absent_or_senseless_attributes_are_refused_by_name(tmp_path, noise, keyword, value):
    write_series(tmp_path, noise, **{keyword: value})
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == "geometry-missing"
    assert keyword in refused.value.reason


def test_a_field_of_view_beyond_the_limit_is_refused_before_pixels_are_decoded(tmp_path, noise):
    write_series(tmp_path, noise, Rows=65535, Columns=65535)
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == "geometry-field-of-view"


@pytest.mark.parametrize("spacing", [(1, 1, 6.5), (0.2, 1, 1)])
def test_voxels_beyond_the_limits_are_refused(tmp_path, noise, spacing):
    write_series(tmp_path, noise, spacing=spacing)
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == "geometry-spacing"


def test_one_slice_is_no_volume(tmp_path, noise):
    for path in write_series(tmp_path, noise)[1:]:
        path.unlink()
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == "too-few-slices"


def _shorten(dataset):
    dataset.PixelData = dataset.PixelData[:20]


def _colour(dataset):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = dataset.PixelData * 3


@pytest.mark.parametrize(
    "change", [_shorten, _colour, lambda dataset: dataset.pop("PixelData"), _set("RescaleSlope", "1e999")]
)
def test_pixels_that_cannot_be_read_are_refused(tmp_path, noise, edit, change):
    path = write_series(tmp_path, noise)[0]
    edit([path], change)
    with pytest.raises(Refusal) as refused:
        _load(tmp_path)
    assert refused.value.code == "unreadable-pixels"
    assert path.name in refused.value.reason


def test_the_order_of_the_instances_in_memory_means_nothing(tmp_path, noise):
    paths = write_series(tmp_path, noise)
    instances = [Instance(path, pydicom.dcmread(path, stop_before_pixels=True)) for path in paths]
    volumes = [
        load_dicom_volume_as_numpy_from_list(Series("1.2", order)).voxels for order in (instances, instances[::-1])
    ]
    np.testing.assert_array_equal(*volumes)


def test_volumes_are_counted_in_mm3():
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[:2, 0, 0], labels[:3, 1, 1] = 1, 2
    volumes = get_predicted_volumes(labels, (0.5, 2, 3))
    assert volumes == {"anterior": 6, "posterior": 9, "total": 15}
