"""Which image and label pairs are fit to train on? Examines every file, copies the clean pairs, and says why of each.

    python curation.py --data-root DIR --out out

writes out/images, out/labels and out/curation.csv: one row for every file name found, with its facts and its verdict.
No rule names a file. Exit codes: 0 done; 1 nothing found, nothing clean, or not writable; 2 usage, or a package lacks.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import environment  # noqa: F401  # isort: skip

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage
from tqdm import tqdm

from label_shift import estimate_shifts, surface_profiles

HERE = Path(__file__).resolve().parent
FEW = 16  # names: as many are examined sooner than processes have started
CHUNK = 8  # names that a process is given at once
LAYOUTS = [(sub, *names) for sub in ("TrainingSet", "") for names in (("images", "labels"), ("imagesTr", "labelsTr"))]
BACKGROUND, ANTERIOR, POSTERIOR = 0, 1, 2
DECATHLON_PAIRS = 260  # in the complete Task04_Hippocampus

MAX_VOXELS = 2**26  # a header may promise more than memory holds
MAX_BYTES = 2**30  # of a file: as many voxels at 16 bytes
MIN_PAIRS = 5  # below this there is no "rest" to be far from
MAD_TO_SD = 1.4826  # of a normal distribution
# How far is far: robust standard deviations from the median. The floor on that deviation, as a share of the median,
# keeps a homogeneous set from excluding normal variation: spacing within 10 %, size within 40 %, volume within 12.5 %.
FAR_SPACING, SPACING_FLOOR = 4, 0.025
FAR_SIZE, SIZE_FLOOR = 4, 0.1
FAR_VOLUME, VOLUME_FLOOR = 2.5, 0.05
FAR_SHIFT = 0.6  # voxels; label_shift.py says how well this tells


@dataclass
class PairFacts:
    """What is known of the image and the label of one name. None: could not be found out."""

    name: str
    files: str  # "image", "label" or "image+label"
    person: str
    shape: tuple[int, int, int] | None = None  # voxels along R, A, S
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None  # as stored, e.g. "RAS"
    intensity_type: str | None = None
    intensity_min: float | None = None
    intensity_max: float | None = None
    anterior_mm3: float | None = None
    posterior_mm3: float | None = None
    total_mm3: float | None = None
    anterior_components: int | None = None
    posterior_components: int | None = None
    total_components: int | None = None
    border_y: int | None = None  # the first coronal slice that is anterior, of the plane that parts the structures best
    border_misfits: int | None = None  # voxels on the wrong side of that plane
    shift_voxels: tuple[float, float, float] | None = None  # the label's place, less where the image says it should be
    image_sha256: str | None = None
    label_sha256: str | None = None
    problems: list[str] = field(default_factory=list)  # "code: what was found", each a reason to exclude
    flags: list[str] = field(default_factory=list)  # codes of what is worth a look
    image_content: str | None = field(default=None, repr=False)  # hashes of the voxels, whatever their type
    label_content: str | None = field(default=None, repr=False)
    profiles: np.ndarray | None = field(default=None, repr=False)  # [7, P], see label_shift.py

    @property
    def kept(self) -> bool:
        return not self.problems

    def row(self) -> dict[str, object]:
        """The pair's line of curation.csv: units in the names, triples as AxBxC."""

        def triple(values: Iterable[float] | None, separator: str = "x") -> str | None:
            return None if values is None else separator.join(f"{round(value, 4) + 0:g}" for value in values)

        return {
            "name": self.name,
            "verdict": "kept" if self.kept else "excluded",
            "reason": "; ".join(self.problems),
            "flags": " ".join(self.flags),
            "person": self.person,
            "files": self.files,
            "shape_voxels": triple(self.shape),
            "spacing_mm": triple(self.spacing_mm),
            "orientation": self.orientation,
            "intensity_type": self.intensity_type,
            "intensity_min": self.intensity_min,
            "intensity_max": self.intensity_max,
            "anterior_mm3": self.anterior_mm3,
            "posterior_mm3": self.posterior_mm3,
            "total_mm3": self.total_mm3,
            "anterior_components": self.anterior_components,
            "posterior_components": self.posterior_components,
            "total_components": self.total_components,
            "border_y_voxel": self.border_y,
            "border_misfit_voxels": self.border_misfits,
            "label_shift_voxels": triple(self.shift_voxels, " "),
            "image_sha256": self.image_sha256,
            "label_sha256": self.label_sha256,
        }


