"""The second page: all series of the study, which of them was measured, and why the others were not."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from report import BRIGHT, FOOTER, LINE, MARGIN, MUTED, NORMAL, SIZE, WARNING, Page, drawable, fit

TOP = 220  # y of the first row's text
ROW = 46
COLUMNS = {"Description": 250, "Images": 80, "Verdict": 110, "Decided by": 150, "Reason": 0}  # widths; the rest
LETTER_SIZES = range(17, 11, -1)
LAST_ROW = FOOTER - 40


def create_series_page(rows: Sequence[dict], study_uid: str) -> Image.Image:
    """Draw the verdicts on the series of a study, an RGB image of the size of the report.

    rows: as ConsideredSeries.as_row() makes them; those of accepted series come first. The page names no patient. What
    there is no room for is counted.
    """
    page = Page()
    page.text(MARGIN, MARGIN + 28, "Series of the study", 34, BRIGHT)
    page.text(MARGIN, MARGIN + 58, f"HippoVolume.AI    Study {study_uid}", 17, MUTED)
    _row(page, TOP - ROW, list(COLUMNS), [MUTED] * len(COLUMNS))
    room = (LAST_ROW - TOP) // ROW
    ordered = sorted(rows, key=lambda row: not row["accepted"])
    for number, row in enumerate(ordered[:room]):
        y = TOP + number * ROW
        page.draw.line((MARGIN, y - 28, SIZE[0] - MARGIN, y - 28), LINE)
        verdict, colour = ("accepted", BRIGHT) if row["accepted"] else ("rejected", MUTED)
        cells = (row["description"] or "-", row["instances"], verdict, row["condition"] or "all", row["reason"])
        _row(page, y, cells, [colour, colour, colour, colour, NORMAL if row["accepted"] else MUTED])
    if len(rows) > room:
        page.text(MARGIN, LAST_ROW + 12, f"and {len(rows) - room} more series, all in result.json", 17, WARNING)
    page.footer()
    return page.image


def _row(page: Page, y: float, cells: Sequence[object], colours: Sequence[str]) -> None:
    x = MARGIN
    for cell, width, colour in zip(cells, COLUMNS.values(), colours, strict=True):
        lines, size = fit(drawable(str(cell)[:200]), LETTER_SIZES, (width or SIZE[0] - MARGIN - x) - 12, 1)
        page.text(x, y, lines[0], size, colour)
        x += width
