"""A series to the volume the model takes, and the model's answer back to the grid of the series.

Patient coordinates are those of NIfTI here: RAS+, millimetres. DICOM's own are LPS+; only `_stacked` sees those.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from dicom_file import DICOM_ERRORS, Instance, read_dicom
from dicom_series import Series
from refusal import Refusal

# Coordinates come as decimal text that scanners round: a step may differ from the median step by this fraction ...
STEP_TOLERANCE = 0.02
# ... pixel spacings from each other by this fraction, direction cosines by this much.
SPACING_TOLERANCE = 0.001
COSINE_TOLERANCE = 0.001
# A step from here on, in median steps, leaves room for another slice.
GAP = 1.5
# mm: finer or coarser voxels are not resampled faithfully to the model's grid.
SPACING_LIMITS = (0.4, 2.0)
# mm a side; the longest crops of training have 59. Resampling and segmenting much more would fill the memory.
FIELD_OF_VIEW_LIMIT = 100
DECODING_SECONDS = 20  # a file, at most
# Voxels so near to the model's grid go in as they are: half a percent of 50 mm is a quarter of a voxel.
MODEL_SPACING_TOLERANCE = 0.005
# sin(1 degree): training crops vary by more, and resampling would blur.
OBLIQUE_TOLERANCE = 0.0175

_RESCALE = (("RescaleSlope", 1), ("RescaleIntercept", 0))  # with what they are where absent
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SourceVolume:
    """A series as one array on its own grid, axes reordered so that they run most nearly right, anterior, superior.

    voxels: [X, Y, Z] float32, after rescale. spacing: (x, y, z) in mm. affine: [4, 4], voxel index to patient
    coordinates (RAS+, mm). instances: one a slice, or one a frame of a multi-frame image, with that slice's geometry in
    its header, sorted by position along the slices' normal.
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray
    instances: list[Instance]


def load_dicom_volume_as_numpy_from_list(series: Series) -> SourceVolume:
    """Build the volume of a series from its slices' positions and orientations, never from their numbers.

    Single-frame and enhanced multi-frame images alike. Raises Refusal: too-few-slices, geometry-*, unreadable-pixels.
    """
    slices = _checked_slices(series)
    affine = _affine(slices)
    _require_resampleable(affine, slices)
    voxels, affine = _in_ras_order(_stacked(slices), affine)
    spacing = tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return SourceVolume(voxels, spacing, affine, [one.instance for one in slices])


@dataclass(frozen=True)
class _Slice:
    """The geometry of one instance in DICOM's patient coordinates (LPS+, mm)."""

    instance: Instance
    position: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    pixel_spacing: np.ndarray  # between rows, between columns

    @property
    def name(self) -> str:
        return self.instance.name


def _checked_slices(series: Series) -> list[_Slice]:
    """The slices of the series sorted along their normal, known to make an even grid."""
    slices = [_slice(frame) for instance in series.instances for frame in _frames(instance)]
    if len(slices) < 2:
        raise Refusal("too-few-slices", f"series {series.uid} has one slice, expected a volume")
    _require_alike(slices)
    normal = np.cross(slices[0].along_row, slices[0].along_column)
    slices.sort(key=lambda one: float(one.position @ normal))
    _require_even_steps(slices, normal)
    return slices


# What tells a frame of an enhanced image from another, by the functional group that holds it (PS3.3, C.7.6.16).
_FRAME_ATTRIBUTES = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
_FUNCTIONAL_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


def _frames(instance: Instance) -> list[Instance]:
    """The frames of an enhanced image as if each were an image of its own; a single-frame image as it is."""
    per_frame, shared = (instance.value(keyword) for keyword in _FUNCTIONAL_GROUPS)
    if not per_frame:
        return [instance]
    common = Dataset()
    common.update(instance.header)
    for keyword in _FUNCTIONAL_GROUPS:
        common.pop(keyword, None)
    frames = []
    for number, groups in enumerate(per_frame):
        header = Dataset()
        header.update(common)
        for keyword, group in _FRAME_ATTRIBUTES.items():
            for source in (groups, *(shared or [])):
                if source.get(group) and keyword in source[group][0]:
                    header[keyword] = source[group][0][keyword]
                    break
        frames.append(Instance(instance.path, header, number))
    return frames