# --- one pair ---------------------------------------------------------------------------------------------------------


class Volume(NamedTuple):
    """A NIfTI volume in RAS."""

    array: np.ndarray  # [X, Y, Z]
    affine: np.ndarray  # [4, 4], mm
    orientation: str  # in which it was stored


class UnfitError(ValueError):
    """A file that is no volume of numbers: a stable code, and what was found."""

    def __init__(self, code: str, found: str) -> None:
        super().__init__(f"{code}: {found}")
        self.code, self.found = code, found


def person_of(name: str) -> str:
    """Whose hippocampus: files 2k-1 and 2k are the two of person k. A name without a number is a person of its own."""
    number = re.search(r"(\d+)(\.nii)?(\.gz)?$", name)
    return str((int(number[1]) + 1) // 2) if number else name


def load_ras(path: Path) -> Volume:
    """Read a NIfTI volume and bring its voxels to RAS.

    Raises UnfitError, and whatever nibabel raises on files that are none.
    """
    file = nib.load(path)
    if not isinstance(file, nib.Nifti1Image):  # of a pair .hdr and .img only one would be copied
        raise UnfitError("unreadable", f"a {type(file).__name__}, not a NIfTI file")
    if len(file.shape) != 3:
        raise UnfitError("not 3D", f"shape {file.shape}")
    if 0 in file.shape or np.prod(file.shape, dtype=float) > MAX_VOXELS:
        raise UnfitError("empty or huge", f"shape {file.shape}")
    if file.get_data_dtype().kind not in "uif":
        raise UnfitError("unreadable", f"voxels are {file.get_data_dtype()}, not numbers")
    if not np.isfinite(file.affine).all() or np.linalg.det(file.affine[:3, :3]) == 0:
        raise UnfitError("unreadable", "its affine places no voxel")
    if (unit := file.header.get_xyzt_units()[0]) not in ("mm", "unknown"):
        raise UnfitError("unit", f"its header says {unit}, not mm")
    ras = nib.as_closest_canonical(file)
    return Volume(np.asanyarray(ras.dataobj), ras.affine, "".join(nib.aff2axcodes(file.affine)))


def examine_pair(image_path: Path | None, label_path: Path | None) -> PairFacts:
    """Find out all that one image and its label tell by themselves; either may be None (missing). Never raises."""
    paths = {kind: path for kind, path in (("image", image_path), ("label", label_path)) if path is not None}
    stored = next(iter(paths.values())).name
    name = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in stored)
    facts = PairFacts(name, "+".join(paths), person_of(name))
    if name != stored:
        facts.problems.append("name: not printable UTF-8")
        return facts
    volumes = {}
    for kind in ("image", "label"):
        if kind not in paths:
            facts.problems.append(f"unpaired: no {kind} of this name")
            continue
        try:
            _require_readable(paths[kind])
            setattr(facts, f"{kind}_sha256", _sha256(paths[kind]))
            volumes[kind] = load_ras(paths[kind])
        except UnfitError as error:
            facts.problems.append(f"{error.code}: {kind}: {error.found}")
        # A file may be broken in any way, and its failure must not stop the others.
        except Exception as error:  # noqa: BLE001
            text = str(error).replace(str(paths[kind]), name).strip() or type(error).__name__
            facts.problems.append(f"unreadable: {kind}: {' '.join(text.split())}")
    for volume in reversed(volumes.values()):  # the image's count, where there are both
        facts.shape, facts.orientation = volume.array.shape, volume.orientation
        facts.spacing_mm = tuple(float(s) for s in voxel_sizes(volume.affine))
    if "image" in volumes:
        _examine_image(volumes["image"], facts)
    if "label" in volumes:
        _examine_label(volumes["label"], facts)
    if len(volumes) == 2:
        _compare(volumes["image"], volumes["label"], facts)
    return facts


