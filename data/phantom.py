"""Synthetic hippocampus crops with labels, and DICOM studies made of them or of any other volume.

    python phantom.py nifti --out DIR --count 20     a training set: DIR/images, DIR/labels
    python phantom.py dicom --out DIR --count 3      DICOM studies: a HippoCrop series and brain series beside it

A phantom is the atlas (atlas.npz, the mean of many real crops; see make_atlas.py) through a random smooth deformation,
with labels, texture, bias field, noise and an intensity scale of its own. The same arguments always make the same one.

The DICOM half needs section3/requirements.txt only; what the NIfTI half needs besides is imported where it is used.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import environment  # noqa: F401  # isort: skip

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import expit

ANTERIOR, POSTERIOR = 1, 2

# Chosen so that volumes, sizes, spectrum and contrast of phantoms match those measured on the real crops (README.md).
SAME_PERSON = 0.9  # correlation of the two sides' anatomy; volumes of real pairs correlate by 0.91
GROWTH = 1.02  # the mean of many thin ends is rounded off, so that the atlas is smaller than the mean of its crops
BORDER_SD = 0.8  # mm, the error of good models in placing the border
ELASTIC_SPACING, ELASTIC_SD = 14.0, 1.8  # mm: what differs between persons beyond the affine maps the atlas knows of
ELASTIC_SHAPE = (3, 10, 11, 10)
TEXTURE_SPACING = 2.5  # mm: small anatomy that the mean image has lost
TEXTURE_SHAPE = (48, 56, 50)
INSIDE_TEXTURE, OUTSIDE_TEXTURE = 0.15, 0.25  # this and all below: shares of the intensity range
FLUID, GREY, WHITE = 0.1, 0.35, 0.75
VESSEL = 6.0  # makes the few brightest voxels about twice as bright as the rest
BIAS_SD = 0.08


@dataclass
class Phantom:
    """A crop as in the training set: RAS, spacing in mm."""

    image: np.ndarray  # [X, Y, Z]
    labels: np.ndarray  # [X, Y, Z] uint8: 0 background, 1 anterior, 2 posterior
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


def _rng(*purpose: object) -> np.random.Generator:
    """A random generator of its own for each purpose, so that what is drawn for one does not change another."""
    return np.random.default_rng(list(hashlib.sha256(repr(purpose).encode()).digest()))


# --- anatomy: everything here is in mm, so that one anatomy can be seen through any voxel grid ----


@functools.cache
def load_atlas() -> dict[str, np.ndarray]:
    """The volumes of atlas.npz as float32 0-1, and the covariance of the real crops' affine maps."""
    with np.load(Path(__file__).resolve().with_name("atlas.npz")) as file:
        return {name: file[name] / np.float32(248) if file[name].dtype == np.uint8 else file[name] for name in file}


