"""How much the volumes of one head differ between the grids that a scanner may have written it on.

    python geometry.py MODEL --images DIR [--count 10] [--out FILE.csv]

Takes `--count` crops evenly from the sorted folder: NIfTI, 1 mm, such as section 1 keeps. Of each it computes what a
scanner with another grid would have shown of the same head, takes that through section 3's own way from series to
volumes, and compares with the volumes of the crop as it is. Prints a table in Markdown: for each grid the mean, mean
absolute and largest absolute difference in % of the anterior, posterior and total volume; `--out` gets a row per crop
and grid.

The method and what it assumes:
- A voxel of the crop is the average of the head over 1 mm. A wider voxel is the average over itself, exactly where its
  edges are the crop's, else by a spline of degree 5 through the crop's cumulative sums.
- Finer and turned voxels are points of a spline of degree 5 through the crop's voxels. They add no detail finer than
  1 mm and no noise: a real scan at 0.45 mm has both.
- What lies beyond the crop is not known. It is taken as the crop's mirror image, so what only a turned or shifted field
  of view sees is invented, and the tissue that it loses is lost.
- The field of view keeps its middle and, to a voxel, its size in mm.
- A volume is built in memory as the reader would build it from DICOM (test_dicom_volume.py shows that it does), but for
  the axis orders, which are written as DICOM files and read.
"""

import argparse
import csv
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark import SECTION

sys.path.insert(0, str(SECTION / "src"))
sys.path.insert(0, str(SECTION.parent / "data"))

import clinic_environment  # noqa: F401  before anything that may be missing

# isort: split
import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy.interpolate import make_interp_spline
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from common.refusal import Stop
from common.structures import STRUCTURES
from common.volume import Grid, Volume
from common.whole_files import write_text
from measuring.measure_crop import get_predicted_volumes
from measuring.resampling import to_model_grid, to_source_grid
from measuring.unet_inference_agent import UNetInferenceAgent
from phantom import write_series
from reading.dicom_series import list_files, read_study
from reading.dicom_volume import load_dicom_volume_as_numpy_from_list

KEYS = tuple(one.key for one in STRUCTURES)
PEAK = 30000  # every crop is scaled to it: scanners write 16 bits, and rounding must not matter
MIRRORED = 8  # voxels beyond the crop that wide voxels and the spline may see


@dataclass(frozen=True)
class ScanGrid:
    """Voxels of `spacing` mm, turned about an axis of the patient, their middle moved by `shift` mm along each axis.

    Turned or shifted voxels are of at most 1 mm.
    """

    name: str
    spacing: tuple[float, float, float] = (1, 1, 1)
    axis: str = "x"
    degrees: float = 0
    shift: float = 0

    def directions(self) -> np.ndarray:
        """[3, 3]; the columns are the directions of the grid's axes."""
        return Rotation.from_euler(self.axis, self.degrees, degrees=True).as_matrix()

    def affine(self, shape: np.ndarray) -> np.ndarray:
        """[4, 4], index to patient coordinates (RAS+, mm), whose origin is the middle of the crop."""
        affine = np.eye(4)
        affine[:3, :3] = self.directions() * self.spacing
        affine[:3, 3] = self.shift - affine[:3, :3] @ (np.array(shape) - 1) / 2
        return affine


CROP = ScanGrid("the crop, 1 mm")
GRIDS = (
    *(ScanGrid(f"{width:g} mm", (width, width, width)) for width in (0.45, 0.7, 1.5, 2)),
    ScanGrid("0.6 x 1.2 x 1 mm", (0.6, 1.2, 1)),
    ScanGrid("1 x 1 x 2 mm", (1, 1, 2)),
    ScanGrid("1 mm, half a voxel off", shift=0.5),
    *(
        ScanGrid(f"1 mm, {degrees} degrees about {axis}", axis=axis, degrees=degrees)
        for degrees in (10, 20, 30)
        for axis in "xyz"
    ),
)
# Of the 48 ways to lay columns, rows and slices along the axes: each order once, each direction three times.
ORIENTATIONS = ("LPS", "RSA", "AIL", "PRI", "SLP", "IAR")
AXIS_ORDERS = f"1 mm, axis orders {', '.join(ORIENTATIONS)}"


@dataclass(frozen=True)
class Row:
    """One crop seen on one grid: volumes in mm3, and their differences from the crop's own in %, as KEYS says."""

    crop: str
    grid: str
    volumes: np.ndarray
    differences: np.ndarray


def acquire(crop: np.ndarray, grid: ScanGrid) -> Volume:
    """What a scanner with another grid shows of the head of which `crop` [X, Y, Z] (1 mm, RAS) is one picture."""
    spacing = np.array(grid.spacing)
    shape = np.maximum(np.round(crop.shape / spacing), 1).astype(int)
    voxels = crop.astype(np.float64)
    for axis in np.flatnonzero(spacing > 1):
        voxels = _averaged(voxels, axis, spacing[axis], shape[axis])
    steps = grid.directions() * np.minimum(spacing, 1)  # an axis that was averaged is on its grid already
    first = (np.array(voxels.shape) - 1) / 2 + grid.shift - steps @ (shape - 1) / 2
    voxels = affine_transform(voxels, steps, first, output_shape=tuple(shape), order=5, mode="reflect")
    return Volume(np.round(voxels).astype(np.float32), Grid(voxels.shape, grid.affine(shape)))