def _require_readable(path: Path) -> None:
    """Raise UnfitError where reading would wait for ever (a pipe), never end (a device) or fill the memory."""
    if not path.is_file():
        raise UnfitError("unreadable", "not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise UnfitError("empty or huge", f"{path.stat().st_size} bytes")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _content(array: np.ndarray) -> str:
    """Hash of the voxels, the same for the same values of another data type."""
    return hashlib.sha256(repr(array.shape).encode() + array.astype(np.float32).tobytes()).hexdigest()


def _examine_image(image: Volume, facts: PairFacts) -> None:
    array = image.array
    facts.intensity_type = str(array.dtype)
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32))  # the type in which the network will see them
    if not finite.all():
        facts.problems.append(f"not finite: image: {np.size(array) - np.count_nonzero(finite)} voxels")
        return
    facts.image_content = _content(array)
    facts.intensity_min, facts.intensity_max = float(array.min()), float(array.max())
    if facts.intensity_min == facts.intensity_max:
        facts.problems.append(f"empty: image: every voxel is {facts.intensity_min:g}")


def _examine_label(label: Volume, facts: PairFacts) -> None:
    array = label.array
    facts.label_content = _content(array)
    values = np.unique(array)
    strange = np.setdiff1d(values, [BACKGROUND, ANTERIOR, POSTERIOR])
    if strange.size:
        listed = ", ".join(f"{value:g}" for value in strange[:5]) + (" ..." if strange.size > 5 else "")
        facts.problems.append(f"label values: {listed} beside 0, 1, 2")
        return
    for structure, value in (("anterior", ANTERIOR), ("posterior", POSTERIOR)):
        if value not in values:
            facts.problems.append(f"structure missing: no {structure} voxel")
    voxel_mm3 = abs(np.linalg.det(label.affine[:3, :3]))
    masks = {"anterior": array == ANTERIOR, "posterior": array == POSTERIOR, "total": array > 0}
    for structure, mask in masks.items():
        setattr(facts, f"{structure}_mm3", round(float(mask.sum() * voxel_mm3), 2))
        setattr(facts, f"{structure}_components", ndimage.label(mask, np.ones((3, 3, 3)))[1])  # corners connect
    if masks["anterior"].any() and masks["posterior"].any():
        facts.border_y, facts.border_misfits = border_plane(array)


def border_plane(label: np.ndarray) -> tuple[int, int]:
    """The coronal plane that best parts anterior from posterior in a RAS label [X, Y, Z].

    Returns the y index of the first slice in front of it, and how many voxels lie on its wrong side: none, if the
    border is that plane.
    """
    anterior = np.concatenate([[0], np.cumsum((label == ANTERIOR).sum(axis=(0, 2)))])  # of slices before y
    posterior = np.concatenate([[0], np.cumsum((label == POSTERIOR).sum(axis=(0, 2)))])
    misfits = anterior + posterior[-1] - posterior
    y = int(np.argmin(misfits))
    return y, int(misfits[y])


def _compare(image: Volume, label: Volume, facts: PairFacts) -> None:
    if image.orientation != label.orientation:
        facts.problems.append(f"affines differ: image stored as {image.orientation}, label as {label.orientation}")
    elif image.array.shape != label.array.shape:
        facts.problems.append(f"shapes differ: image {image.array.shape}, label {label.array.shape}")
    elif not np.allclose(image.affine, label.affine, atol=1e-3):
        facts.problems.append(f"affines differ: by up to {np.abs(image.affine - label.affine).max():g} mm")
    if facts.kept:
        facts.profiles = surface_profiles(image.array, label.array)


# --- one pair among the others ----------------------------------------------------------------------------------------


def robust_deviation(values: Sequence[float], floor: float) -> np.ndarray:
    """Distance from the median in standard deviations estimated by the MAD, of at least `floor` times the median.

    Leys et al., Journal of Experimental Social Psychology 49 (2013) 764-766.
    """
    values = np.asarray(values, dtype=float)
    median = np.median(values, axis=0)
    spread = MAD_TO_SD * np.median(np.abs(values - median), axis=0)
    return np.abs(values - median) / np.maximum(spread, floor * np.abs(median))


def judge(pairs: list[PairFacts]) -> None:
    """Add to each pair the problems and flags that show only beside the others."""
    _exclude_unlike(pairs)
    _exclude_duplicates(pairs)
    _flag(pairs)