@dataclass
class Anatomy:
    """One hippocampus: how positions in the crop map to positions in the atlas, and the tissue's texture."""

    affine: np.ndarray  # [3, 3]
    elastic: np.ndarray  # [3, ...] mm at the nodes of a lattice
    texture: np.ndarray  # [...] at the nodes of a finer lattice
    flat_border: bool  # anterior and posterior meet in one coronal plane, as in most of the real labels
    border_shift: float  # mm of that plane from where the atlas would have it

    @classmethod
    def random(cls, seed: object, person: object = None) -> Anatomy:
        """An anatomy of its own, or one of the two of a person."""
        size = 11 + np.prod(ELASTIC_SHAPE) + np.prod(TEXTURE_SHAPE)
        traits = _rng(seed, "anatomy").standard_normal(size, dtype=np.float32)
        if person is not None:
            shared = _rng(person, "person").standard_normal(size, dtype=np.float32)
            traits = np.sqrt(SAME_PERSON) * shared + np.sqrt(1 - SAME_PERSON) * traits
        affine, border, elastic, texture = np.split(traits, [9, 11, 11 + np.prod(ELASTIC_SHAPE)])
        spread = np.linalg.cholesky(load_atlas()["affine_covariance"])
        return cls(
            affine=np.linalg.inv(np.eye(3) * GROWTH + (spread @ affine).reshape(3, 3)),
            elastic=ELASTIC_SD * elastic.reshape(ELASTIC_SHAPE),
            texture=texture.reshape(TEXTURE_SHAPE),
            flat_border=bool(border[0] < 0.77),  # 78 of 100, as in the real labels
            border_shift=BORDER_SD * border[1],
        )

    def atlas_positions(self, positions: np.ndarray) -> np.ndarray:
        """Where positions [3, X, Y, Z] of the crop lie in the atlas."""
        moved = np.einsum("ij,j...->i...", self.affine, positions)
        return moved + np.stack([_at(axis, positions, ELASTIC_SPACING) for axis in self.elastic])

    def extent(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Lowest and highest corner of the structure, and its border's y, in mm."""
        positions = _grid((36, 48, 40), (2.0, 2.0, 2.0))
        where = self.atlas_positions(positions)
        anterior, posterior = _from_atlas("anterior", where), _from_atlas("posterior", where)
        inside = positions[:, anterior + posterior > 0.5]
        y = positions[1, 0, :, 0]
        # Balance of evidence: the plane with the least posterior before it and the least anterior behind it.
        front = np.cumsum((anterior - posterior).sum(axis=(0, 2)))
        return inside.min(axis=1) - 1, inside.max(axis=1) + 1, float(y[np.argmin(front)] + 1 + self.border_shift)


def _grid(shape: Sequence[int], spacing: Sequence[float], centre: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """Positions of the voxels of a grid around `centre` in mm, [3, X, Y, Z]."""
    axes = [c + s * (np.arange(n) - (n - 1) / 2) for n, s, c in zip(shape, spacing, centre, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _at(values: np.ndarray, positions: np.ndarray, spacing: float, order: int = 3) -> np.ndarray:
    """`values` on a lattice of `spacing` mm around the origin, at positions [3, X, Y, Z]. Order 3 smooths."""
    middle = (np.array(values.shape).reshape(3, 1, 1, 1) - 1) / 2
    return map_coordinates(values, positions / spacing + middle, order=order, mode="nearest", prefilter=False)


def _from_atlas(name: str, where: np.ndarray) -> np.ndarray:
    """A volume of the atlas at atlas positions [3, X, Y, Z]."""
    return _at(load_atlas()[name], where, spacing=1.0, order=1)


# --- phantoms -------------------------------------------------------------------------------------


def make_phantom(
    seed: int = 0,
    shape: Sequence[int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: type = np.float32,
    intensity_max: float | None = None,
) -> Phantom:
    """A synthetic crop. Without `shape` it is cut around the structure as the real ones are, about 35 x 50 x 35 mm.

    `shape` counts voxels, `spacing` is mm; neither changes the anatomy of a seed. Without `intensity_max` the scale is
    drawn like the real ones, whose maxima lie between 112 and 1.7 million.
    """
    seed = int(seed)
    return _acquire(Anatomy.random(seed), seed, shape, spacing, dtype, intensity_max)


def _acquire(
    anatomy: Anatomy,
    seed: object,
    shape: Sequence[int] | None,
    spacing: Sequence[float],
    dtype: type,
    intensity_max: float | None,
) -> Phantom:
    """Image an anatomy: cut the crop, draw the labels, then contrast, bias field, noise and scale."""
    rng = _rng(seed, "acquisition")
    if intensity_max is None:
        intensity_max = random_intensity_max(rng, dtype)
    low, high, border = anatomy.extent()
    # Margins around the structure as measured on the real crops, mm; never under 3 voxels there.
    low = low - np.maximum(4, rng.normal((5.7, 5.2, 4.8), 1.2))
    high = high + np.maximum(4, rng.normal((7.5, 5.9, 5.5), 1.2))
    if shape is None:
        shape = np.round((high - low) / spacing).astype(int)
    positions = _grid(shape, spacing, (low + high) / 2)
    where = anatomy.atlas_positions(positions)

    anterior, posterior = _from_atlas("anterior", where), _from_atlas("posterior", where)
    structure = anterior + posterior > 0.5
    in_front = positions[1] > border if anatomy.flat_border else anterior > posterior
    labels = np.where(structure, np.where(in_front, ANTERIOR, POSTERIOR), 0).astype(np.uint8)

    image = _tissue(where, anatomy.texture, structure)
    image *= np.exp(BIAS_SD * _at(rng.standard_normal((4, 4, 4)), positions, 40.0))
    image += rng.uniform(0.02, 0.05) * gaussian_filter(rng.standard_normal(image.shape), 0.5) / 0.45
    image = np.maximum(image, 0)
    image *= intensity_max / image.max()
    if np.issubdtype(dtype, np.integer):
        image = np.round(image)
    return Phantom(image.astype(dtype), labels, tuple(float(s) for s in spacing))


def _tissue(where: np.ndarray, texture: np.ndarray, structure: np.ndarray) -> np.ndarray:
    """Intensities 0-1 at atlas positions: what the atlas has inside and outside, meeting at this structure's border."""
    texture = _at(texture, where, TEXTURE_SPACING)
    inside = _from_atlas("hippocampus", where) + INSIDE_TEXTURE * texture
    outside = _from_atlas("background", where) + OUTSIDE_TEXTURE * texture
    # The mean image blurs the borders between tissues: fluid, grey and white matter get theirs back.
    for low, high, border in ((FLUID, GREY, 0.25), (GREY, WHITE, 0.55)):
        outside = outside + (high - low) * (expit((outside - border) / 0.03) - expit((outside - border) / 0.12))
    outside = outside + VESSEL * np.maximum(0, texture - 1.1)
    share = gaussian_filter(structure.astype(np.float32), 0.5)  # voxels at the border hold both
    return share * inside + (1 - share) * outside


def random_intensity_max(rng: np.random.Generator, dtype: type = np.float32) -> float:
    """A maximum as in the real set: a fifth up to 255, most some thousands, some near a million, if that fits."""
    kind = rng.random()
    small, medium, large = rng.uniform(112, 255), 2400 * np.exp(rng.normal(0, 0.5)), 10 ** rng.uniform(5.5, 6.2)
    peak = small if kind < 0.2 else medium if kind < 0.9 else large
    if not np.issubdtype(dtype, np.integer):
        return peak
    return small if np.iinfo(dtype).max < 1000 else min(peak, np.iinfo(dtype).max)


def save_nifti(
    array: np.ndarray, path: Path, spacing: Sequence[float] = (1.0, 1.0, 1.0), orientation: str = "RAS"
) -> None:
    """Write a RAS volume [X, Y, Z]; another `orientation` (nibabel axis codes) reorders the voxels, not the anatomy.

    `spacing` is that of X, Y and Z in mm, before reordering.
    """
    import nibabel as nib
    from nibabel.orientations import axcodes2ornt, ornt_transform

    image = nib.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))), path)


def make_training_set(
    root: Path,
    count: int,
    seed: int = 0,
    *,
    shape: Sequence[int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: type = np.float32,
    orientation: str = "RAS",
) -> list[str]:
    """Write `count` pairs root/images/NAME, root/labels/NAME and return the names, hippocampus_001.nii.gz onwards.

    Files 2k-1 and 2k are the two hippocampi of one person: alike in anatomy, from one scan with its intensity scale.
    """
    from tqdm import tqdm

    names = []
    for number in tqdm(range(1, count + 1), desc="phantoms", disable=None):
        person = (seed, (number + 1) // 2)
        anatomy = Anatomy.random((seed, number), person)
        intensity_max = random_intensity_max(_rng(person, "scan"), dtype)
        phantom = _acquire(anatomy, (seed, number), shape, spacing, dtype, intensity_max)
        name = f"hippocampus_{number:03d}.nii.gz"
        for kind, array in (("images", phantom.image), ("labels", phantom.labels)):
            folder = Path(root) / kind
            folder.mkdir(parents=True, exist_ok=True)
            save_nifti(array, folder / name, spacing, orientation)
        names.append(name)
    return names


# --- DICOM ----------------------------------------------------------------------------------------


BRAIN_SERIES = ("T1post", "FLAIR_reg", "T2_reg", "T1pre_reg")


@dataclass(frozen=True)
class StudyHeader:
    """What all series of a study share."""

    study_uid: str
    patient_id: str
    patient_name: str
    study_date: str = "20200119"
    study_time: str = "112200"
    accession_number: str = ""
    study_id: str = "1"
    study_description: str = "PHANTOM HIPPOCAMPUS"

    @classmethod
    def from_seed(cls, seed: int) -> StudyHeader:
        """A header that nobody takes for a person's."""
        return cls(
            study_uid=_uid("study", seed),
            patient_id=f"PHANTOM-{seed:04d}",
            patient_name=f"Phantom^{seed:04d}",
            accession_number=f"{8_000_000 + seed}",
        )


def _uid(*what: object) -> str:
    return generate_uid(entropy_srcs=[repr(part) for part in what])


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    orientation: str = "LPS",
    description: str = "HippoCrop",
    modality: str = "MR",
    study: StudyHeader | None = None,
    seed: int = 0,
    **overrides: object,
) -> list[Path]:
    """Write a RAS volume [X, Y, Z] of `spacing` mm as a series of single-frame MR slices, and return the files.

    `orientation` says where column, row and slice numbers grow to: "LPS" is axial, like the real HippoCrop. Any of the
    48 leaves every voxel at its place in the patient, with voxel (X-1, Y-1, 0) at the origin. What the real series lack
    is lacking. `overrides` sets attributes by keyword in every slice; None deletes one. File names and InstanceNumber
    say nothing about the place of a slice. UIDs follow from study, description and seed: two series of one study need
    different seeds or descriptions.
    """
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])  # RAS voxel -> LPS mm
    affine[:2, 3] = (volume.shape[0] - 1) * spacing[0], (volume.shape[1] - 1) * spacing[1]
    slices, affine = _reorient(volume, affine, orientation)
    return _write_slices(Path(folder), slices, affine, description, modality, study, seed, overrides)


