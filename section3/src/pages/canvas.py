"""The canvas of all pages: its layout, its letters, and what every page has.

Drawn with Pillow and its built-in font alone. That font knows little more than ASCII, so what it cannot draw is spelled
differently or shown as a box (`drawable`), and the raised 3 of mm³ is a small 3 (`Page.text_mm3`).
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from common.product import PRODUCT, RESEARCH
from common.volume import Grid

SIZE = (1400, 1000)
MARGIN = 48
COLUMN = 360  # width of the text on the left
HALF = COLUMN // 2 + 8  # where its second half begins
IDENTITY = 148  # y of its first line
IDENTITY_ACROSS = 154  # y of the same on one line
RULE_GAP = 26  # above a dividing line
VIEWS = (MARGIN + COLUMN + 56, MARGIN, SIZE[0] - MARGIN, 884)  # left, top, right, bottom of all pictures together
GUTTER = (26, 34, 10, 24)  # left, top, right, bottom of a picture: room for its letters and title
FOOTER = 912  # y of the last line across

BACKGROUND, LINE = "#0C0F14", "#2A313C"
BRIGHT, NORMAL, MUTED, WARNING = "#F4F6F8", "#C9D1DB", "#8B97A6", "#F2C14E"
MOST_LETTERS = 200  # of one value: DICOM allows 64 in an alphabet, a broken file may have a million
DISCLAIMER = f"{RESEARCH}. Not a medical device: not for diagnosis."


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


@functools.cache
def has_glyph(character: str) -> bool:
    """Whether the font draws the character itself and not the box that stands for what it lacks."""
    missing, drawn = (font(20).getmask(text) for text in ("\ue000", character))
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


BOX = "\ufffd"  # drawn as the font's own box
SPELLED = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "–": "-"})


def drawable(text: str) -> str:
    """`text` in characters that the font has: accents dropped, and a box for each one that has no such spelling."""
    plain = unicodedata.normalize("NFKD", text.translate(SPELLED))
    return "".join(c if c.isprintable() and has_glyph(c) else BOX for c in plain if not unicodedata.combining(c))


def person(name: object) -> str:
    """A DICOM name as people write it: family name, given names; in the first of its alphabets that says something."""
    written = next((group for group in str(name or "").split("=") if group.strip("^ ")), "")
    family, *others = (part.strip() for part in written.split("^"))
    return ", ".join(part for part in (family, " ".join(filter(None, others))) if part)


def date(value: object) -> str:
    """A DICOM date as YYYY-MM-DD; what is no date as it stands."""
    text = str(value or "")
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdecimal() else text


def wrap(text: str, size: int, width: int) -> list[str]:
    """Break text into lines of at most `width` pixels, at spaces where possible."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if font(size).getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for character in word:
            if font(size).getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def fit(text: str, sizes: range, width: int, line_count: int) -> tuple[list[str], int]:
    """Lines, and the first of `sizes` that needs no more of them than asked; at the last one, cut with an ellipsis."""
    for size in sizes:
        lines = wrap(text, size, width)
        if len(lines) <= line_count:
            return lines, size
    last = lines[line_count - 1]
    while font(size).getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: line_count - 1], last + "…"], size


def who_made(corrected_by: str) -> str:
    """Whose contours a page shows, and that nobody else has looked."""
    if corrected_by:
        name = drawable(corrected_by)[:40]
        return f"Contours were drawn or corrected by {name}; nobody else has checked them."
    return "Contours and volumes were made by a program and nobody has checked them."


def in_words(grid: Grid) -> str:
    voxels, mm = " x ".join(map(str, grid.shape)), " x ".join(f"{side:.3g}" for side in grid.spacing)
    return f"{voxels} voxels of {mm} mm"


def model_in_words(model: Mapping[str, str]) -> str:
    return f"Model {model['name']} {model['version']} ({model['sha256'][:12]})"


