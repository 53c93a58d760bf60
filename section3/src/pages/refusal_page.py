"""The page in place of a measurement: that there is no number, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from checks.quality import number_in_words
from common.refusal import CODES, Refusal
from common.verdicts import Check, failed
from common.volume import Grid, Volume
from measuring.measurement import Measurement
from pages.canvas import (
    BRIGHT,
    COLUMN,
    FOOTER,
    GUTTER,
    IDENTITY,
    IDENTITY_ACROSS,
    MARGIN,
    MUTED,
    NORMAL,
    SIZE,
    VIEWS,
    WARNING,
    Page,
    drawable,
    fit,
    model_in_words,
)
from pages.series_page import ROW, draw_series, table_row
from pages.views import AXIAL, CORONAL, SAGITTAL, View, annotate, display_size, render, window

STATEMENT = 262  # y of its baseline, where there are no pictures
BOTTOM = FOOTER - 24
STATEMENT_BOTTOM = STATEMENT + 190  # four lines of reason and what to do next
SERIES = BOTTOM - 96  # y of its name, beside pictures
LEADING = 1.35
CHECKS = ("Failed check", "Found", "Expected", "Where the limit comes from")
WIDE, NARROW = (270, 190, 260, 0), (170, 120, 190, 0)  # of their columns, without and below pictures; 0 is the rest
MOST_CHECKS, MOST_ADVICE = 1, 3
PLANES = {CORONAL: "Coronal", SAGITTAL: "Sagittal", AXIAL: "Axial"}
LEFT = VIEWS[0] + GUTTER[0]  # of what stands on the right
TALLEST = 350  # pixels: the table of checks needs the rest
TITLE_WIDTH = 140  # the least that the title of a picture needs
PICTURED = "The middle of the series that was refused, nothing drawn on it. Directions are those that its files state."
NOTES = (
    "A program declined to measure. It says nothing about the patient, only that a volume from these images",
    "might be wrong. Nobody has checked the refusal.",
)


def create_refusal_page(
    measurement: Measurement, header: Mapping[str, str], model: Mapping[str, str], history: str = ""
) -> Image.Image:
    """Draw the page of a refused study, an RGB image of the size of the report.

    header, model and history are as for create_report. It shows the middle of the source, what was refused, without a
    contour; where there is none, the verdicts on all series.
    """
    page = Page()
    page.heading("No hippocampus volumes")
    page.footer(NOTES)
    source, refusal = measurement.source, measurement.refusal
    checks = sorted(failed(measurement.all_checks), key=lambda check: check is not measurement.cause)
    width = COLUMN if source else SIZE[0] - 2 * MARGIN
    page.note(BOTTOM + 4, model_in_words(model), width)
    page.note(BOTTOM - 16, history, width)
    if source:
        y = page.rule(page.identity(header, IDENTITY))
        _statement(page, "Refused: no volumes are given.", refusal, y, width, range(17, 10, -1), SERIES - 30)
        page.series(source.grid, measurement.accepted.description, SERIES)
        _failed_checks(page, checks, _pictures(page, source) + 56, LEFT, NARROW)
    else:
        page.identity_across(header, IDENTITY_ACROSS)
        statement = "This study was refused: no volumes are given."
        y = _statement(page, statement, refusal, STATEMENT, width, range(18, 12, -1), STATEMENT_BOTTOM)
        top = _failed_checks(page, checks, y + 52, MARGIN, WIDE)
        draw_series(page, measurement.series_to_show, top, BOTTOM - ROW)
    return page.image


def _statement(
    page: Page, statement: str, refusal: Refusal, y: float, width: int, sizes: range, bottom: float
) -> float:
    """That there is no number, and why, above `bottom`; returns the last baseline."""
    page.text(MARGIN, y, statement, 24, WARNING)
    y += 12
    advice, advice_size = fit(f"Next: {CODES[refusal.code].advice}", range(16, 12, -1), width, MOST_ADVICE)
    below = 44 + len(advice) * round(advice_size * LEADING)
    line_count = int(bottom - below - y) // round(sizes[0] * LEADING)
    lines, size = fit(drawable(refusal.reason[:1].upper() + refusal.reason[1:]), sizes, width, line_count)
    for line in lines:
        y += round(size * LEADING)
        page.text(MARGIN, y, line, size, BRIGHT)
    y += 10
    for line in advice:
        y += round(advice_size * LEADING)
        page.text(MARGIN, y, line, advice_size, NORMAL)
    page.text(MARGIN, y + 30, f"Code: {refusal.code}", 14, MUTED)
    return y + 30


def _pictures(page: Page, source: Volume) -> int:
    """The three planes through the middle, side by side at one scale; returns the y below them."""
    grey, grid = window(source.voxels), source.grid
    views = [View(f"{name}, middle", axis, grid.shape[axis] // 2) for axis, name in PLANES.items()]
    zoom = _zoom(grid, views)
    left, top = LEFT, VIEWS[1] + GUTTER[1]
    for view in views:
        width, height = display_size(grid, view.axis, zoom)
        page.image.paste(render(view, grey, np.zeros_like(grey), (width, height)), (left, top))
        annotate(page, view, left, top, width, height)
        left += max(width, TITLE_WIDTH) + GUTTER[2] + GUTTER[0]
    y = top + max(display_size(grid, view.axis, zoom)[1] for view in views) + GUTTER[3] + 24
    page.text(LEFT, y, PICTURED, 14, MUTED)
    return y


def _zoom(grid: Grid, views: Sequence[View]) -> float:
    """Pixels per mm at which the pictures fit beside each other."""
    room = VIEWS[2] - VIEWS[0] - len(views) * (GUTTER[0] + GUTTER[2])
    sizes = [display_size(grid, view.axis, 1000) for view in views]  # at a micrometre a pixel
    return 1000 * min(room / sum(width for width, _ in sizes), TALLEST / max(height for _, height in sizes))


def _failed_checks(page: Page, checks: Sequence[Check], y: float, left: float, widths: Sequence[int]) -> float:
    """A table of them, if there are any; returns the baseline of what comes next."""
    if not checks:
        return y
    columns = dict(zip(CHECKS, widths, strict=True))
    table_row(page, y, columns, CHECKS, [MUTED] * len(CHECKS), left)
    for check in checks[:MOST_CHECKS]:
        y += ROW
        found = "nothing that can be measured" if check.value is None else number_in_words(check.value)
        cells = (check.name.replace("_", " "), found, check.limit, check.source)
        table_row(page, y, columns, cells, [BRIGHT, WARNING, BRIGHT, MUTED], left)
    if len(checks) > MOST_CHECKS:
        y += ROW
        page.text(left, y, f"and {len(checks) - MOST_CHECKS} more, all in result.json", 16, WARNING)
    return y + ROW + 16