def _reorient(volume: np.ndarray, affine: np.ndarray, orientation: str) -> tuple[np.ndarray, np.ndarray]:
    """Reorder a RAS volume's axes to DICOM codes; affine [4, 4] maps voxels to LPS mm before and after."""
    axes = [next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair) for code in orientation]
    reorder = np.zeros((4, 4))
    reorder[3, 3] = 1
    for new, (axis, code) in enumerate(zip(axes, orientation, strict=True)):
        backwards = code in "LPI"
        reorder[axis, new] = -1 if backwards else 1
        reorder[axis, 3] = volume.shape[axis] - 1 if backwards else 0
        if backwards:
            volume = np.flip(volume, axis)
    return volume.transpose(axes), affine @ reorder


def _as_int16(volume: np.ndarray) -> np.ndarray:
    """Whole numbers of 16 bits; values too large, or fractions too small to survive rounding, are scaled to 0-30000."""
    peak = np.abs(volume).max()
    if peak > np.iinfo(np.int16).max or (0 < peak < 10 and not np.issubdtype(volume.dtype, np.integer)):
        volume = volume * (30000 / peak)
    return np.round(volume).astype(np.int16)


def _write_slices(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    description: str,
    modality: str,
    study: StudyHeader | None,
    seed: int,
    overrides: dict[str, object],
) -> list[Path]:
    """Write volume [columns, rows, slices]; affine [4, 4] maps its indices to LPS mm."""
    study = study or StudyHeader.from_seed(seed)
    series_uid = _uid(study.study_uid, description, seed)
    volume = _as_int16(volume)
    numbers = _rng(seed, "slices").permutation(volume.shape[2]) + 1
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, number in enumerate(numbers):
        ds = _header(study, series_uid, description, modality)
        ds.SOPInstanceUID = _uid(series_uid, k)
        ds.InstanceNumber = int(number)
        ds.ImagesInAcquisition = len(numbers)
        _set_pixels(ds, volume[:, :, k], affine, k)
        for keyword, value in overrides.items():
            if value is None:
                ds.pop(keyword, None)
            else:
                setattr(ds, keyword, value)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"IM{hashlib.sha256(ds.SOPInstanceUID.encode()).hexdigest()[:10]}"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _header(study: StudyHeader, series_uid: str, description: str, modality: str) -> pydicom.Dataset:
    """What all slices of a series share; what the real HippoCrop series leave out or empty is so here."""
    ds = pydicom.Dataset()
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    ds.SOPClassUID = MRImageStorage
    ds.StudyDate = ds.SeriesDate = study.study_date
    ds.StudyTime = ds.SeriesTime = study.study_time
    ds.AccessionNumber = study.accession_number
    ds.Modality = modality
    ds.Manufacturer = ""
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = study.study_description
    ds.SeriesDescription = description
    ds.PatientName = study.patient_name
    ds.PatientID = study.patient_id
    ds.StudyInstanceUID = study.study_uid
    ds.SeriesInstanceUID = series_uid
    ds.StudyID = study.study_id
    ds.SeriesNumber = None
    ds.FrameOfReferenceUID = _uid(series_uid, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.WindowCenter, ds.WindowWidth = 470, 950
    return ds


def _set_pixels(ds: pydicom.Dataset, pixels: np.ndarray, affine: np.ndarray, k: int) -> None:
    """Pixels [columns, rows] of slice `k`, and where they lie: affine [4, 4] maps (column, row, slice) to LPS mm."""
    step = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :2] / step[:2]
    ds.ImagePositionPatient = [_decimal(x) for x in affine[:3, 2] * k + affine[:3, 3]]
    ds.ImageOrientationPatient = [_decimal(x) for x in direction.T.ravel()]
    ds.PixelSpacing = [_decimal(step[1]), _decimal(step[0])]  # between rows, then between columns
    ds.SliceThickness = _decimal(step[2])
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Columns, ds.Rows = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.PixelData = pixels.T.astype("<i2").tobytes()


