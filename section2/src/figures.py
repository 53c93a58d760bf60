"""Figures of a run: what the network sees and finds, how it learned, how its volumes agree with the labels."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from config import Config

COLOURS = {"anterior": "#E69F00", "posterior": "#56B4E9"}  # told apart by colour-blind readers too
RGB = np.array([[0, 0, 0], [230, 159, 0], [86, 180, 233]], np.uint8)
ZOOM = 4


def grey(image: np.ndarray) -> np.ndarray:
    """[X, Y, Z] of any scale -> uint8, black and white at the 1 and 99.5 percentile."""
    low, high = np.percentile(image, (1, 99.5))
    return (255 * np.clip((image - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)


def upright(plane: np.ndarray) -> np.ndarray:
    """[first, second] of increasing coordinates -> a picture as on the clinic's page: the highest up and left."""
    return np.flip(plane.swapaxes(0, 1), axis=(0, 1))


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


def learning_curves(history: list[dict], config: Config, path: Path) -> None:
    """Losses and validation Dice of a run by epoch."""
    draw_histories([history], config, path)


def learning_curves_of_folds(tables: list[Path], config: Config, path: Path) -> None:
    """The same of all folds, out of their history.csv."""
    histories = []
    for table in tables:
        with table.open(newline="") as file:
            histories.append([{key: float(v) for key, v in row.items()} for row in csv.DictReader(file)])
    draw_histories(histories, config, path)


def training_title(config: Config) -> str:
    """What the training loss of such a run is of: which images, which terms."""
    terms = ["CE"]
    terms += [f"{config.dice_weight:g} Dice".removeprefix("1 ")] if config.dice_weight else []
    terms += ["CE to teachers"] if config.teachers else []
    return f"training ({'augmented' if config.augment else 'not augmented'}; {' + '.join(terms)})"


def draw_histories(histories: list[list[dict]], config: Config, path: Path) -> None:
    """Each run's curves thin, their mean thick; all have as many epochs."""
    figure = Figure(figsize=(11, 3.8))
    losses, dice = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in histories[0]]
    curves = [(losses, "train_loss", "0.2", training_title(config))]
    if "dice" in histories[0][0]:
        curves.append((losses, "validation_loss", "#CC79A7", "validation (CE)"))
        curves += [(dice, f"dice_{structure}", colour, structure) for structure, colour in COLOURS.items()]
    for panel, column, colour, label in curves:
        values = np.array([[row[column] for row in history] for history in histories])
        panel.plot(epochs, values.T, color=colour, alpha=0.35, linewidth=0.8)
        panel.plot(epochs, values.mean(axis=0), color=colour, label=f"{label}, ends at {values[:, -1].mean():.3f}")
        panel.legend(fontsize=9)
    for panel in (losses, dice):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    dice.set(xlabel="epoch", ylabel="validation Dice", ylim=(0.5, 1))
    losses.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    save(figure, path)


def bland_altman(scores: list[dict], path: Path) -> None:
    """Difference against mean of found and true volume, by structure, with bias, 95 % limits of agreement and trend.

    Bland and Altman, "Measuring agreement in method comparison studies", Stat. Methods Med. Res. 8:135-160, 1999.
    A falling trend means that small structures come out too large and large ones too small.
    """
    figure = Figure(figsize=(13, 4.4))
    panels = figure.subplots(1, 3, sharey=True)
    for panel, structure in zip(panels, ("anterior", "posterior", "whole"), strict=True):
        found, true = (np.array([s[structure][m] for s in scores]) for m in ("volume_mm3", "true_volume_mm3"))
        mean, difference = (found + true) / 2, found - true
        bias, spread = difference.mean(), 1.96 * difference.std(ddof=1) if len(scores) > 1 else 0.0
        panel.scatter(mean, difference, s=14, color=COLOURS.get(structure, "0.3"), alpha=0.8)
        panel.axhline(0, color="0.8", linewidth=1, zorder=0)
        for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            panel.axhline(level, color="0.2", linestyle=style, linewidth=1)
            panel.text(1.01, level, f"{level:+.0f}", transform=panel.get_yaxis_transform(), fontsize=8, va="center")
        percent = np.nanmean([s[structure]["volume_error_percent"] for s in scores])
        title = f"{structure}: bias {bias:+.0f} mm³ ({percent:+.1f} %), 95 % limits ± {spread:.0f}"
        if len(set(mean)) > 1:
            slope, height = np.polyfit(mean, difference, 1)
            ends = np.array([mean.min(), mean.max()])
            panel.plot(ends, slope * ends + height, color="0.2", linestyle=":", linewidth=1.5)
            title += f"\ntrend {100 * slope:+.0f} mm³ for each 100 mm³ more (dotted)"
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("mean of model and label, mm³")
    panels[0].set_ylabel(f"model minus label, mm³ (n = {len(scores)})")
    save(figure, path)


def dice_by_volume(scores: list[dict], path: Path) -> None:
    """Every volume's Dice of both structures: from worst to best, and against the size of the label."""
    figure = Figure(figsize=(13, 4))
    ranked, sized = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    order = np.argsort([s["anterior"]["dice"] + s["posterior"]["dice"] for s in scores])
    for structure, colour in COLOURS.items():
        values = np.array([s[structure]["dice"] for s in scores])
        ranked.plot(values[order], "o", markersize=4, color=colour, label=f"{structure}, mean {values.mean():.3f}")
        ranked.axhline(values.mean(), color=colour, linewidth=1)
        sized.plot([s[structure]["true_volume_mm3"] for s in scores], values, "o", markersize=4, color=colour)
    ranked.set(xlabel="held-out volumes, worst to best", ylabel="Dice")
    ranked.legend(loc="lower right")
    sized.set(xlabel="volume of the structure's label, mm³")
    figure.tight_layout()
    save(figure, path)