def _slice(instance: Instance) -> _Slice:
    position = _numbers(instance, "ImagePositionPatient", 3)
    orientation = _numbers(instance, "ImageOrientationPatient", 6).reshape(2, 3)
    pixel_spacing = _numbers(instance, "PixelSpacing", 2)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=10 * COSINE_TOLERANCE):
        _refuse_attribute(instance, "ImageOrientationPatient", "two perpendicular directions of length 1")
    if pixel_spacing.min() <= 0:
        _refuse_attribute(instance, "PixelSpacing", "two lengths above 0 mm")
    along_row, along_column = orientation / np.linalg.norm(orientation, axis=1, keepdims=True)
    return _Slice(instance, position, along_row, along_column, pixel_spacing)


def _numbers(instance: Instance, keyword: str, count: int) -> np.ndarray:
    try:
        values = np.atleast_1d(np.array(instance.value(keyword), dtype=np.float64))
    except DICOM_ERRORS:
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        _refuse_attribute(instance, keyword, f"{count} numbers")
    return values


def _refuse_attribute(instance: Instance, keyword: str, expected: str) -> None:
    found = instance.text(keyword)[:80] or "absent"
    raise Refusal("geometry-missing", f"{keyword} of {instance.name} is {found}, expected {expected}")


def _require_alike(slices: list[_Slice]) -> None:
    first = slices[0]
    for keyword, code, is_same in (
        ("Rows", "geometry-mixed-size", _same_text),
        ("Columns", "geometry-mixed-size", _same_text),
        ("FrameOfReferenceUID", "geometry-mixed-frame", _same_text),
        ("PixelSpacing", "geometry-mixed-spacing", _same_spacing),
        ("ImageOrientationPatient", "geometry-mixed-orientation", _same_orientation),
    ):
        for one in slices[1:]:
            if not is_same(first, one, keyword):
                values = " but ".join(f"{each.instance.text(keyword)} in {each.name}" for each in (first, one))
                raise Refusal(code, f"{keyword} is {values}; expected one value for all slices")


def _same_text(first: _Slice, second: _Slice, keyword: str) -> bool:
    return first.instance.text(keyword) == second.instance.text(keyword)


def _same_spacing(first: _Slice, second: _Slice, _: str) -> bool:
    return np.allclose(first.pixel_spacing, second.pixel_spacing, rtol=SPACING_TOLERANCE, atol=0)


def _same_orientation(first: _Slice, second: _Slice, _: str) -> bool:
    return np.allclose(
        [first.along_row, first.along_column], [second.along_row, second.along_column], atol=COSINE_TOLERANCE
    )


def _require_even_steps(slices: list[_Slice], normal: np.ndarray) -> None:
    """Refuse duplicates, gaps, uneven steps and tilt, measured by the median step (the lower one: a gap stands out)."""
    moves = np.array([after.position - before.position for before, after in pairwise(slices)])
    steps = moves @ normal
    shifts = np.linalg.norm(moves - np.outer(steps, normal), axis=1)
    median = float(np.quantile(steps, 0.5, method="lower"))
    tolerance = STEP_TOLERANCE * median
    for code, fault, sizes, is_wrong in (
        ("geometry-duplicate-position", "two slices at one position", steps, steps <= tolerance),
        ("geometry-gap", "a slice is missing", steps, steps >= GAP * median),
        ("geometry-uneven", "uneven steps", steps, np.abs(steps - median) > tolerance),
        ("geometry-gantry-tilt", "slices shifted in their plane", shifts, shifts > tolerance),
    ):
        if is_wrong.any():
            first = int(is_wrong.argmax())
            between = f"{sizes[first]:.4g} mm from {slices[first].name} to {slices[first + 1].name}"
            raise Refusal(code, f"{fault}: {between}; the usual step is {median:.4g} mm")


