"""The table of series: all series of the study, which of them was measured, and why the others were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from common.verdicts import SeriesVerdict
from pages.canvas import (
    BRIGHT,
    FOOTER,
    IDENTITY_ACROSS,
    LINE,
    MARGIN,
    MUTED,
    NORMAL,
    SIZE,
    WARNING,
    Page,
    drawable,
    fit,
)

TABLE = 250  # y of the table's head
ROW = 40
COLUMNS = {"Series": 270, "Images": 80, "Verdict": 110, "Decided by": 150, "Reason": 0}  # widths; the rest
LETTER_SIZES = range(16, 11, -1)
NOTES = (
    "The series was chosen by rules about what the files say of themselves. Nobody has checked the choice.",
    "The conditions are asked in their order; the first that does not hold decides.",
)


def create_series_page(verdicts: Sequence[SeriesVerdict], header: Mapping[str, str]) -> Image.Image:
    """Draw the verdicts on the series of a study, an RGB image of the size of the report.

    header: patient and study attributes, as for the report.
    """
    page = Page()
    page.heading("Series of the study")
    page.identity_across(header, IDENTITY_ACROSS)
    draw_series(page, verdicts, TABLE, FOOTER - 24)
    page.footer(NOTES)
    return page.image


def draw_series(page: Page, verdicts: Sequence[SeriesVerdict], top: float, bottom: float) -> None:
    """Draw the verdicts as a table from the baseline of its head to `bottom`, accepted series first.

    What there is no room for is counted.
    """
    table_row(page, top, COLUMNS, list(COLUMNS), [MUTED] * len(COLUMNS))
    room = max(0, int(bottom - top) // ROW)
    if len(verdicts) > room:
        room -= 1
        more = f"and {len(verdicts) - room} more series, all in result.json"
        page.text(MARGIN, top + (room + 1) * ROW, more, 16, WARNING)
    for number, one in enumerate(sorted(verdicts, key=lambda one: not one.accepted)[:room], start=1):
        verdict, colour = ("accepted", BRIGHT) if one.accepted else ("rejected", MUTED)
        cells = (one.description or "-", one.instances, verdict, one.condition or "all", one.reason)
        colours = [colour] * (len(COLUMNS) - 1) + [NORMAL if one.accepted else MUTED]
        table_row(page, top + number * ROW, COLUMNS, cells, colours)


def table_row(
    page: Page,
    y: float,
    columns: dict[str, int],
    cells: Sequence[object],
    colours: Sequence[str],
    left: float = MARGIN,
) -> None:
    """Draw a line and above it the cells, each within its column; a column of width 0 takes the rest."""
    x = left
    for cell, width, colour in zip(cells, columns.values(), colours, strict=True):
        lines, size = fit(drawable(str(cell)[:200]), LETTER_SIZES, (width or SIZE[0] - MARGIN - x) - 12, 1)
        page.text(x, y, lines[0], size, colour)
        x += width
    page.draw.line((left, y + 14, SIZE[0] - MARGIN, y + 14), LINE)
