"""The page of a whole head: both hippocampi, how large they are, and where in the head they were found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from common.structures import LEFT, PARTS, WHOLE
from common.verdicts import not_passed
from common.volume import Volume
from measuring.measurement import Hippocampus, Measurement
from pages.canvas import (
    BRIGHT,
    COLUMN,
    FOOTER,
    GUTTER,
    HALF,
    IDENTITY,
    MARGIN,
    MUTED,
    NORMAL,
    VIEWS,
    WARNING,
    Page,
    drawable,
    fit,
    in_words,
    model_in_words,
    who_made,
)
from pages.views import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    View,
    annotate,
    display_plane,
    display_size,
    explain_marks,
    middle_slice,
    render,
    window,
    zoom_to,
)

SIDE_COLOURS = {"left": "#7FD1AE", "right": "#D39BE8"}  # of the boxes in the small pictures, and of nothing else
PICTURE = 244  # pixels: the largest side of a picture of a hippocampus
HEAD_PICTURE = 196
ROW = 312  # from one row of pictures to the next
CARE_BOTTOM = FOOTER - 62
PUBLISHED = "Of healthy people nine in ten differ by less than 8.5 % (FreeSurfer) or 17.9 % (FIRST): other programs."
NOT_FOR = (
    "Not for treatment, nor for following a patient over time.",
    "Left and right are those of the image's header. Nothing here compares the volumes with other people's.",
)


def create_head_page(
    measurement: Measurement,
    model: Mapping[str, str],
    header: Mapping[str, str] | None = None,
    image: str = "",
    history: str = "",
) -> Image.Image:
    """Draw the page, an RGB image of 1400 x 1000 pixels.

    header: patient and study attributes that may be shown, None of an image that has none; then `image` is its name.
    history: when it was measured, "" where that is not to be told.
    """
    page = Page()
    page.heading("Hippocampus volumes")
    grid = measurement.source.grid
    if header is None:
        y = page.field(MARGIN, IDENTITY, "Image", image, COLUMN, range(20, 11, -1), lines=2) + 22
        page.text(MARGIN, y, in_words(grid), 14, NORMAL)
    else:
        y = page.identity(header, IDENTITY)
        y = page.series(grid, measurement.accepted.description, y + 34)
    y = page.rule(y)
    if measurement.refusal:
        page.text(MARGIN, y, "No volumes", 28, BRIGHT)
        _say(page, measurement.refusal.reason, y + 10, 8)
    else:
        y = _figures(page, measurement.hippocampi, y)
        y = _asymmetry(page, measurement.hippocampi, y + 34)
        _care(page, measurement, y)
    page.note(FOOTER - 38, model_in_words(model))
    page.note(FOOTER - 19, history)
    _head_pictures(page, measurement)
    for number, one in enumerate(measurement.hippocampi):
        if one.box:
            voxels = measurement.source.voxels[one.box]
            _pictures(page, voxels, one, VIEWS[1] + GUTTER[1] + ROW * (number + 0.78))
    if any(one.box for one in measurement.hippocampi):
        dotted = any(one.chance is not None for one in measurement.hippocampi)
        explain_marks(page, VIEWS[0] + GUTTER[0], FOOTER - 14, dotted)
    page.footer([f"{who_made(measurement.corrected_by)} {NOT_FOR[0]}", *NOT_FOR[1:]])
    return page.image


def _figures(page: Page, hippocampi: tuple[Hippocampus, ...], y: float) -> float:
    """The volumes of both sides, one beside the other; the last baseline."""
    for x, one in zip((MARGIN, MARGIN + HALF), hippocampi, strict=True):
        page.text(x, y, f"{one.side.capitalize()}, total", 16, MUTED)
        if one.volumes_mm3 is None:
            page.text(x, y + 44, "no number", 28, WARNING)
            continue
        page.text_mm3(x - 2, y + 48, one.volumes_mm3[WHOLE.key], 46, BRIGHT)
        for line, part in enumerate(PARTS):
            page.text(x, y + 88 + 58 * line, part.key.capitalize(), 15, MUTED)
            page.text_mm3(x, y + 88 + 58 * line + 30, one.volumes_mm3[part.key], 27, part.colour)
    return y + 176


def _asymmetry(page: Page, hippocampi: tuple[Hippocampus, ...], y: float) -> float:
    volumes = {one.side: one.volumes_mm3[WHOLE.key] for one in hippocampi if one.volumes_mm3}
    if len(volumes) < 2:
        return y
    low, high = sorted(volumes.values())
    smaller = min(volumes, key=volumes.get)
    page.text(MARGIN, y, f"The {smaller} one is {100 * (high - low) / high:.1f} % smaller.", 17, BRIGHT)
    lines, size = fit(PUBLISHED, range(13, 10, -1), COLUMN, 3)
    for number, line in enumerate(lines):
        page.text(MARGIN, y + 22 + 17 * number, line, size, NORMAL)
    return y + 22 + 17 * len(lines)


def _care(page: Page, measurement: Measurement, y: float) -> None:
    """Why a side has no number, and what to be careful of; as much of it as there is room for."""
    hippocampi = measurement.hippocampi
    told = [f"No number of the {one.side} one. {one.refusal.reason}" for one in hippocampi if one.refusal]
    warned = [(None, check) for check in not_passed(measurement.checks)]
    warned += [(one.side, check) for one in hippocampi if not one.refusal for check in not_passed(one.checks)]
    told += [f"With care{f' ({side})' if side else ''}: {check.sentence}" for side, check in warned]
    shown = 0
    for text in told:
        lines = min(4, int(CARE_BOTTOM - y - 12) // 16)
        if lines < 2:
            break
        y, shown = _say(page, text, y, lines) + 4, shown + 1
    if shown < len(told):
        page.text(MARGIN + 14, y + 14, f"and {len(told) - shown} more: see the record", 12, WARNING)


def _say(page: Page, text: str, y: float, most: int) -> float:
    lines, size = fit(drawable(text), range(15, 11, -1), COLUMN - 14, most)
    top, y = y + 12, y + 12
    for line in lines:
        y += round(size * 1.3)
        page.text(MARGIN + 14, y, line, size, WARNING)
    page.draw.line((MARGIN + 2, top + 4, MARGIN + 2, y + 3), WARNING, 3)
    return y


def _pictures(page: Page, voxels: np.ndarray, one: Hippocampus, top: float) -> None:
    """Three planes through one hippocampus, at one scale; without contours where it has no number."""
    grid = one.grid
    labels = one.labels if one.labels is not None else np.zeros(grid.shape, np.uint8)
    grey = window(voxels)
    zoom = PICTURE / max(grid.extent)
    width = (VIEWS[2] - VIEWS[0]) / 3
    title = f"{one.side.capitalize()}"
    for number, (name, axis) in enumerate((("coronal", CORONAL), ("sagittal", SAGITTAL), ("axial", AXIAL))):
        view = View(f"{title}, {name}", axis, middle_slice(labels > 0, axis))
        size = display_size(grid, axis, zoom)
        left = int(VIEWS[0] + GUTTER[0] + number * width)
        page.image.paste(render(view, grey, labels, size, one.chance), (left, int(top)))
        _annotate(page, view, left, int(top), *size)


def _head_pictures(page: Page, measurement: Measurement) -> None:
    """The whole head in three planes, with the two boxes in which the hippocampi were looked for."""
    head = measurement.source
    boxes = {one.side: one.box for one in measurement.hippocampi if one.box}
    middle = boxes.get(LEFT) or tuple(slice(0, size) for size in head.grid.shape)
    zoom = HEAD_PICTURE / max(head.grid.extent)
    width = (VIEWS[2] - VIEWS[0]) / 3
    grey = window(head.voxels)
    for number, (name, axis) in enumerate((("Coronal", CORONAL), ("Sagittal", SAGITTAL), ("Axial", AXIAL))):
        view = View(
            f"{name}, where they were found" if boxes else name, axis, (middle[axis].start + middle[axis].stop) // 2
        )
        size = display_size(head.grid, axis, zoom)
        left, top = int(VIEWS[0] + GUTTER[0] + number * width), VIEWS[1] + GUTTER[1] - 20
        plane = zoom_to(display_plane(grey, view), size, Image.Resampling.BICUBIC)
        page.image.paste(Image.fromarray(plane).convert("RGB"), (left, top))
        for side, box in boxes.items():
            if axis == SAGITTAL and side != LEFT:  # the plane runs through the left one
                continue
            _box(page, box, head, axis, (left, top, *size), SIDE_COLOURS[side])
        _annotate(page, view, left, top, *size)
    for line, side in enumerate(boxes):
        page.text(VIEWS[2] - 92, VIEWS[1] + GUTTER[1] + 24 * line, f"box, {side}", 15, SIDE_COLOURS[side])


def _box(
    page: Page, box: tuple[slice, ...], head: Volume, axis: int, place: tuple[int, int, int, int], colour: str
) -> None:
    left, top, width, height = place
    across, up = (other for other in range(3) if other != axis)
    xs = [left + width * (1 - end / head.grid.shape[across]) for end in (box[across].stop, box[across].start)]
    ys = [top + height * (1 - end / head.grid.shape[up]) for end in (box[up].stop, box[up].start)]
    page.draw.rectangle((xs[0], ys[0], xs[1], ys[1]), None, colour, 2)


def _annotate(page: Page, view: View, left: int, top: int, width: int, height: int) -> None:
    """A head says which side is which: right is shown at the left."""
    annotate(page, view, left, top, width, height)
    if view.axis != SAGITTAL:
        for x, letter in ((left + 7, "R"), (left + width - 7, "L")):
            page.text(x, top + height + 13, letter, 15, MUTED, "mm")