def _require_resampleable(affine: np.ndarray, slices: list[_Slice]) -> None:
    """Before any pixel is decoded: neither voxels nor field of view may be out of all proportion."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lowest, highest = SPACING_LIMITS
    if spacing.min() < lowest * (1 - STEP_TOLERANCE) or spacing.max() > highest * (1 + STEP_TOLERANCE):
        found = " x ".join(f"{length:.3g}" for length in spacing)
        raise Refusal("geometry-spacing", f"voxels of {found} mm, expected {lowest} to {highest} mm")
    columns, rows = (_numbers(slices[0].instance, keyword, 1)[0] for keyword in ("Columns", "Rows"))
    extent = spacing * (columns, rows, len(slices))
    if extent.max() > FIELD_OF_VIEW_LIMIT:
        found = " x ".join(f"{length:.4g}" for length in extent)
        raise Refusal("geometry-field-of-view", f"{found} mm, expected a crop of at most {FIELD_OF_VIEW_LIMIT} mm")


def _stacked(slices: list[_Slice]) -> np.ndarray:
    """Voxels [columns, rows, slices] float32."""
    files = dict.fromkeys(one.instance.path for one in slices)
    stored = {path: _stored_pixels(path) for path in files}
    voxels = np.stack([_pixels(one, stored[one.instance.path]).T for one in slices], axis=-1)
    if slices[0].instance.text("PhotometricInterpretation") == "MONOCHROME1":  # the lowest value is the brightest
        voxels = voxels.max() - voxels
    return voxels


def _affine(slices: list[_Slice]) -> np.ndarray:
    """The affine [4, 4] from (column, row, slice) to RAS+ (PS3.3, equation C.7.6.2.1-1)."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.pixel_spacing[1]
    affine[:3, 1] = first.along_column * first.pixel_spacing[0]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine


def _stored_pixels(path: Path) -> np.ndarray:
    """The pixels of a file as they are stored, [frames, rows, columns]."""
    try:
        dataset = read_dicom(path)
        frames, rows, columns = int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            _require_compressed(dataset, frames)
            if not get_decoder(syntax).is_available:
                dataset = _decompressed(path)
        pixels = dataset.pixel_array
    except DICOM_ERRORS as error:
        reason = f"the pixels of {path.name} cannot be decoded: {type(error).__name__} {str(error)[:200]}"
        raise Refusal("unreadable-pixels", reason) from error
    shape = (frames, rows, columns)
    if pixels.shape not in (shape, shape[1:]):
        raise Refusal("unreadable-pixels", f"the pixels of {path.name} have shape {pixels.shape}, expected {shape}")
    return pixels.reshape(shape)


def _require_compressed(dataset: Dataset, frames: int) -> None:
    """Decoders unpack all they get before they ask what it should be: a bomb is larger than the image it stands for."""
    limit = 2 * dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8 + 4096
    if any(len(frame) > limit for frame in generate_frames(dataset.PixelData, number_of_frames=frames)):
        raise ValueError("compressed pixels larger than the image")