def _decimal(value: float) -> str:
    """A decimal string (DS) of at most 16 characters."""
    return f"{float(value) + 0.0:.8g}"


def write_study(
    folder: Path, volume: Phantom | np.ndarray | None = None, *, seed: int = 0, brain_series: int = 2
) -> Path:
    """Write a study as the real ones are: a HippoCrop series and brain series in sub-folders whose names mean nothing.

    `volume` is a phantom or a RAS volume of 1 mm; without it the seed makes one. As in the real studies the brain
    is another person's, and the StudyTime of the HippoCrop differs from that of the brain. Returns the study folder.
    """
    if volume is None:
        volume = make_phantom(seed)
    if not isinstance(volume, Phantom):
        volume = Phantom(volume, np.zeros(volume.shape, np.uint8))
    folder = Path(folder)
    study = StudyHeader.from_seed(seed)
    rng = _rng(seed, "study")
    names = [f"{number:05d}" for number in rng.choice(100_000, brain_series + 1, replace=False)]
    write_series(
        folder / names[0],
        volume.image,
        spacing=volume.spacing,
        study=study,
        seed=seed,
        StudyTime="010313",
        SeriesTime="010313",
    )
    for number, name in enumerate(names[1:]):
        _write_brain_series(folder / name, BRAIN_SERIES[number % len(BRAIN_SERIES)], study, seed, number)
    return folder


