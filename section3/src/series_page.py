"""The table of series: all series of the study, which of them was measured, and why the others were not."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from pydicom import Dataset

from report import BRIGHT, FOOTER, LINE, MARGIN, MUTED, NORMAL, SIZE, WARNING, Page, drawable, fit

IDENTITY, TABLE = 154, 250  # y of the patient, and of the table's head
ROW = 40
COLUMNS = {"Series": 270, "Images": 80, "Verdict": 110, "Decided by": 150, "Reason": 0}  # widths; the rest
LETTER_SIZES = range(16, 11, -1)
NOTES = (
    "The series was chosen by rules about what the files say of themselves. Nobody has checked the choice.",
    "The conditions are asked in their order; the first that does not hold decides.",
)


def create_series_page(rows: Sequence[dict], header: Dataset) -> Image.Image:
    """Draw the verdicts on the series of a study, an RGB image of the size of the report.

    rows: as ConsideredSeries.as_row() makes them. header: patient and study attributes, as for the report.
    """
    page = Page()
    page.heading("Series of the study")
    page.identity_across(header, IDENTITY)
    draw_series(page, rows, TABLE, FOOTER - 24)
    page.footer(NOTES)
    return page.image


def draw_series(page: Page, rows: Sequence[dict], top: float, bottom: float) -> None:
    """Draw `rows` as a table from the baseline of its head to `bottom`, accepted series first.

    What there is no room for is counted.
    """
    table_row(page, top, COLUMNS, list(COLUMNS), [MUTED] * len(COLUMNS))
    room = max(0, int(bottom - top) // ROW)
    if len(rows) > room:
        room -= 1
        page.text(
            MARGIN, top + (room + 1) * ROW, f"and {len(rows) - room} more series, all in result.json", 16, WARNING
        )
    for number, row in enumerate(sorted(rows, key=lambda row: not row["accepted"])[:room], start=1):
        verdict, colour = ("accepted", BRIGHT) if row["accepted"] else ("rejected", MUTED)
        cells = (row["description"] or "-", row["instances"], verdict, row["condition"] or "all", row["reason"])
        colours = [colour] * (len(COLUMNS) - 1) + [NORMAL if row["accepted"] else MUTED]
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
