"""How well hippocampi are found and measured in whole heads, and what is refused: the tables of section2/out/heads.md.

    python score_heads.py HEADS [--model-path FILE] [--localiser FILE]

HEADS has a folder for each set of images (NIfTI). Where NAME_labels.nii.gz lies beside an image, its labels 48 and 47
are the left and right hippocampus. Prints, in Markdown: each head with its checks; for each set with labels how far off
the crops are and how alike the masks; the differences between repeated scans; and of the heads with labels at 1 mm what
coarser voxels, a turned head and a mirrored one change, whether or not such a head would be refused.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import clinic_environment  # noqa: F401  before anything that may be missing
from common.refusal import Stop
from common.shipped import DEFAULT_LOCALISER, DEFAULT_MODEL
from common.stopwatch import Stopwatch
from common.verdicts import failed, not_passed
from common.volume import Grid, Volume
from crops_of_heads import LABELS_ENDING, head_images
from measuring.hippocrop import CROP, LEFT, RIGHT, SIDES, Localiser, crop_grid
from measuring.measure_head import MeasuredHead, cut, measure_head
from measuring.unet_inference_agent import UNetInferenceAgent
from reading.nifti_head import read_head

LABEL_OF = {LEFT: 48, RIGHT: 47}
SAME_PERSON = "rescan"  # the set with two scans of one person
SPACINGS = ((1.2, 1.2, 1.2), (1.5, 1.5, 1.5), (2, 2, 2), (1, 1, 1.5), (1, 1, 2), (1, 1, 3))
TURNS = (("x", 10), ("y", 10), ("z", 10), ("x", 30), ("y", 30), ("z", 30))
MIRRORED = "mirrored, sides exchanged"
BLUR = 0.42  # standard deviation of a slice's profile, as a share of its width


@dataclass
class Scored:
    """One image: what was measured, and by side what the labels say of it."""

    name: str
    measured: MeasuredHead | None
    reason: str
    seconds: float
    dice: dict[str, float] = field(default_factory=dict)
    off: dict[str, float] = field(default_factory=dict)  # mm from the middle of the label
    outside: int = 0  # voxels of the labels that lie outside of the crops

    @property
    def totals(self) -> dict[str, float]:
        if not self.measured:
            return {}
        return {one.side: one.volumes_mm3["total"] for one in self.measured.hippocampi if one.volumes_mm3}


class Scorer:
    def __init__(self, localiser: Localiser, agent: UNetInferenceAgent):
        self.localiser, self.agent = localiser, agent

    def score(self, name: str, head: Volume, labels: np.ndarray | None = None) -> Scored:
        begin = time.process_time()
        try:
            measured = measure_head(head, self.localiser, self.agent, Stopwatch())
        except Stop as stop:
            return Scored(name, None, str(stop), time.process_time() - begin)
        reasons = [measured.refusal, *(one.refusal for one in measured.hippocampi)]
        reason = next((str(one) for one in reasons if one), "")
        scored = Scored(name, measured, reason, time.process_time() - begin)
        if labels is not None:
            self._compare(scored, head, labels)
        return scored

    def totals(self, head: Volume) -> dict[str, float]:
        """In mm3 by side, whatever the checks say."""
        found = {}
        for side in SIDES:
            grid = crop_grid(self.localiser.find(head), side)
            probabilities = self.agent.single_volume_inference(cut(head, grid))
            found[side] = float(np.count_nonzero(probabilities.argmax(axis=0)))  # of 1 mm3
        return found

    def _compare(self, scored: Scored, head: Volume, labels: np.ndarray) -> None:
        place = scored.measured.place
        for side in SIDES:
            index = np.argwhere(labels == LABEL_OF[side])
            mm = index @ head.grid.affine[:3, :3].T + head.grid.affine[:3, 3]
            back = np.linalg.inv(crop_grid(place, side).affine)
            in_crop = mm @ back[:3, :3].T + back[:3, 3]
            scored.off[side] = float(np.linalg.norm(place.middles[side] - mm.mean(0)))
            scored.outside += int(((in_crop < -0.5) | (in_crop > np.array(CROP) - 0.5)).any(1).sum())
        for one in scored.measured.hippocampi:
            if one.labels is not None:
                found = np.zeros(labels.shape, bool)
                found[one.box] = one.labels > 0
                true = labels == LABEL_OF[one.side]
                scored.dice[one.side] = float(2 * (found & true).sum() / (found.sum() + true.sum()))


def heads_in(folder: Path) -> Iterator[tuple[str, Volume | Stop, np.ndarray | None]]:
    for path in head_images(folder):
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        beside = path.with_name(name + LABELS_ENDING)
        try:
            head = read_head(path).volume
            labels = np.round(read_head(beside).volume.voxels).astype(int) if beside.exists() else None
        except Stop as stop:
            head, labels = stop, None
        yield name, head, labels


def resampled(head: Volume, spacing: tuple[float, ...], turn: tuple[str, float] = ("x", 0)) -> Volume:
    """As a scanner with such voxels would have seen the head, had it been turned about its middle."""
    widths = np.array(spacing) / head.grid.spacing
    blurred = gaussian_filter(head.voxels, np.where(widths > 1.01, BLUR * np.sqrt(np.maximum(widths**2 - 1, 0)), 0))
    middle = head.grid.affine @ [*(np.array(head.grid.shape) - 1) / 2, 1]
    shape = np.ceil((head.grid.extent + (24 if turn[1] else 0)) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ (shape - 1) / 2
    rotation = np.eye(4)
    rotation[:3, :3] = Rotation.from_euler(*turn, degrees=True).as_matrix()
    rotation[:3, 3] = middle[:3] - rotation[:3, :3] @ middle[:3]
    to_head = np.linalg.inv(head.grid.affine) @ np.linalg.inv(rotation) @ affine
    voxels = affine_transform(blurred, to_head, output_shape=tuple(shape), order=3, output=np.float32)
    return Volume(voxels, Grid(tuple(shape.tolist()), affine))


def mirrored(head: Volume) -> Volume:
    affine = head.grid.affine.copy()
    affine[:3] = np.diag([-1, 1, 1]) @ affine[:3]
    affine[:3, 3] += affine[:3, 0] * (head.grid.shape[0] - 1)
    affine[:3, 0] *= -1
    return Volume(head.voxels[::-1].copy(), Grid(head.grid.shape, affine))


def row_of(one: Scored) -> str:
    checks = {check.name: check for check in one.measured.checks} if one.measured else {}
    cells = [one.name, *(f"{checks[name].value:.3g}" if name in checks else "" for name in HEAD_COLUMNS)]
    for side in SIDES:
        found = [h for h in one.measured.hippocampi if h.side == side] if one.measured else []
        confidence = {check.name: check.value for h in found for check in h.checks}.get("confidence")
        cells += [f"{one.totals[side]:.0f}" if side in one.totals else "-", f"{confidence:.3f}" if confidence else ""]
        cells += [
            f"{one.dice[side]:.3f}" if side in one.dice else "",
            f"{one.off[side]:.1f}" if side in one.off else "",
        ]
    told = one.reason.rpartition("[")[2].rstrip("]") if one.reason else _warned(one.measured)
    return "| " + " | ".join([*cells, f"{one.seconds:.1f}", told]) + " |"


HEAD_COLUMNS = ("voxel_size", "brain", "residual", "size", "apart", "turned")


def _warned(measured: MeasuredHead) -> str:
    checks = [*measured.checks, *(check for one in measured.hippocampi for check in one.checks)]
    return ", ".join(sorted({check.name for check in not_passed(checks) if check not in failed(checks)}))


def print_set(name: str, scored: list[Scored]) -> None:
    sides = [f"{side} mm3 | confidence | Dice | mm off" for side in SIDES]
    heads = [
        "head",
        "voxel mm",
        "brain ml",
        "residual mm",
        "size",
        "apart mm",
        "turned",
        *sides,
        "CPU s",
        "refused, or warned",
    ]
    line = " | ".join(heads)
    print(f"\n### {name}\n\n| {line} |\n|{'---|' * (line.count('|') + 1)}")
    for one in scored:
        print(row_of(one))
    for side in SIDES:
        if dice := [one.dice[side] for one in scored if side in one.dice]:
            print(f"\n{side}: Dice {np.mean(dice):.3f} +- {np.std(dice):.3f}, least {min(dice):.3f} (n = {len(dice)})")
    if off := [value for one in scored for value in one.off.values()]:
        outside = sum(one.outside for one in scored)
        print(
            f"\nmiddles {np.mean(off):.1f} mm off, at most {max(off):.1f}; voxels of labels outside of crops: {outside}"
        )


def changed(head: Volume) -> Iterator[tuple[str, Volume]]:
    for spacing in SPACINGS:
        yield f"{' x '.join(f'{side:g}' for side in spacing)} mm", resampled(head, spacing)
    for axis, degrees in TURNS:
        yield f"turned {degrees} degrees about {axis}", resampled(head, (1, 1, 1), (axis, degrees))
    yield MIRRORED, mirrored(head)


def print_changes(scorer: Scorer, heads: list[tuple[str, Volume]]) -> None:
    """What other grids and poses of the same heads change."""
    percent: dict[str, list[float]] = {}
    for _, head in heads:
        own = scorer.totals(head)
        for change, other in changed(head):
            found = scorer.totals(other)
            if change == MIRRORED:
                found = {LEFT: found[RIGHT], RIGHT: found[LEFT]}
            percent.setdefault(change, []).extend(100 * (found[side] / own[side] - 1) for side in SIDES)
    print(f"\n### {len(heads)} heads on other grids and in other poses: the total volume of a side, in %\n")
    print("| | mean | mean absolute | largest |\n|---|---|---|---|")
    for change, values in percent.items():
        size = np.abs(values)
        print(f"| {change} | {np.mean(values):+.1f} | {size.mean():.1f} | {size.max():.1f} |")


def print_rescan(scored: list[Scored]) -> None:
    first, second = (one.totals for one in scored)
    for side in SIDES:
        difference = 100 * abs(first[side] - second[side]) / ((first[side] + second[side]) / 2)
        print(f"\nrepeated scan, {side}: {first[side]:.0f} and {second[side]:.0f} mm3, {difference:.1f} % apart")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How well hippocampi are found and measured in whole heads.")
    parser.add_argument("heads", type=Path, metavar="HEADS", help="with a folder for each set of images")
    parser.add_argument("--model-path", type=Path, default=DEFAULT_MODEL, metavar="FILE", help="the exported model")
    parser.add_argument(
        "--localiser", type=Path, default=DEFAULT_LOCALISER, metavar="FILE", help="the exported localiser"
    )
    args = parser.parse_args(argv)
    scorer = Scorer(Localiser(args.localiser), UNetInferenceAgent(args.model_path))
    fine = []
    for folder in sorted(one for one in args.heads.iterdir() if one.is_dir()):
        scored = []
        for name, head, labels in heads_in(folder):
            scored.append(
                Scored(name, None, str(head), 0) if isinstance(head, Stop) else scorer.score(name, head, labels)
            )
            if labels is not None and not isinstance(head, Stop) and max(head.grid.spacing) <= 1.05:
                fine.append((name, head))
        if scored:
            print_set(folder.name, scored)
        if folder.name == SAME_PERSON and len(scored) == 2:
            print_rescan(scored)
    if fine:
        print_changes(scorer, fine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