def _write_brain_series(folder: Path, description: str, study: StudyHeader, seed: int, number: int) -> None:
    """A head-like blob in 22 oblique slices, 5 mm thick and 6.5 mm apart."""
    shape, spacing, tilt = (64, 64, 22), 3.4, np.deg2rad(15.5)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
    affine[:3, :3] *= (spacing, spacing, 6.5)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    positions = np.einsum("ij,j...->i...", affine[:3], np.concatenate([np.indices(shape), np.ones((1, *shape))]))

    def ellipsoid(*axes: float) -> np.ndarray:
        return np.sum((positions / np.array(axes).reshape(3, 1, 1, 1)) ** 2, axis=0) < 1

    rng = _rng(seed, "brain", number)
    contrast = rng.uniform(300, 1500, 4)
    tissues = (ellipsoid(78, 98, 80), ellipsoid(70, 89, 72), ellipsoid(60, 78, 62), ellipsoid(16, 30, 14))
    image = np.zeros(positions.shape[1:])
    for inside, value in zip(tissues, contrast, strict=True):
        image[inside] = value
    image = gaussian_filter(image, 0.7) + np.abs(rng.normal(0, 20, image.shape))
    overrides = {
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "SeriesNumber": 12 + number,
        "PatientBirthDate": "",
        "PatientSex": "M",
        "PatientAge": "072Y",
        "PatientPosition": "HFS",
        "BodyPartExamined": "BRAIN",
        "SliceThickness": "5",
        "SpacingBetweenSlices": "6.5",
        "FrameOfReferenceUID": _uid(study.study_uid, "brain"),
        "WindowCenter": 800,
        "WindowWidth": 1600,
    }
    _write_slices(folder, image, affine, description, "MR", study, seed + number, overrides)