def _exclude_unlike(pairs: list[PairFacts]) -> None:
    """Exclude what is stored, spaced or cut unlike the rest."""
    sound = [pair for pair in pairs if pair.kept]
    if len(sound) < MIN_PAIRS:
        return
    orientation, _ = Counter(pair.orientation for pair in sound).most_common(1)[0]
    for pair in sound:
        if pair.orientation != orientation:
            pair.problems.append(f"orientation unlike the rest: {pair.orientation}, usual is {orientation}")
    sizes = np.array([pair.shape for pair in sound]) * [pair.spacing_mm for pair in sound]
    spacings = np.array([pair.spacing_mm for pair in sound])
    for what, values, limit, floor in (
        ("spacing", spacings, FAR_SPACING, SPACING_FLOOR),
        ("size", sizes, FAR_SIZE, SIZE_FLOOR),
    ):
        usual = " x ".join(f"{value:g}" for value in np.median(values, axis=0))
        for pair, value, far in zip(sound, values, robust_deviation(values, floor) > limit, strict=True):
            if far.any():
                found = " x ".join(f"{v:g}" for v in value)
                pair.problems.append(f"{what} far from the rest: {found} mm, usual are {usual}")


def _exclude_duplicates(pairs: list[PairFacts]) -> None:
    """Of the same image under several names keep the first, or none where the labels contradict each other."""
    seen = sorted((pair for pair in pairs if pair.kept), key=lambda pair: (pair.image_content, pair.name))
    for _, group in groupby(seen, key=lambda pair: pair.image_content):
        first, *others = group
        agree = all(other.label_content == first.label_content for other in others)
        for other in others:
            other.problems.append(f"duplicate: same image as {first.name}" + ("" if agree else ", with another label"))
        if not agree:
            first.problems.append(f"duplicate: same image as {others[0].name}, with another label")


def _flag(pairs: list[PairFacts]) -> None:
    kept = [pair for pair in pairs if pair.kept]
    if not kept:
        return
    shifts = estimate_shifts(np.array([pair.profiles for pair in kept]), [pair.person for pair in kept])
    volumes = [(pair.anterior_mm3, pair.posterior_mm3, pair.total_mm3) for pair in kept]
    unusual = robust_deviation(volumes, VOLUME_FLOOR).max(axis=1) > FAR_VOLUME
    for pair, shift, strange in zip(kept, shifts, unusual, strict=True):
        pair.shift_voxels = None if np.isnan(shift).any() else tuple(round(float(s), 2) for s in shift)
        for flag, raised in (
            ("label_shifted", np.abs(shift).max() > FAR_SHIFT),
            ("unusual_volume", strange and len(kept) >= MIN_PAIRS),
            ("disconnected", max(pair.anterior_components, pair.posterior_components, pair.total_components) > 1),
            ("no_border_plane", pair.border_misfits > 0),
        ):
            if raised:
                pair.flags.append(flag)


# --- the set ----------------------------------------------------------------------------------------------------------


def find_folders(data_root: Path) -> tuple[Path, Path]:
    """The folders of images and of labels below `data_root`. Raises FileNotFoundError."""
    for sub, images, labels in LAYOUTS:
        if (data_root / sub / images).is_dir() and (data_root / sub / labels).is_dir():
            return data_root / sub / images, data_root / sub / labels
    raise FileNotFoundError(
        f"no images/ and labels/ (or imagesTr/ and labelsTr/) in {data_root} or its TrainingSet/; "
        "get the data with data/get_data.py or name its folder with --data-root"
    )


