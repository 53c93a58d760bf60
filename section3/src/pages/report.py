"""The page of a measurement: who and when, how large, where, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from common.structures import COLOURS, PARTS, WHOLE
from common.verdicts import Check, not_passed
from common.volume import Grid
from measuring.measurement import Hippocampus, Measurement
from pages.canvas import (
    BRIGHT,
    COLUMN,
    FOOTER,
    GUTTER,
    HALF,
    IDENTITY,
    LINE,
    MARGIN,
    MUTED,
    NORMAL,
    SIZE,
    VIEWS,
    WARNING,
    Page,
    drawable,
    fit,
    who_made,
)
from pages.views import CORONAL, SAGITTAL, View, annotate, choose_views, display_size, explain_marks, render, window

LEGEND = 92  # height of the legend below the sagittal picture
VIEW_WIDTH = 240  # the least that a title needs
MOST_WARNING = 4  # lines
NOT_FOR = (
    "Not for treatment, nor for following a patient over time.",
    "The crop does not say which of the two hippocampi it shows. "
    "Nothing here compares it with other people of that age or sex.",
)


def create_report(
    measurement: Measurement, header: Mapping[str, str], model: Mapping[str, str], history: str = ""
) -> Image.Image:
    """Draw the page of one crop, an RGB image of 1400 x 1000 pixels.

    `header` has the patient and study attributes that may be shown, as text; what it lacks becomes a dash. `model` has
    "name", "version" and "sha256"; `history` says when it was measured, "" where that is not to be told.
    Raises ValueError if the labels are of another shape than the source.
    """
    (hippocampus,) = measurement.hippocampi
    shapes = hippocampus.grid.shape, measurement.source.grid.shape
    if shapes[0] != shapes[1]:
        raise ValueError(f"labels on a grid of shape {shapes[0]}, and a source of shape {shapes[1]}")
    page = Page()
    page.heading("Hippocampus volumes")
    y = page.identity(header, IDENTITY)
    y = _figures(page, hippocampus, measurement.all_checks, page.rule(y))
    _provenance(page, measurement, model, history, page.rule(y))
    _views(page, measurement.source.voxels, hippocampus)
    page.footer([f"{who_made(measurement.corrected_by)} {NOT_FOR[0]}", *NOT_FOR[1:]])
    if not measurement.corrected_by:
        _quality(page, measurement.all_checks)
    return page.image


def _figures(page: Page, hippocampus: Hippocampus, checks: Sequence[Check], y: float) -> float:
    """The volumes, what their ranges are, what to be careful of, and how the parts share the total."""
    volumes, intervals = hippocampus.volumes_mm3, hippocampus.intervals_mm3
    page.text(MARGIN, y, "Total volume", 16, MUTED)
    page.text_mm3(MARGIN - 3, y + 66, volumes[WHOLE.key], 68, BRIGHT)
    y += 66
    if intervals:
        y += 26
        page.text(MARGIN, y, f"An expert's volume lies in {_range(intervals[WHOLE.key])}", 15, NORMAL)
        y += 19
        page.text(MARGIN, y, "nine times in ten. This is no range of normal values.", 15, NORMAL)
    y = _warnings(page, checks, y)
    _shares(page, volumes, y + 20)
    y += 62
    for x, part in zip((MARGIN, MARGIN + HALF), PARTS, strict=True):
        page.text(x, y, part.key.capitalize(), 16, MUTED)
        page.text_mm3(x, y + 42, volumes[part.key], 40, part.colour)
        if intervals:
            page.text(x, y + 64, f"expert's: {_range(intervals[part.key])}", 14, NORMAL)
    return y + (64 if intervals else 42)


def _range(ends: Sequence[float]) -> str:
    return "{:.0f} to {:.0f}".format(*ends)


def _warnings(page: Page, checks: Sequence[Check], y: float) -> float:
    """Beside the number why it is to be taken with care; returns the last baseline."""
    warned = not_passed(checks)
    if not warned:
        return y
    more = f" (and {len(warned) - 1} more: see result.json)" if len(warned) > 1 else ""
    lines, size = fit(drawable(f"With care: {warned[0].sentence}{more}"), range(15, 11, -1), COLUMN - 14, MOST_WARNING)
    top, y = y + 12, y + 12
    for line in lines:
        y += round(size * 1.3)
        page.text(MARGIN + 14, y, line, size, WARNING)
    page.draw.line((MARGIN + 2, top + 4, MARGIN + 2, y + 3), WARNING, 3)
    return y


def _shares(page: Page, volumes_mm3: Mapping[str, float], y: float) -> None:
    """A bar as wide as the column: the anterior part of the total, then the posterior one."""
    front, back = PARTS
    page.draw.rectangle((MARGIN, y, MARGIN + COLUMN, y + 8), LINE)
    if volumes_mm3[WHOLE.key]:
        border = MARGIN + COLUMN * volumes_mm3[front.key] / volumes_mm3[WHOLE.key]
        if border > MARGIN:
            page.draw.rectangle((MARGIN, y, border, y + 8), front.colour)
        if border < MARGIN + COLUMN:
            page.draw.rectangle((border + 1, y, MARGIN + COLUMN, y + 8), back.colour)


def _provenance(page: Page, measurement: Measurement, model: Mapping[str, str], history: str, y: float) -> None:
    """What was measured, by which model and when."""
    y = page.series(measurement.source.grid, measurement.accepted.description, y)
    name = f"{model['name']} {model['version']} ({model['sha256'][:12]})"
    y = page.field(MARGIN, y + 34, "Model", name, COLUMN, range(17, 11, -1))
    (line,), size = fit(drawable(history), range(14, 10, -1), COLUMN, 1)
    page.text(MARGIN, y + 23, line, size, NORMAL)


def _quality(page: Page, checks: Sequence[Check]) -> None:
    """How many checks were passed, and which were not, below the footer's small print."""
    warned = [check.name.replace("_", " ") for check in not_passed(checks)]
    text = f"Quality: {len(checks) - len(warned)} of {len(checks)} checks passed."
    text += f" Not passed: {', '.join(warned)}." if warned else ""
    (line,), size = fit(text, range(14, 10, -1), SIZE[0] - MARGIN - VIEWS[0] - GUTTER[0], 1)
    y = FOOTER + 29 + 21 * len(NOT_FOR)
    page.text(VIEWS[0] + GUTTER[0], y, line, size, WARNING if warned else NORMAL)