# --- command line ---------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    def numbers(convert: type):
        def parse(text: str) -> tuple:
            values = tuple(convert(part) for part in text.split(","))
            if len(values) != 3 or not all(0 < value < np.inf for value in values):
                raise ValueError
            return values

        parse.__name__ = "three numbers"  # what argparse calls it when it refuses
        return parse

    parser = argparse.ArgumentParser(description="Make synthetic hippocampus crops: a training set or DICOM studies.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    nifti = kinds.add_parser("nifti", help="a training set: images and labels")
    dicom = kinds.add_parser("dicom", help="DICOM studies: a HippoCrop series and brain series")
    for each, count in ((nifti, 20), (dicom, 1)):
        each.add_argument("--out", type=Path, required=True, help="folder to write to")
        each.add_argument("--count", type=int, default=count, help="how many (%(default)s)")
        each.add_argument("--seed", type=int, default=0)
    nifti.add_argument("--shape", type=numbers(int), help="voxels, X,Y,Z; around 35,51,36 if not given")
    nifti.add_argument("--spacing", type=numbers(float), default=(1.0, 1.0, 1.0), help="mm, X,Y,Z (1,1,1)")
    nifti.add_argument("--orientation", default="RAS", help="axis codes (%(default)s)")
    nifti.add_argument("--dtype", type=np.dtype, default="float32", help="of the images (%(default)s)")
    dicom.add_argument("--volume", type=Path, help="a NIfTI volume to write instead of phantoms")
    dicom.add_argument("--brain-series", type=int, default=2, help="how many beside the HippoCrop (%(default)s)")
    return parser


def read_nifti(path: Path) -> Phantom:
    """A NIfTI volume as RAS with its spacing; it has no labels. Raises ValueError where it is none or not 3D."""
    import nibabel as nib

    try:
        image = nib.as_closest_canonical(nib.load(path))
        array = np.asarray(image.dataobj)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise ValueError(f"{path} cannot be read as NIfTI: {error}") from error
    if array.ndim != 3:
        raise ValueError(f"{path} has {array.ndim} dimensions, not 3")
    return Phantom(array, np.zeros(array.shape, np.uint8), tuple(float(s) for s in image.header.get_zooms()[:3]))


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        if args.kind == "nifti":
            options = {name: getattr(args, name) for name in ("shape", "spacing", "dtype", "orientation")}
            names = make_training_set(args.out, args.count, args.seed, **options)
            print(f"{len(names)} images and labels in {args.out}")
        else:
            volume = read_nifti(args.volume) if args.volume else None
            for seed in range(args.seed, args.seed + args.count):
                print(write_study(args.out / f"Study{seed + 1}", volume, seed=seed, brain_series=args.brain_series))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