class Page:
    """The canvas and what is drawn on it, part by part. Positions are pixels; text stands on its baseline."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", SIZE, BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, size: int, colour: str = NORMAL, anchor: str = "ls") -> float:
        """Draw one line; returns the x where it ends (for text anchored at its left)."""
        self.draw.text((x, y), text, colour, font(size), anchor=anchor)
        return x + font(size).getlength(text)

    def text_mm3(self, x: float, y: float, value: float, size: int, colour: str) -> None:
        """A volume; the unit's raised 3 is a smaller 3, as the font has no ³."""
        unit = round(size * 0.45)
        x = self.text(x, y, f"{value:.0f}", size, colour)
        x = self.text(x + unit * 0.3, y, "mm", unit, MUTED)
        self.text(x + 1, y - unit * 0.4, "3", round(unit * 0.65), MUTED)

    def rule(self, y: float) -> float:
        """A line across the left column; returns the baseline where the next part begins."""
        self.draw.line((MARGIN, y + RULE_GAP, MARGIN + COLUMN, y + RULE_GAP), LINE)
        return y + 2 * RULE_GAP + 4

    def heading(self, title: str) -> None:
        self.text(MARGIN, MARGIN + 28, title, 34, BRIGHT)
        self.text(MARGIN, MARGIN + 58, PRODUCT, 17, MUTED)

    def field(self, x: float, y: float, name: str, value: object, width: int, sizes: range, lines: int = 1) -> float:
        """A small name with its value below; returns the baseline of the last line."""
        self.text(x, y, name, 14, MUTED)
        text = drawable(str(value or "").strip()[:MOST_LETTERS]) or "-"
        written, size = fit(text, sizes, width, lines)
        y += 7 + round(sizes[0] * 1.2)  # whatever the size, so that neighbours share a baseline
        for number, line in enumerate(written):
            self.text(x, y + number * size * 1.2, line, size, BRIGHT)
        return y + (len(written) - 1) * size * 1.2

    def identity(self, header: Mapping[str, str], y: float) -> float:
        """Who and when, as the study carries them."""
        name = person(header.get("PatientName"))
        y = self.field(MARGIN, y, "Patient", name, COLUMN, range(28, 14, -1), lines=2)
        if drawable(name) != name:
            y += 22
            self.text(MARGIN, y, "Spelled plainly here; the DICOM header has the name.", 13, MUTED)
        y = self.field(MARGIN, y + 40, "Patient ID", header.get("PatientID"), COLUMN, range(20, 11, -1), lines=2)
        y += 40
        width, sizes = COLUMN - HALF, range(20, 11, -1)
        self.field(MARGIN, y, "Study date", date(header.get("StudyDate")), width, sizes)
        return self.field(MARGIN + HALF, y, "Accession number", header.get("AccessionNumber"), width, sizes)

    def identity_across(self, header: Mapping[str, str], y: float) -> None:
        """The same on one line, for pages that are no measurement."""
        values = (
            ("Patient", person(header.get("PatientName")), 500),
            ("Patient ID", header.get("PatientID"), 400),
            ("Study date", date(header.get("StudyDate")), 160),
            ("Accession number", header.get("AccessionNumber"), 244),
        )
        x = MARGIN
        for name, value, width in values:
            self.field(x, y, name, value, width - 16, range(20, 11, -1))
            x += width

    def series(self, grid: Grid, description: str, y: float) -> float:
        """Which series, and its grid; returns the last baseline."""
        y = self.field(MARGIN, y, "Series", description, COLUMN, range(17, 11, -1)) + 23
        self.text(MARGIN, y, in_words(grid), 14, NORMAL)
        return y

    def note(self, y: float, text: str, width: int = COLUMN) -> None:
        """One muted line of small print at the left, begun with a capital, as small as it takes."""
        (line,), size = fit(drawable(text[:1].upper() + text[1:]), range(14, 10, -1), width, 1)
        self.text(MARGIN, y, line, size, MUTED)

    def footer(self, notes: Sequence[str]) -> None:
        self.draw.line((MARGIN, FOOTER, SIZE[0] - MARGIN, FOOTER), LINE)
        for number, line in enumerate(wrap(DISCLAIMER, 20, COLUMN)):
            self.text(MARGIN, FOOTER + 30 + 25 * number, line, 20, BRIGHT)
        for number, line in enumerate(notes):
            self.text(VIEWS[0] + GUTTER[0], FOOTER + 29 + 21 * number, line, 14, NORMAL)
