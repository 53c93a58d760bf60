"""Why a model and a label differ: is one moved against the other, is the border placed elsewhere? Numbers and pictures.

Volumes are RAS at 1 mm, so that a voxel is a millimetre. Pictures are turned as those of the clinic's page: superior is
up, anterior left in a sagittal one, the highest x left in a coronal one.
"""

from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from figures import grey, richest_slice, save
from hippocampus_data import Case
from volume_stats import STRUCTURES

REACH = 2  # mm that a label is moved at most; those known to lie beside their image are off by one
LABEL, MODEL, SWAPPED = "#F0E442", "#E83F9B", "#00C4A7"
VIEW_MM = {"sagittal": (60, 36), "coronal": (40, 36)}  # shows any hippocampus of the set with its surroundings


def border_position(labels: np.ndarray) -> float:
    """Where anterior meets posterior, in mm along y: the mean over the faces between them; NaN without any.

    `labels` [X, Y, Z] (0, 1 anterior, 2 posterior). In most labels the border is one exact coronal plane.
    """
    faces = (labels[:, 1:] == 1) & (labels[:, :-1] == 2)
    return float(np.nonzero(faces)[1].mean()) if faces.any() else float("nan")


def best_shift(found: np.ndarray, true: np.ndarray) -> tuple[tuple[int, int, int], float]:
    """The move of the label `true` [X, Y, Z] by -REACH..REACH an axis that gives the highest Dice, and that Dice.

    Any label counts against any label; of equal moves the shortest is given.
    """
    found = np.pad(found > 0, REACH)
    voxels = np.argwhere(true > 0) + REACH
    total = np.count_nonzero(found) + len(voxels)
    moves = sorted(product(range(-REACH, REACH + 1), repeat=3), key=lambda move: sum(step**2 for step in move))
    shared = [np.count_nonzero(found[tuple((voxels + move).T)]) for move in moves]
    best = int(np.argmax(shared))
    return moves[best], 2 * shared[best] / total if total else 1.0


def account(score: dict, found: np.ndarray, true: np.ndarray) -> str:
    """What sets model and label apart: Dice, volume, place of the border, best move of the label."""
    whole, offset = score["whole"], border_position(found) - border_position(true)
    move, dice = best_shift(found, true)
    steps = ", ".join(f"{axis} {step:+d}" for axis, step in zip("xyz", move, strict=True) if step)
    lines = [
        score["name"].split(".nii")[0],
        "Dice: " + ", ".join(f"{structure} {score[structure]['dice']:.3f}" for structure in STRUCTURES),
        f"volume: {whole['volume_mm3']:.0f} mm³, {whole['volume_error_percent']:+.1f} % of the label's",
        f"border: {offset:+.1f} mm from the label's (+ in front)",
        f"label moved by {steps} mm: whole Dice {dice:.3f}" if steps else "label moved: fits nowhere better",
    ]
    return "\n".join(lines)


def outline(axis: Axes, mask: np.ndarray, colour: str) -> None:
    """The edge of a mask [first, second] along the sides of its voxels."""
    if mask.any():
        fine = ndimage.zoom(np.pad(mask, 1).T.astype(float), 8, order=0, grid_mode=True, mode="grid-constant")
        rows, columns = (np.arange(size) / 8 - 1.5 + 1 / 16 for size in fine.shape)
        axis.contour(columns, rows, fine, [0.5], colors=colour, linewidths=1.2)


def draw_outlines(axis: Axes, found: np.ndarray, true: np.ndarray) -> None:
    """Outlines of model and label on a plane [first, second]; what is only in one of them is tinted."""
    tint = np.zeros((*true.shape, 4))
    tint[(true > 0) & (found == 0)] = to_rgba(LABEL, 0.5)
    tint[(true == 0) & (found > 0)] = to_rgba(MODEL, 0.5)
    tint[(true > 0) & (found > 0) & (true != found)] = to_rgba(SWAPPED, 0.5)
    axis.imshow(tint.swapaxes(0, 1), origin="lower", interpolation="nearest")
    for mask, colour in ((true, LABEL), (found, MODEL)):
        for structure in (1, 2):
            outline(axis, mask == structure, colour)


def draw_case(axes: list[Axes], image: np.ndarray, found: np.ndarray, true: np.ndarray) -> None:
    """The richest sagittal slice, plain and outlined, and a coronal one through each structure, all to one scale."""
    x = int((true > 0).sum(axis=(1, 2)).argmax())
    planes = [(x,), (x,), *((slice(None), richest_slice(true, structure)) for structure in (2, 1))]
    for axis, where, view in zip(axes, planes, ("sagittal", "sagittal", "coronal", "coronal"), strict=True):
        axis.imshow(grey(image)[where].T, cmap="gray", vmin=0, vmax=255, origin="lower", interpolation="nearest")
        if axis is not axes[0]:
            draw_outlines(axis, found[where], true[where])
        shown = np.nonzero((true[where] > 0) | (found[where] > 0))
        (back, front), (low, high) = (
            np.array([-0.5, 0.5]) * size + ((e.min() + e.max()) / 2 if e.size else size / 2)
            for e, size in zip(shown, VIEW_MM[view], strict=True)
        )
        axis.set(xlim=(front, back), ylim=(low, high), facecolor="0.85", xticks=[], yticks=[])


def best_and_worst(cases: list[Case], scores: list[dict], labels: list[np.ndarray], path: Path, count: int = 3) -> None:
    """The `count` worst and best held-out cases by whole Dice, each with its account."""
    order = np.argsort([s["whole"]["dice"] for s in scores])
    chosen = [*order[:count], *order[-count:][::-1]] if len(order) >= 2 * count else list(order)
    figure = Figure(figsize=(15, 0.6 + 2.3 * len(chosen)))
    widths = [VIEW_MM[view][0] for view in ("sagittal", "sagittal", "coronal", "coronal")]
    rows = figure.subplots(len(chosen), 5, squeeze=False, width_ratios=[*widths, 60])
    for (*axes, words), n in zip(rows, chosen, strict=True):
        draw_case(axes, cases[n].image, labels[n], cases[n].labels)
        words.text(0, 0.5, account(scores[n], labels[n], cases[n].labels), transform=words.transAxes, va="center")
        words.set_axis_off()
    for axis, title in zip(rows[0], ("sagittal, anterior left", "", "posterior", "anterior"), strict=False):
        axis.set_title(title, fontsize=10)
    meaning = {LABEL: "label", MODEL: "model", SWAPPED: "in both, as another structure"}
    figure.legend(
        handles=[Patch(color=c, label=m) for c, m in meaning.items()],
        loc="upper center",
        ncols=3,
        title="the worst cases first, then the best",
    )
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.9 / figure.get_figheight(), wspace=0.03, hspace=0.05)
    save(figure, path)