def _decompressed(path: Path) -> Dataset:
    """The file as DCMTK writes it without compression. Raises one of DICOM_ERRORS.

    For lossless JPEG, which archives like and which no decoder of pydicom's reads that is both free of a licence like
    the GPL and safe from broken files; this one may crash, as it is another process.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.dcm"
        command = ["dcmdjpeg", path.absolute(), plain]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=DECODING_SECONDS)
        except subprocess.SubprocessError as error:
            raise ValueError("dcmdjpeg fails on it") from error
        except OSError as error:
            raise ValueError("it needs dcmdjpeg: install DCMTK (apt-get install dcmtk)") from error
        return read_dicom(plain)


def _pixels(one: _Slice, stored: np.ndarray) -> np.ndarray:
    """The pixels [rows, columns] float32 of one slice, after its rescale slope and intercept."""
    instance, name = one.instance, one.name
    if (instance.frame or 0) >= len(stored) or (instance.frame is None and len(stored) > 1):
        raise Refusal("unreadable-pixels", f"{name} is not the frame that it should be of {len(stored)}")
    try:
        slope, intercept = (float(instance.text(keyword) or default) for keyword, default in _RESCALE)
    except ValueError as error:
        raise Refusal("unreadable-pixels", f"the rescale slope or intercept of {name} is no number") from error
    pixels = stored[instance.frame or 0].astype(np.float32) * np.float32(slope or 1) + np.float32(intercept)
    if not np.isfinite(pixels).all():
        raise Refusal("unreadable-pixels", f"{name} has pixels that are no finite numbers")
    return pixels


def _in_ras_order(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permute and flip the axes, values untouched, so that each runs most nearly along its own patient axis."""
    directions = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    order = max(permutations(range(3)), key=lambda axes: sum(directions[row, axis] for row, axis in enumerate(axes)))
    voxels = voxels.transpose(order)
    affine = affine[:, [*order, 3]]
    for axis in range(3):
        if affine[axis, axis] < 0:
            voxels = np.flip(voxels, axis)
            affine[:3, 3] += (voxels.shape[axis] - 1) * affine[:3, axis]
            affine[:3, axis] *= -1
    return np.ascontiguousarray(voxels), affine


def to_source_slices(array: np.ndarray, source: SourceVolume) -> np.ndarray:
    """`array` [X, Y, Z] on the source's grid as [slices, rows, columns] of its instances: undoes `_in_ras_order`."""
    slices = [_slice(instance) for instance in source.instances]
    # Of columns, rows and slices, in steps along X, Y and Z: each runs along one of them, forwards or backwards.
    steps = np.round(np.linalg.inv(source.affine) @ _affine(slices))[:3, :3]
    backwards = [axis for axis in range(3) if steps[axis].sum() < 0]
    columns, rows, depth = np.abs(steps).argmax(axis=0)
    return np.flip(array, backwards).transpose(depth, rows, columns)


def to_model_grid(source: SourceVolume) -> np.ndarray:
    """The volume [X, Y, Z] float32 on the model's grid: RAS, 1 mm, of the same size in mm as the field of view.

    These are the source's own voxels where its grid is that already. Beyond an oblique field of view the nearest voxels
    are repeated: average tissue there lets the model see 3 % less (crops turned by 20 degrees).
    """
    if _is_model_grid(source):
        return source.voxels
    affine, shape = _model_grid(source)
    return _resampled(_low_passed(source), np.linalg.inv(source.affine) @ affine, shape)


def to_source_grid(probabilities: np.ndarray, source: SourceVolume) -> np.ndarray:
    """Labels [X, Y, Z] uint8 on the source's grid from probabilities [C, X, Y, Z] on the model's.

    The probabilities are interpolated, not the labels: a border keeps its place between voxels. Interpolation rounds
    surfaces off, so each structure gets as many of its most probable voxels as make up its volume on the model's grid,
    as near as whole voxels can.
    """
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    if _is_model_grid(source):
        return labels
    affine, shape = _model_grid(source)
    seen = labels[_within(source.voxels.shape, np.linalg.inv(source.affine) @ affine, shape)]
    volumes = [np.count_nonzero(seen == label) for label in (1, 2)]  # mm3

    to_model = np.linalg.inv(affine) @ source.affine
    _, anterior, posterior = (_resampled(one, to_model, source.voxels.shape).ravel() for one in probabilities)
    voxels = np.round(np.cumsum(volumes) / np.prod(source.spacing)).astype(int)
    whole = np.argsort(-(anterior + posterior), kind="stable")[: voxels[1]]
    front_first = whole[np.argsort((posterior - anterior)[whole], kind="stable")]
    result = np.zeros(anterior.size, np.uint8)
    result[front_first[: voxels[0]]] = 1
    result[front_first[voxels[0] :]] = 2
    return result.reshape(source.voxels.shape)