def curate(data_root: Path) -> list[PairFacts]:
    """Examine and judge all pairs below `data_root`, sorted by name. Raises FileNotFoundError where there are none.

    Hidden files are passed over: archives made on a Mac are full of them.
    """
    folders = find_folders(Path(data_root))
    found = [{path.name: path for path in folder.iterdir() if not path.name.startswith(".")} for folder in folders]
    names = sorted(set().union(*found))
    if not names:
        raise FileNotFoundError(f"no files in {folders[0]} and {folders[1]}")
    images, labels = ([files.get(name) for name in names] for files in found)
    if len(names) <= FEW:
        pairs = list(map(examine_pair, images, labels))
    else:  # fresh processes: forking one that runs threads, as a notebook does, may hang
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(-(-len(names) // CHUNK), os.cpu_count() or 1), mp_context=context) as pool:
            examined = pool.map(examine_pair, images, labels, chunksize=CHUNK)
            pairs = list(tqdm(examined, total=len(names), desc="examining", unit="pair", disable=None))
    judge(pairs)
    return pairs


def write_table(pairs: list[PairFacts], path: Path) -> None:
    """Write curation.csv: the same files give the same bytes, so its hash says what a model was trained on."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(pairs[0].row()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(pair.row() for pair in pairs)


def write_out(pairs: list[PairFacts], data_root: Path, out: Path) -> None:
    """Copy the kept pairs, verified, and the table to `out`, all or nothing; an earlier result there is replaced.

    Raises FileExistsError where `out` holds anything else, OSError where a copy differs from the file examined.
    """
    images, labels = find_folders(Path(data_root))
    _check_replaceable(out, images)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        for folder in ("images", "labels"):
            (new / folder).mkdir(parents=True)
        for pair in tqdm([pair for pair in pairs if pair.kept], desc="copying", unit="pair", disable=None):
            _copy_verified(images / pair.name, new / "images" / pair.name, pair.image_sha256)
            _copy_verified(labels / pair.name, new / "labels" / pair.name, pair.label_sha256)
        write_table(pairs, new / "curation.csv")
        if out.exists():
            out.rename(old)
        new.rename(out)


def _check_replaceable(out: Path, images: Path) -> None:
    """Never delete what this program did not write: not the data itself, not some folder of the user's."""
    # realpath: before Python 3.13 Path.resolve() raises RuntimeError where links go in circles.
    if Path(os.path.realpath(images)).is_relative_to(os.path.realpath(out)):
        raise FileExistsError(f"{out} holds the data that is to be curated; choose another --out")
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {"a file"}
    if names and ("curation.csv" not in names or names - {"curation.csv", "images", "labels"}):
        raise FileExistsError(f"{out} holds something else than an earlier result; choose another --out or empty it")


def _copy_verified(source: Path, target: Path, sha256: str) -> None:
    shutil.copyfile(source, target)
    if _sha256(target) != sha256:
        raise OSError(f"{source}: the copy differs from the file that was examined; run again")


def summary(pairs: list[PairFacts]) -> str:
    """The lines that the program ends with."""
    kept = [pair for pair in pairs if pair.kept]
    complete = sum(pair.files == "image+label" for pair in pairs)

    def counts(items: Iterable[str]) -> str:
        return ", ".join(f"{item} {count}" for item, count in Counter(items).most_common()) or "none"

    reasons = counts(problem.split(":")[0] for pair in pairs for problem in pair.problems[:1])
    return "\n".join(
        [
            *(f"excluded {pair.name}: {'; '.join(pair.problems)}" for pair in pairs if not pair.kept),
            f"{len(pairs)} names examined; {len(pairs) - len(kept)} excluded: {reasons}",
            f"flagged among the kept: {counts(flag for pair in kept for flag in pair.flags)}",
            f"{len(kept)} pairs of {len({pair.person for pair in kept})} persons kept, out of {complete} names with "
            f"image and label; expected of the complete Decathlon set: {DECATHLON_PAIRS} pairs",
        ]
    )


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--data-root", type=Path, default=default_data_root(), help="default: $HIPPO_DATA, else data/")
    result.add_argument("--out", type=Path, default=HERE / "out", help="default: out/ beside this program")
    return result


def default_data_root() -> Path:
    return Path(os.environ.get("HIPPO_DATA") or HERE.parent / "data")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what the terminal's encoding has not
    try:
        pairs = curate(arguments.data_root)
        if not any(pair.kept for pair in pairs):
            print(f"{summary(pairs)}\nno clean pair in {arguments.data_root}; nothing was written", file=sys.stderr)
            return 1
        write_out(pairs, arguments.data_root, arguments.out)
    except (OSError, BrokenProcessPool) as error:  # the second where memory runs out
        print(error, file=sys.stderr)
        return 1
    print(summary(pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
