"""The pictures of EDA.ipynb. Each function draws and shows one figure; eda_measures.py does the measuring."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from curation import ANTERIOR, POSTERIOR, PairFacts, find_folders, load_ras
from eda_measures import (
    HALF,
    Case,
    bounding_box,
    mean_image,
    mean_label,
    mirror_correlations,
    neighbour_correlations,
    normalise,
    pooled,
)

COLOURS = {"anterior": "#ff8c1a", "posterior": "#1fb6d1", "total": "#7a7a7a"}
ACCENTS = ("#4a5a8c", "#b2448c")  # for what is no structure
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis that a plane cuts across
AXES = ("x", "y (to the front)", "z (up)")

plt.rcParams.update(
    {
        "figure.dpi": 110,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "legend.frameon": False,
        "image.cmap": "gray",
        "image.interpolation": "nearest",
    }
)


# --- slices --------------------------------------------------------------------------------------------------------


def outline(mask: np.ndarray) -> list[list[tuple[float, float]]]:
    """The edges between voxels inside and outside of a mask [columns, rows], as segments in voxel coordinates."""
    padded = np.pad(mask, 1)
    upright = [[(c - 0.5, r - 1.5), (c - 0.5, r - 0.5)] for c, r in np.argwhere(padded[1:] != padded[:-1])]
    level = [[(c - 1.5, r - 0.5), (c - 0.5, r - 0.5)] for c, r in np.argwhere(padded[:, 1:] != padded[:, :-1])]
    return upright + level


def draw_slice(
    ax: plt.Axes,
    image: np.ndarray,
    label: np.ndarray | None,
    plane: str,
    index: int,
    spacing: Sequence[float] = (1, 1, 1),
    **style: object,
) -> None:
    """Draw one slice of an image [X, Y, Z] and the outlines of its label on it, in the voxels' own proportions.

    As on the clinic's page: superior is up, anterior is left in a sagittal slice and up in an axial one, x grows to
    the left.
    """
    axis = PLANES[plane]
    across, up = (s for i, s in enumerate(spacing) if i != axis)
    ax.imshow(np.take(image, index, axis).T, origin="lower", aspect=up / across, **style)
    ax.invert_xaxis()
    if label is not None:
        cut = np.take(label, index, axis)
        for structure, value in (("posterior", POSTERIOR), ("anterior", ANTERIOR)):
            ax.add_collection(LineCollection(outline(cut == value), colors=COLOURS[structure], linewidths=1.4))
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def window(image: np.ndarray) -> dict[str, float]:
    """The grey range to show an image in."""
    low, high = np.percentile(image, [0.5, 99.5])
    return {"vmin": low, "vmax": high}


def structure_legend(figure: plt.Figure) -> None:
    lines = [Line2D([], [], color=COLOURS[name], linewidth=2, label=name) for name in ("anterior", "posterior")]
    figure.legend(handles=lines, loc="outside lower center", ncols=2)


def planes(case: Case) -> None:
    """One case in three planes through its border between anterior and posterior, without and with its label."""
    middle = np.add(*bounding_box(case.label)) // 2
    middle[1] = case.facts.border_y
    x, y, _ = case.image.shape * case.spacing
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.8), layout="constrained", width_ratios=(y, x, x))
    for column, (plane, axis) in enumerate(PLANES.items()):
        for ax, label in zip(axes[:, column], (None, case.label), strict=True):
            draw_slice(ax, case.image, label, plane, middle[axis], case.spacing, **window(case.image))
        axes[0, column].set_title(f"{plane}, {AXES[axis][0]} = {middle[axis]}")
        across, up = (name for i, name in enumerate(AXES) if i != axis)
        axes[1, column].set_xlabel(f"← {across}")
        axes[1, column].set_ylabel(f"{up} →")
    figure.suptitle(case.title)
    structure_legend(figure)
    plt.show()


def montage(case: Case) -> None:
    """Coronal slices from the tail to the head."""
    first, last = bounding_box(case.label)
    figure, axes = plt.subplots(2, 6, figsize=(9, 3.5), layout="constrained")
    for ax, y in zip(axes.flat, np.linspace(first[1] + 1, last[1] - 1, axes.size).round().astype(int), strict=True):
        draw_slice(ax, case.image, case.label, "coronal", y, case.spacing, **window(case.image))
        ax.set_title(f"y = {y}", fontsize=8)
    structure_legend(figure)
    plt.show()


def gallery(cases: list[Case]) -> None:
    """Sagittal slices of up to twelve cases of all sizes, from the smallest hippocampus to the largest."""
    if not cases:
        print("none")
        return
    by_size = sorted(cases, key=lambda case: case.facts.total_mm3)
    chosen = [by_size[i] for i in np.linspace(0, len(by_size) - 1, min(12, len(by_size))).round().astype(int)]
    rows = -(-len(chosen) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(9, 2.0 * rows), layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, case in zip(axes.flat, chosen, strict=False):
        x = int(np.argmax((case.label > 0).sum(axis=(1, 2))))
        draw_slice(ax, case.image, case.label, "sagittal", x, case.spacing, **window(case.image))
        ax.set_title(f"{case.title[-3:]}: {case.facts.total_mm3:.0f} mm³", fontsize=8)
    structure_legend(figure)
    plt.show()


# --- surfaces ------------------------------------------------------------------------------------------------------


def render(case: Case, turn: float, tilt: float) -> np.ndarray:
    """A shaded picture [rows, columns, 3] of the label's surface.

    The eye looks from the front, then is turned and raised by degrees. Rays are cast through the smoothed label; a lamp
    to the left of and above the eye lights the surface by its normal.
    """
    structures = [gaussian_filter((case.label == value).astype(np.float32), 0.7) for value in (ANTERIOR, POSTERIOR)]
    field = structures[0] + structures[1]
    to_ras = Rotation.from_euler("xz", [tilt, turn], degrees=True).as_matrix()
    across, upward, inward = np.arange(-27, 27, 0.25), np.arange(20, -20, -0.25), np.arange(-32, 32, 0.5)  # mm
    right, up, depth = np.meshgrid(across, upward, inward)  # [rows, columns, depths]
    rays = np.stack([-right, -depth, up])  # who faces a person sees the person's right on the left
    rays = np.tensordot(to_ras, rays, 1) / case.spacing[:, None, None, None]
    rays += np.add(*bounding_box(case.label))[:, None, None, None] / 2  # voxels

    inside = map_coordinates(field, rays, order=1) > 0.5
    first = inside.argmax(axis=2)[None, :, :, None]
    where = np.take_along_axis(rays, first, axis=3)[..., 0]  # [3, rows, columns]
    normal = -np.stack([map_coordinates(slope, where, order=1) for slope in np.gradient(gaussian_filter(field, 0.5))])
    normal /= np.linalg.norm(normal, axis=0) + 1e-9
    lamp = to_ras @ np.array([0.45, 0.75, 0.49])
    shade = 0.28 + 0.8 * np.clip(np.tensordot(lamp, normal, 1), 0, 1)
    anterior, posterior = (map_coordinates(structure, where, order=1) for structure in structures)
    colour = np.where((anterior > posterior)[..., None], to_rgb(COLOURS["anterior"]), to_rgb(COLOURS["posterior"]))
    return np.where(inside.any(axis=2)[..., None], np.clip(colour * shade[..., None], 0, 1), 1.0)


def surface(case: Case) -> None:
    """The label in space, from three sides."""
    views = {"from the front": (0, 0), "from the side": (90, 0), "from the side and above": (50, 40)}
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained")
    for ax, (title, (turn, tilt)) in zip(axes, views.items(), strict=True):
        ax.imshow(render(case, turn, tilt), interpolation="bilinear")
        ax.set_title(title)
        ax.axis("off")
    structure_legend(figure)
    plt.show()


# --- the set -------------------------------------------------------------------------------------------------------


def misfits(pairs: list[PairFacts], cases: list[Case], data_root: Path) -> None:
    """The first excluded files that can be read, beside a kept case; black where there is no image."""
    folders = dict(zip(("image", "label"), find_folders(Path(data_root)), strict=True))
    shown = [(f"{cases[0].title}: kept", cases[0].image, cases[0].label, cases[0].spacing)]
    for pair in pairs:
        if not pair.kept and pair.shape:
            found = {kind: load_ras(folders[kind] / pair.name).array for kind in pair.files.split("+")}
            grey = found.get("image", np.zeros(pair.shape))
            label = found.get("label")
            shown.append((f"{pair.name.split('.')[0]}: {pair.problems[0]}", grey, label, pair.spacing_mm))
    shown = shown[:4]
    _, axes = plt.subplots(1, len(shown), figsize=(2.4 * len(shown), 3), squeeze=False, layout="constrained")
    for ax, (title, grey, label, spacing) in zip(axes[0], shown, strict=True):
        z = grey.shape[2] // 2 if label is None else int(np.argmax((label > 0).sum(axis=(0, 1))))
        draw_slice(ax, grey, label, "axial", z, spacing, **window(grey))
        extent = " x ".join(f"{n * s:.0f}" for n, s in zip(grey.shape, spacing, strict=True))
        ax.set_title(title.replace(": ", "\n"), fontsize=8)
        ax.set_xlabel(f"{extent} mm", fontsize=8)
    plt.show()


def volumes(cases: list[Case]) -> None:
    """Distribution of the volumes of each structure."""
    _, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
    for ax, structure in zip(axes, COLOURS, strict=True):
        values = np.array([getattr(case.facts, f"{structure}_mm3") for case in cases])
        ax.hist(values, bins=20, color=COLOURS[structure], edgecolor="white", linewidth=0.5)
        ax.axvline(values.mean(), color="black", linewidth=1)
        ax.axvspan(values.mean() - values.std(), values.mean() + values.std(), color="black", alpha=0.08, linewidth=0)
        ax.set_title(f"{structure}: {values.mean():.0f} ± {values.std(ddof=1):.0f} mm³")
        ax.set_xlabel(f"{values.min():.0f} to {values.max():.0f} mm³")
    axes[0].set_ylabel("hippocampi")
    plt.show()


class Study(NamedTuple):
    """Published volumes of left and right hippocampi in mm³; the notebook names the sources."""

    who: str
    means: tuple[float, float]
    deviations: tuple[float, float] | None = None


PUBLISHED = [
    Study("24 young adults, by hand", (2780, 2900)),
    Study("40 healthy adults, by hand", (3208, 3324)),
    Study("43 people of 50 to 77 years, by hand", (3260, 3430), (340, 320)),
    Study("302 healthy volunteers, automatic", (3780, 3860), (490, 480)),
]
PUBLISHED_RANGE = (1730, 5680)  # of means, as reviewed by the first
BIN = 100  # mm³


def published(cases: list[Case]) -> None:
    """The set's total volumes beside published distributions, as normal curves, and published means."""
    values = np.array([case.facts.total_mm3 for case in cases])
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(9, 5), layout="constrained", height_ratios=(2, 1.2))
    bins = np.arange(values.min() // BIN * BIN, values.max() + BIN, BIN)
    this = f"this set, by hand: {values.mean():.0f} ± {values.std(ddof=1):.0f} mm³"
    above.hist(values, bins, color=COLOURS["total"], alpha=0.5, edgecolor="white", linewidth=0.5, label=this)
    x = np.linspace(1700, 5700, 401)
    spread = [study for study in PUBLISHED if study.deviations]
    for study, colour in zip(spread, ACCENTS, strict=True):
        mean, deviation = pooled(study.means, study.deviations)
        curve = norm.pdf(x, mean, deviation) * len(values) * BIN  # as many hippocampi as there are here
        above.plot(x, curve, color=colour, label=f"{study.who}: {mean:.0f} ± {deviation:.0f} mm³")
    above.set_ylabel(f"hippocampi in {BIN} mm³")
    above.set_ylim(0, 1.45 * above.get_ylim()[1])  # room for the legend
    above.legend(loc="upper left")

    below.axvspan(*PUBLISHED_RANGE, color="black", alpha=0.06, linewidth=0)
    below.boxplot(
        values, vert=False, positions=[0], widths=0.5, flierprops={"markersize": 3}, medianprops={"color": "k"}
    )
    for row, study in enumerate(PUBLISHED, start=1):
        colour = ACCENTS[spread.index(study)] if study in spread else COLOURS["total"]
        below.plot(study.means, [row, row], "o-", color=colour)
    below.set_yticks(range(len(PUBLISHED) + 1), ["this set, by hand", *(study.who for study in PUBLISHED)])
    below.set_xlabel("one hippocampus, mm³; points: published means of left and right; grey: range of published means")
    figure.suptitle("Other people, other protocols: compare the order of magnitude, not the means", fontsize=10)
    plt.show()


def head_and_tail(cases: list[Case]) -> None:
    """How the two structures relate: their volumes, and the area of the cross-section from tail to head."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    anterior, posterior = (np.array([getattr(c.facts, f"{s}_mm3") for c in cases]) for s in ("anterior", "posterior"))
    left.scatter(posterior, anterior, s=12, color=COLOURS["total"], alpha=0.7)
    left.axline((0, 0), slope=1, color="black", linewidth=0.8, linestyle=":")
    left.set(xlim=(posterior.min() * 0.9, posterior.max() * 1.1), ylim=(anterior.min() * 0.9, anterior.max() * 1.1))
    left.set(xlabel="posterior, mm³", ylabel="anterior, mm³")
    left.set_title(f"correlation {np.corrcoef(anterior, posterior)[0, 1]:.2f}")

    from_border = np.arange(-30, 26)  # coronal slices
    for structure, value in (("posterior", POSTERIOR), ("anterior", ANTERIOR)):
        areas = np.zeros((len(cases), len(from_border)))
        for row, case in zip(areas, cases, strict=True):
            area = (case.label == value).sum(axis=(0, 2)) * case.spacing[0] * case.spacing[2]
            y = from_border + case.facts.border_y
            there = (y >= 0) & (y < len(area))
            row[there] = area[y[there]]
        low, middle, high = np.percentile(areas, [10, 50, 90], axis=0)
        middle[middle == 0] = np.nan
        right.fill_between(from_border, low, high, color=COLOURS[structure], alpha=0.3, linewidth=0, step="mid")
        right.step(from_border, middle, where="mid", color=COLOURS[structure], label=structure)
    right.set(xlabel="coronal slices in front of the border", ylabel="cross-section, mm²")
    right.set_title("median, and 10th to 90th percentile")
    right.legend()
    plt.show()


def intensities(cases: list[Case]) -> None:
    """The range of each scan as stored, and the distributions after normalising."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    by_maximum = sorted((case.facts for case in cases), key=lambda facts: facts.intensity_max)
    maxima = np.array([facts.intensity_max for facts in by_maximum])
    types = np.array([facts.intensity_type for facts in by_maximum])
    for kind in np.unique(types):
        rank = np.flatnonzero(types == kind)
        left.scatter(rank, maxima[rank], s=6, color=ACCENTS[int(kind == "uint8")], label=f"{kind}: {len(rank)}")
    left.set(yscale="log", xlabel="scans, by maximum", ylabel="maximum as stored")
    left.legend(title="stored as")
    bins = np.linspace(-3, 3, 61)
    for case in cases:
        density = np.histogram(normalise(case.image), bins, density=True)[0]
        right.plot((bins[1:] + bins[:-1]) / 2, density, color=COLOURS["total"], alpha=0.15, linewidth=0.7)
    right.set(xlabel="intensity, mean 0 and SD 1 in each scan", ylabel="density")
    right.set_title("one curve a scan")
    plt.show()


def sizes(cases: list[Case]) -> None:
    """Sizes of the crops and of the structures in them, along each axis."""
    crops = np.array([case.image.shape for case in cases])
    boxes = np.array([np.subtract(*bounding_box(case.label)[::-1]) + 1 for case in cases])
    _, axes = plt.subplots(1, 3, figsize=(9, 2.5), sharey=True, layout="constrained")
    for axis, ax in enumerate(axes):
        bins = np.arange(boxes[:, axis].min(), crops[:, axis].max() + 2) - 0.5
        ax.hist(boxes[:, axis], bins, color="#9a9a9a", label="the structure")
        ax.hist(crops[:, axis], bins, color=ACCENTS[0], alpha=0.8, label="the crop")
        ax.set_title(f"{AXES[axis]}: crops {crops[:, axis].min()} to {crops[:, axis].max()}")
        ax.set_xlabel("voxels")
    axes[2].legend()
    plt.show()


def shifted_labels(cases: list[Case]) -> None:
    """The three labels that lie worst on their images, as they are and put back by whole voxels."""
    known = [case for case in cases if case.facts.shift_voxels]
    worst = sorted(known, key=lambda case: -np.abs(case.facts.shift_voxels).max())[:3]
    if not worst:
        print("too few pairs to tell")
        return
    figure, axes = plt.subplots(len(worst), 4, figsize=(9, 2.4 * len(worst)), squeeze=False, layout="constrained")
    for row, case in zip(axes, worst, strict=True):
        shift = np.round(case.facts.shift_voxels).astype(int)
        back = np.roll(case.label, -shift, axis=(0, 1, 2))
        middle = np.add(*bounding_box(case.label)) // 2
        for ax, (plane, label) in zip(
            row, [("coronal", case.label), ("coronal", back), ("sagittal", case.label), ("sagittal", back)], strict=True
        ):
            draw_slice(ax, case.image, label, plane, middle[PLANES[plane]], case.spacing, **window(case.image))
            ax.set_title("as it is" if label is case.label else f"put back by {tuple(map(int, -shift))}", fontsize=8)
        row[0].set_ylabel(case.title[-3:])
    structure_legend(figure)
    plt.show()


def persons(cases: list[Case]) -> None:
    """How alike neighbours in the list are: two hippocampi of one person, or of two persons."""
    same = [(a.total_mm3, b.total_mm3) for a, b in pairwise(c.facts for c in cases) if a.person == b.person]
    if not same:
        print("no person has both")
        return
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    bins = np.linspace(-0.2, 1, 31)
    groups = zip(("one person", "two persons"), neighbour_correlations(cases), (ACCENTS[1], "#9a9a9a"), strict=True)
    for name, values, colour in groups:
        label = f"{name}: mean {np.mean(values):.2f} (n = {len(values)})"
        left.hist(values, bins, color=colour, alpha=0.7, density=True, label=label)
    left.set_ylim(0, 1.3 * left.get_ylim()[1])  # room for the legend
    left.set(xlabel="correlation of the images of neighbours in the list", ylabel="density")
    left.legend()
    first, second = np.array(same).T
    right.scatter(first, second, s=12, color=ACCENTS[1])
    right.axline((first.mean(), first.mean()), slope=1, color="black", linewidth=0.8, linestyle=":")
    right.set(xlabel="first hippocampus of a person, mm³", ylabel="second, mm³")
    right.set_title(f"correlation {np.corrcoef(first, second)[0, 1]:.2f}")
    plt.show()


def handedness(cases: list[Case]) -> None:
    """Each image against the mean of the others, as it is and mirrored."""
    as_is, mirrored = mirror_correlations(cases)
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=(1, 1.2))
    left.scatter(mirrored, as_is, s=10, color=ACCENTS[0], alpha=0.7)
    left.axline((0.3, 0.3), slope=1, color="black", linewidth=0.8, linestyle=":")
    left.set(xlabel="correlation with the mean, mirrored in x", ylabel="as it is")
    left.set_title(f"{np.count_nonzero(as_is > mirrored)} of {len(cases)} above the line")
    mean = mean_image(cases)
    cut = np.take(mean, HALF[1], 1)[::-1].T  # x grows to the left, as in all pictures
    right.imshow(np.hstack([cut, np.full((cut.shape[0], 2), cut.max()), cut[:, ::-1]]), origin="lower")
    right.set_title("the mean image, and its mirror image (coronal)")
    right.axis("off")
    plt.show()


def contrast(cases: list[Case]) -> None:
    """The mean image with its darkest and brightest place near the structure, and the structure's own brightness."""
    mean = mean_image(cases)
    label = np.where(mean_label(cases, ANTERIOR) > 0.5, ANTERIOR, 0)
    label[mean_label(cases, POSTERIOR) > 0.5] = POSTERIOR
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained", width_ratios=(1, 1.7, 1.7))
    draw_slice(axes[0], mean, label, "coronal", HALF[1], vmin=-1.6, vmax=1.6)
    draw_slice(axes[1], mean, label, "sagittal", HALF[0], vmin=-1.6, vmax=1.6)
    axes[0].set_title("mean image")
    bins = np.linspace(-3, 3, 61)
    values = [(normalise(case.image), case.label > 0) for case in cases]
    for name, inside, colour in (("around it", False, "#9a9a9a"), ("hippocampus", True, ACCENTS[0])):
        pooled = np.concatenate([image[mask == inside] for image, mask in values])
        axes[2].hist(pooled, bins, density=True, color=colour, alpha=0.7, label=name)
    axes[2].set(xlabel="normalised intensity", ylabel="density")
    axes[2].legend()
    structure_legend(figure)
    plt.show()
