"""The page in place of a measurement: that there is no number, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from pydicom import Dataset

from quality import FAIL, number_in_words
from report import BRIGHT, FOOTER, MARGIN, MUTED, NORMAL, SIZE, WARNING, Page, drawable, fit
from series_page import IDENTITY, ROW, draw_series, table_row

STATEMENT = 262  # y of its baseline
REASON_LINES, REASON_STEP = 5, 24
CHECKS = {"Failed check": 270, "Found": 190, "Expected": 260, "Where the limit comes from": 0}  # widths; the rest
MOST_CHECKS = 5
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
) -> Image.Image:
    """Draw the page of a refused study, an RGB image of the size of the report.

    header, quality and model are as for create_report, `series` as for create_series_page; `code` and `reason` are
    those of the Refusal.
    """
    page = Page()
    page.heading("No hippocampus volumes")
    page.identity_across(header, IDENTITY)
    page.text(MARGIN, STATEMENT, "This study was refused: no volumes are given.", 24, WARNING)
    lines, size = fit(drawable(reason[:1].upper() + reason[1:]), range(18, 12, -1), SIZE[0] - 2 * MARGIN, REASON_LINES)
    y = STATEMENT
    for line in lines:
        y += REASON_STEP
        page.text(MARGIN, y + 12, line, size, BRIGHT)
    page.text(MARGIN, y + 44, f"Code: {code}", 16, NORMAL)
    y = _failed_checks(page, [check for check in quality if check["verdict"] == FAIL], y + 96)
    bottom = FOOTER - 24
    draw_series(page, series, y, bottom - ROW)
    text = f"Model {model['name']}, version {model['version']}, SHA-256 {model['sha256'][:12]}"
    page.text(MARGIN, bottom + 4, drawable(text), 14, MUTED)
    page.footer(NOTES)
    return page.image


def _failed_checks(page: Page, checks: Sequence[Mapping], y: float) -> float:
    """A table of them, if there are any; returns the baseline of what comes next."""
    if not checks:
        return y
    table_row(page, y, CHECKS, list(CHECKS), [MUTED] * len(CHECKS))
    for check in checks[:MOST_CHECKS]:
        y += ROW
        found = "nothing that can be measured" if check["value"] is None else number_in_words(check["value"])
        cells = (check["name"].replace("_", " "), found, check["limit"], check["source"])
        table_row(page, y, CHECKS, cells, [BRIGHT, WARNING, BRIGHT, MUTED])
    if len(checks) > MOST_CHECKS:
        y += ROW
        page.text(MARGIN, y, f"and {len(checks) - MOST_CHECKS} more, all in result.json", 16, WARNING)
    return y + ROW + 16