def _low_passed(source: SourceVolume) -> np.ndarray:
    """The source's voxels [X, Y, Z] without waves shorter than 2 mm, the shortest that the model's grid holds.

    Left in, noise of finer voxels would come through as noise of the model's grid. Coarser voxels stay as they are.
    """
    from scipy import fft

    waves = fft.dctn(source.voxels, norm="ortho")
    kept = np.ceil(np.array(waves.shape) * source.spacing).astype(int)  # all, from 1 mm up
    waves[kept[0] :], waves[:, kept[1] :], waves[:, :, kept[2] :] = 0, 0, 0
    return fft.idctn(waves, norm="ortho")


def _resampled(array: np.ndarray, to_array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`array` [X, Y, Z] seen through a grid of `shape`, whose indices `to_array` [4, 4] maps to the array's.

    Cubic, as linear interpolation blurs: the volumes of real crops on a grid of 0.7 mm differ by 1.5 % from those at
    1 mm, with cubic interpolation by 0.6 %.
    """
    from scipy import ndimage  # here, since few series need it and its import takes as long as the model

    return ndimage.affine_transform(array, to_array, output_shape=shape, order=3, mode="nearest")


def _within(extent: tuple[int, ...], to_array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which voxels of a grid of `shape` have their centres within the voxels of an array of size `extent`."""
    within = np.ones(shape, bool)
    x, y, z = np.ogrid[tuple(slice(size) for size in shape)]
    for size, (along_x, along_y, along_z, offset) in zip(extent, to_array[:3], strict=True):
        index = along_x * x + along_y * y + along_z * z + offset
        within &= (index > -0.5) & (index < size - 0.5)
    return within


def _is_model_grid(source: SourceVolume) -> bool:
    directions = source.affine[:3, :3] / source.spacing
    return np.allclose(source.spacing, 1, rtol=0, atol=MODEL_SPACING_TOLERANCE) and np.allclose(
        directions, np.eye(3), atol=OBLIQUE_TOLERANCE
    )


def _model_grid(source: SourceVolume) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine and shape of the 1 mm RAS grid around the middle of the source's field of view.

    The model relies on the margins that crops leave around the structure (one voxel more on every side: 1 % more
    volume), and those of a crop cut along oblique axes stay the same on average if its size does.
    """
    extent = np.array(source.voxels.shape) * source.spacing
    if _is_padded(source.voxels):  # a crop that was turned and padded: the padding is none of it
        turned = np.abs(source.affine[:3, :3] / source.spacing)
        extent = np.clip(np.linalg.lstsq(turned.T, extent, rcond=None)[0], 1, extent)
    shape = np.maximum(np.round(extent), 1).astype(int)
    centre = source.affine @ [*(np.array(source.voxels.shape) - 1) / 2, 1]
    affine = np.eye(4)
    affine[:3, 3] = centre[:3] - (shape - 1) / 2
    return affine, tuple(shape.tolist())


def _is_padded(voxels: np.ndarray) -> bool:
    """Whether all eight corners have one value, as tissue has not."""
    return np.ptp(voxels[np.ix_([0, -1], [0, -1], [0, -1])]) == 0


def get_predicted_volumes(labels: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Volumes in mm3 of `anterior`, `posterior` and `total` from labels [X, Y, Z] (1 anterior, 2 posterior)."""
    voxel = float(np.prod(spacing))
    anterior, posterior = (int((labels == label).sum()) * voxel for label in (1, 2))
    return {"anterior": anterior, "posterior": posterior, "total": anterior + posterior}
