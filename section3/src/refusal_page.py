"""The page in place of a measurement: that there is no number, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from pydicom import Dataset

from dicom_volume import SourceVolume
from quality import FAIL, number_in_words
from report import (
    AXIAL,
    BRIGHT,
    COLUMN,
    CORONAL,
    FOOTER,
    GUTTER,
    IDENTITY,
    MARGIN,
    MUTED,
    NORMAL,
    SAGITTAL,
    SIZE,
    VIEWS,
    WARNING,
    Page,
    View,
    display_size,
    drawable,
    fit,
    render,
    window,
)
from series_page import IDENTITY as IDENTITY_ACROSS
from series_page import ROW, draw_series, table_row

STATEMENT = 262  # y of its baseline, where there are no pictures
BOTTOM = FOOTER - 24
STATEMENT_BOTTOM = STATEMENT + 164  # five lines of reason further down
SERIES = BOTTOM - 80  # y of its name, beside pictures
LEADING = 1.35
CHECKS = ("Failed check", "Found", "Expected", "Where the limit comes from")
WIDE, NARROW = (270, 190, 260, 0), (170, 120, 190, 0)  # of their columns, without and below pictures; 0 is the rest
MOST_CHECKS = 5
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
    header: Dataset,
    code: str,
    reason: str,
    quality: Sequence[Mapping],
    series: Sequence[dict],
    model: Mapping[str, str],
    source: SourceVolume | None = None,
) -> Image.Image:
    """Draw the page of a refused study, an RGB image of the size of the report.

    header, quality and model are as for create_report, `series` as for create_series_page; `code` and `reason` are
    those of the Refusal. It shows the middle of `source`, what was refused, without a contour; where there is none, the
    verdicts on all series.
    """
    page = Page()
    page.heading("No hippocampus volumes")
    page.footer(NOTES)
    checks = [check for check in quality if check["verdict"] == FAIL]
    name = f"Model {model['name']}, version {model['version']}, SHA-256 {model['sha256'][:12]}"
    width = COLUMN if source else SIZE[0] - 2 * MARGIN
    (name,), size = fit(drawable(name), range(14, 10, -1), width, 1)
    page.text(MARGIN, BOTTOM + 4, name, size, MUTED)
    if source:
        y = page.rule(page.identity(header, IDENTITY))
        _statement(page, "Refused: no volumes are given.", reason, code, y, width, range(17, 10, -1), SERIES - 30)
        chosen = next(row["description"] for row in series if row["accepted"])
        page.series(source.voxels.shape, source.spacing, chosen, SERIES)
        _failed_checks(page, checks, _pictures(page, source) + 56, LEFT, NARROW)
    else:
        page.identity_across(header, IDENTITY_ACROSS)
        statement = "This study was refused: no volumes are given."
        y = _statement(page, statement, reason, code, STATEMENT, width, range(18, 12, -1), STATEMENT_BOTTOM)
        draw_series(page, series, _failed_checks(page, checks, y + 52, MARGIN, WIDE), BOTTOM - ROW)
    return page.image


def _statement(
    page: Page, statement: str, reason: str, code: str, y: float, width: int, sizes: range, bottom: float
) -> float:
    """That there is no number, and why, above `bottom`; returns the last baseline."""
    page.text(MARGIN, y, statement, 24, WARNING)
    y += 12
    line_count = int(bottom - 32 - y) // round(sizes[0] * LEADING)
    lines, size = fit(drawable(reason[:1].upper() + reason[1:]), sizes, width, line_count)
    for line in lines:
        y += round(size * LEADING)
        page.text(MARGIN, y, line, size, BRIGHT)
    page.text(MARGIN, y + 32, f"Code: {code}", 16, NORMAL)
    return y + 32


def _pictures(page: Page, source: SourceVolume) -> int:
    """The three planes through the middle, side by side at one scale; returns the y below them."""
    grey = window(source.voxels)
    views = [View(f"{name}, middle", axis, grey.shape[axis] // 2) for axis, name in PLANES.items()]
    room = VIEWS[2] - VIEWS[0] - len(views) * (GUTTER[0] + GUTTER[2])
    sizes = [display_size(grey.shape, source.spacing, view.axis, 1000) for view in views]  # at a micrometre a pixel
    zoom = 1000 * min(room / sum(width for width, _ in sizes), TALLEST / max(height for _, height in sizes))
    left, top = LEFT, VIEWS[1] + GUTTER[1]
    for view in views:
        width, height = display_size(grey.shape, source.spacing, view.axis, zoom)
        page.image.paste(render(view, grey, np.zeros_like(grey), (width, height)), (left, top))
        page.annotate(view, left, top, width, height)
        left += max(width, TITLE_WIDTH) + GUTTER[2] + GUTTER[0]
    y = top + round(zoom * max(height for _, height in sizes) / 1000) + GUTTER[3] + 24
    page.text(LEFT, y, PICTURED, 14, MUTED)
    return y


def _failed_checks(page: Page, checks: Sequence[Mapping], y: float, left: float, widths: Sequence[int]) -> float:
    """A table of them, if there are any; returns the baseline of what comes next."""
    if not checks:
        return y
    columns = dict(zip(CHECKS, widths, strict=True))
    table_row(page, y, columns, CHECKS, [MUTED] * len(CHECKS), left)
    for check in checks[:MOST_CHECKS]:
        y += ROW
        found = "nothing that can be measured" if check["value"] is None else number_in_words(check["value"])
        cells = (check["name"].replace("_", " "), found, check["limit"], check["source"])
        table_row(page, y, columns, cells, [BRIGHT, WARNING, BRIGHT, MUTED], left)
    if len(checks) > MOST_CHECKS:
        y += ROW
        page.text(left, y, f"and {len(checks) - MOST_CHECKS} more, all in result.json", 16, WARNING)
    return y + ROW + 16
