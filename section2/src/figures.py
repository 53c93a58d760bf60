"""Figures of a run: what the network sees and finds, how it learned, how its volumes agree with the labels."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

COLOURS = {"anterior": "#E69F00", "posterior": "#56B4E9"}  # told apart by colour-blind readers too
RGB = np.array([[0, 0, 0], [230, 159, 0], [86, 180, 233]], np.uint8)
ZOOM = 4


def grey(image: np.ndarray) -> np.ndarray:
    """[X, Y, Z] of any scale -> uint8, black and white at the 1 and 99.5 percentile."""
    low, high = np.percentile(image, (1, 99.5))
    return (255 * np.clip((image - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)


def upright(plane: np.ndarray) -> np.ndarray:
    """[first, second] of increasing coordinates -> rows from the top down, as a reader expects."""
    return np.flip(plane.swapaxes(0, 1), axis=0)


def richest_slice(labels: np.ndarray, structure: int) -> int:
    """The coronal slice with most of a structure; the middle one where there is none."""
    areas = (labels == structure).sum(axis=(0, 2))
    return int(areas.argmax()) if areas.any() else labels.shape[1] // 2


def case_strip(image: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Two coronal slices, each as image | truth | prediction | probability of any structure: [H, W, 3] uint8."""
    found = probabilities.argmax(axis=0)
    rows = []
    for structure in (1, 2):
        y = richest_slice(labels, structure)
        plain = np.repeat(grey(image)[:, y, :, None], 3, axis=2)
        painted = [np.where((m[:, y] > 0)[..., None], (plain // 2 + RGB[m[:, y]] // 2), plain) for m in (labels, found)]
        sure = np.repeat((255 * (1 - probabilities[0, :, y])).astype(np.uint8)[..., None], 3, axis=2)
        rows.append(np.concatenate([upright(panel) for panel in (plain, *painted, sure)], axis=1))
    return np.concatenate(rows).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, bbox_inches="tight")


def learning_curves(history: list[dict], path: Path) -> None:
    """Losses and validation Dice by epoch."""
    figure = Figure(figsize=(10, 3.6))
    losses, dice = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    losses.plot(epochs, [row["train_loss"] for row in history], color="0.2", label="training (augmented; CE + Dice)")
    if "dice" in history[0]:
        losses.plot(epochs, [row["validation_loss"] for row in history], color="#CC79A7", label="validation (CE)")
        for structure, colour in COLOURS.items():
            dice.plot(epochs, [row[f"dice_{structure}"] for row in history], color=colour, label=structure)
        dice.legend(loc="lower right")
    dice.set(xlabel="epoch", ylabel="validation Dice", ylim=(0.5, 1))
    losses.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    losses.legend()
    save(figure, path)


def bland_altman(scores: list[dict], path: Path) -> None:
    """Difference against mean of found and true volume, by structure, with bias and 95 % limits of agreement."""
    figure = Figure(figsize=(13, 4))
    panels = figure.subplots(1, 3)
    for panel, structure in zip(panels, ("anterior", "posterior", "whole"), strict=True):
        found, true = (np.array([s[structure][m] for s in scores]) for m in ("volume_mm3", "true_volume_mm3"))
        difference = found - true
        bias, spread = difference.mean(), 1.96 * difference.std(ddof=1) if len(scores) > 1 else 0.0
        panel.scatter((found + true) / 2, difference, s=14, color=COLOURS.get(structure, "0.3"), alpha=0.8)
        for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            panel.axhline(level, color="0.2", linestyle=style, linewidth=1)
        panel.axhline(0, color="0.8", linewidth=1, zorder=0)
        panel.set_title(f"{structure}: {bias:+.0f} mm³, limits ± {spread:.0f} mm³ (n = {len(scores)})", fontsize=10)
        panel.set_xlabel("mean of model and label, mm³")
    panels[0].set_ylabel("model minus label, mm³")
    save(figure, path)


def dice_by_volume(scores: list[dict], path: Path) -> None:
    """Every volume's Dice of both structures, from worst to best."""
    figure = Figure(figsize=(10, 3.6))
    panel = figure.subplots()
    order = np.argsort([s["anterior"]["dice"] + s["posterior"]["dice"] for s in scores])
    for structure, colour in COLOURS.items():
        values = np.array([s[structure]["dice"] for s in scores])
        panel.plot(values[order], "o", markersize=4, color=colour, label=f"{structure}, mean {values.mean():.3f}")
        panel.axhline(values.mean(), color=colour, linewidth=1)
    panel.set(xlabel="held-out volumes, worst to best", ylabel="Dice")
    panel.legend(loc="lower right")
    save(figure, path)


def draw_case(axes: list[Axes], image: np.ndarray, labels: np.ndarray, found: np.ndarray, title: str) -> None:
    """Label (dashed) and model (solid) on a coronal slice through each structure and on the richest sagittal one."""
    x = int((labels > 0).sum(axis=(1, 2)).argmax())
    planes = [(slice(None), richest_slice(labels, 1)), (slice(None), richest_slice(labels, 2)), (x,)]
    for axis, where in zip(axes, planes, strict=True):
        axis.imshow(grey(image)[where].T, cmap="gray", origin="lower", interpolation="nearest")
        for mask, style in ((labels, "--"), (found, "-")):
            for value, colour in enumerate(COLOURS.values(), start=1):
                inside = (mask[where] == value).T.astype(float)
                if inside.any():
                    smooth = ndimage.zoom(np.pad(inside, 1), 8, order=0, grid_mode=True, mode="grid-constant")
                    edge = np.arange(smooth.shape[0]) / 8 - 1.5 + 1 / 16, np.arange(smooth.shape[1]) / 8 - 1.5 + 1 / 16
                    axis.contour(edge[1], edge[0], smooth, [0.5], colors=colour, linestyles=style, linewidths=1.3)
        width, height = image[where].shape
        axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5))
    axes[0].set_title(title, fontsize=9, loc="left")


def best_and_worst(cases: list, scores: list[dict], labels: list[np.ndarray], path: Path, count: int = 3) -> None:
    """The `count` worst and best held-out cases by whole Dice."""
    order = np.argsort([s["whole"]["dice"] for s in scores])
    chosen = [*order[:count], *order[-count:][::-1]] if len(order) >= 2 * count else list(order)
    figure = Figure(figsize=(9, 2.6 * len(chosen)))
    rows = figure.subplots(len(chosen), 3, squeeze=False)
    for axes, n in zip(rows, chosen, strict=True):
        dice = ", ".join(f"{s} {scores[n][s]['dice']:.3f}" for s in ("anterior", "posterior", "whole"))
        draw_case(axes, cases[n].image, cases[n].labels, labels[n], f"{cases[n].name}: Dice {dice}")
    figure.suptitle("label dashed, model solid; coronal through each structure, sagittal", fontsize=9, y=0.995)
    figure.tight_layout()
    save(figure, path)