def _views(page: Page, voxels: np.ndarray, hippocampus: Hippocampus) -> None:
    """Four pictures at one scale, two by two, and the legend."""
    grid, grey = hippocampus.grid, window(voxels)
    views = choose_views(hippocampus.labels)
    zoom = fit_zoom(grid)
    places = place_views(grid, zoom)
    for view, (left, top) in zip(views, places, strict=True):
        picture = render(view, grey, hippocampus.labels, display_size(grid, view.axis, zoom), hippocampus.chance)
        page.image.paste(picture, (left, top))
        annotate(page, view, left, top, *picture.size)
        _levels(page, view, views, grid.shape, (left, top, *picture.size))
    _legend(page, places[2][0], VIEWS[3] - GUTTER[3], zoom, hippocampus.chance is not None)


def _levels(page: Page, view: View, views: list[View], shape: tuple[int, ...], box: tuple[int, int, int, int]) -> None:
    """Marks outside the sagittal and the axial picture where the coronal ones cut them, in their colours."""
    if view.axis == CORONAL:
        return
    left, top, width, height = box
    for coronal, colour in zip(views, COLOURS.values(), strict=False):
        place = (shape[CORONAL] - coronal.index - 0.5) / shape[CORONAL]  # reversed, as display_plane shows it
        if view.axis == SAGITTAL:
            x = left + place * width
            lines = (x, top - 9, x, top - 4), (x, top + height + 3, x, top + height + 8)
        else:
            y = top + place * height
            lines = (left - 9, y, left - 4, y), (left + width + 3, y, left + width + 8, y)
        for line in lines:
            page.draw.line(line, colour, 3)


def _legend(page: Page, left: int, bottom: int, zoom: float, dotted: bool) -> None:
    """What bar, colours and marks mean; the last line stands on `bottom`."""
    page.draw.line((left, bottom - 61, left + 10 * zoom, bottom - 61), NORMAL, 3)
    page.text(left + 10 * zoom + 10, bottom - 56, "10 mm", 16)
    explain_marks(page, left, bottom - 28, dotted)
    for x, colour in zip((left + 2, left + 10), COLOURS.values(), strict=True):
        page.draw.line((x, bottom - 9, x, bottom - 3), colour, 3)
    page.text(left + 22, bottom, "Levels of the coronal pictures", 16)


def fit_zoom(grid: Grid) -> float:
    """Pixels per mm at which the four pictures and the legend fit their area."""
    x, y, z = grid.extent.tolist()
    width = VIEWS[2] - VIEWS[0] - 2 * (GUTTER[0] + GUTTER[2])
    height = VIEWS[3] - VIEWS[1] - 2 * (GUTTER[1] + GUTTER[3])
    return min(width / (max(x, y) + x), height / (z + y), (height - LEGEND) / (2 * z))


def place_views(grid: Grid, zoom: float) -> list[tuple[int, int]]:
    """Left and top of the four pictures: the coronal ones above, the sagittal and the axial one below."""
    sizes = [display_size(grid, axis, zoom) for axis in (1, 0)]
    left, top = VIEWS[0] + GUTTER[0], VIEWS[1] + GUTTER[1]
    right = VIEWS[2] - GUTTER[2] - max(VIEW_WIDTH, sizes[0][0])
    below = top + sizes[0][1] + GUTTER[3] + GUTTER[1]
    return [(left, top), (right, top), (left, below), (right, below)]