def _averaged(voxels: np.ndarray, axis: int, width: float, count: int) -> np.ndarray:
    """Averages over `count` intervals of `width` voxels along an axis, laid around its middle."""
    padding = [(MIRRORED if each == axis else 0,) * 2 for each in range(3)]
    sums = np.cumsum(np.pad(voxels, padding, mode="symmetric"), axis)
    sums = np.insert(sums, 0, 0, axis)
    integral = make_interp_spline(np.arange(sums.shape[axis]), sums, k=5, axis=axis)
    edges = (sums.shape[axis] - 1) / 2 + width * (np.arange(count + 1) - count / 2)
    return np.diff(integral(edges), axis=axis) / width


def through_dicom(crop: np.ndarray, orientation: str) -> Volume:
    """`crop` [X, Y, Z] as it is read from DICOM files whose columns, rows and slices run along `orientation`."""
    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder), crop, orientation=orientation)
        (series,) = read_study(list_files(Path(folder))).series
        return load_dicom_volume_as_numpy_from_list(series)


def measure(source: Volume, agent: UNetInferenceAgent) -> np.ndarray:
    """Volumes in mm3, in the order of KEYS, as section 3 measures a series."""
    crop = to_model_grid(source)
    labels, _ = to_source_grid(agent.single_volume_inference(crop.voxels), crop.grid, source.grid)
    volumes = get_predicted_volumes(labels, source.grid)
    return np.array([volumes[key] for key in KEYS])


def compare(paths: list[Path], agent: UNetInferenceAgent, grids: Sequence[ScanGrid]) -> list[Row]:
    """All crops on all grids and in all axis orders.

    Raises ValueError for what is no crop, and where the model misses a structure in one.
    """
    rows = []
    for path in tqdm(paths, unit="crop", disable=None):
        measured = [(name, measure(source, agent)) for name, source in _on_all(grids, read_crop(path))]
        own = measured[0][1]
        if not own.all():
            raise ValueError(f"{path.name}: the model finds {own} mm3 of {KEYS}, expected some of each")
        rows += [Row(path.name, name, volumes, 100 * (volumes / own - 1)) for name, volumes in measured]
    return rows


def _on_all(grids: Sequence[ScanGrid], crop: np.ndarray) -> Iterator[tuple[str, Volume]]:
    for grid in (CROP, *grids):
        yield grid.name, acquire(crop, grid)
    for orientation in ORIENTATIONS:
        yield AXIS_ORDERS, through_dicom(crop, orientation)


def read_crop(path: Path) -> np.ndarray:
    """[X, Y, Z] RAS, whole numbers up to PEAK. Raises ValueError for another spacing than 1 mm."""
    image = nib.as_closest_canonical(nib.load(path))
    if image.ndim != 3 or not np.allclose(image.header.get_zooms(), 1, atol=0.005):
        found = " x ".join(f"{length:.3g}" for length in image.header.get_zooms())
        raise ValueError(f"{path.name} has voxels of {found} mm, expected a volume of 1 mm")
    voxels = image.get_fdata(dtype=np.float32)
    return np.round(voxels * (PEAK / voxels.max()))


def as_table(rows: list[Row]) -> str:
    """Markdown: for each grid and structure the mean, mean absolute and largest absolute difference."""
    lines = [
        f"{len({row.crop for row in rows})} crops. Difference in %: mean / mean absolute / largest",
        "",
        f"| grid | {' | '.join(KEYS)} |",
        "|---|---:|---:|---:|",
    ]
    for name in dict.fromkeys(row.grid for row in rows if row.grid != CROP.name):
        found = np.array([row.differences for row in rows if row.grid == name])
        summary = (found.mean(axis=0), np.abs(found).mean(axis=0), np.abs(found).max(axis=0))
        cells = [
            f"{mean:+.2f} / {mean_absolute:.2f} / {most:.2f}"
            for mean, mean_absolute, most in zip(*summary, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["crop", "grid", *(f"{key}_{unit}" for unit in ("mm3", "percent") for key in KEYS)])
    for row in rows:
        writer.writerow([row.crop, row.grid, *row.volumes.round(1), *row.differences.round(3)])
    return text.getvalue()


def chosen(folder: Path, count: int) -> list[Path]:
    """`count` NIfTI files, or all if there are fewer, evenly from the sorted folder. Raises ValueError for none."""
    paths = sorted(folder.glob("[!.]*.nii*"))
    if not paths:
        raise ValueError(f"{folder} holds no NIfTI image; expected crops such as section1/curation.py keeps")
    count = min(count, len(paths))
    return [paths[number * len(paths) // count] for number in range(count)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="How much the volumes of one head differ between grids.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="exported ONNX file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="NIfTI crops of 1 mm")
    parser.add_argument(
        "--count", type=int, choices=range(1, 1000), default=10, metavar="N", help="of crops; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write a row per crop and grid, CSV")
    return parser


def main(argv: list[str] | None = None, grids: Sequence[ScanGrid] = GRIDS) -> int:
    args = _parser().parse_args(argv)
    try:
        rows = compare(chosen(args.images, args.count), UNetInferenceAgent(args.model), grids)
        if args.out:
            write_text(args.out, as_csv(rows))
    except (OSError, ValueError, ImageFileError, Stop) as error:
        print(error, file=sys.stderr)
        return 1
    print(as_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
