"""The page: who and when, how large, where, and with what.

Drawn with Pillow and its built-in font alone. That font knows little more than ASCII, so what it cannot draw is spelled
differently or shown as a box (`drawable`), and the raised 3 of mm³ is a small 3 (`Page.text_mm3`).
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

ANTERIOR, POSTERIOR = 1, 2
COLOURS = {ANTERIOR: "#E69F00", POSTERIOR: "#56B4E9"}  # told apart by colour-blind readers too

SIZE = (1400, 1000)
MARGIN = 48
COLUMN = 360  # width of the text on the left
HALF = COLUMN // 2 + 8  # where its second half begins
IDENTITY = 168  # y of its first line
RULE_GAP = 34  # above a dividing line
VIEWS = (MARGIN + COLUMN + 56, MARGIN, SIZE[0] - MARGIN, 884)  # left, top, right, bottom of all pictures together
GUTTER = (26, 34, 10, 24)  # left, top, right, bottom of a picture: room for its letters and title
LEGEND = 92  # height of the legend below the sagittal picture
VIEW_WIDTH = 240  # the least that a title needs
FOOTER = 912  # y of the last line across

BACKGROUND, LINE = "#0C0F14", "#2A313C"
BRIGHT, NORMAL, MUTED, WARNING = "#F4F6F8", "#C9D1DB", "#8B97A6", "#F2C14E"
CONTOUR = 2  # pixels
MOST_LETTERS = 200  # of one value: DICOM allows 64 in an alphabet, a broken file may have a million
RESEARCH = "Research use only. Not a medical device: not for diagnosis."
NOT_FOR = (
    "Contours and volumes were made by a program and nobody has checked them. "
    "Not for treatment, nor for following a patient over time.",
    "The crop does not say which of the two hippocampi it shows. "
    "Nothing here compares it with other people of that age or sex.",
)


def create_report(
    volume: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    header: Dataset,
    volumes_mm3: Mapping[str, float],
    model: Mapping[str, str],
    series_description: str,
    intervals_mm3: Mapping[str, Sequence[float]] | None = None,
    quality: Sequence[Mapping] = (),
) -> Image.Image:
    """Draw the page of one crop, an RGB image of 1400 x 1000 pixels.

    `volume` [X, Y, Z] holds raw intensities in RAS, `labels` [X, Y, Z] 0, 1 anterior, 2 posterior on the same grid,
    `spacing` is in mm. `header` carries the patient and study attributes; what it lacks becomes a dash. `volumes_mm3`
    has "anterior", "posterior" and "total", `intervals_mm3` the low and high end of each, `model` "name", "version" and
    "sha256"; `quality` lists checks with "name" and "verdict". Raises ValueError if the two grids differ.
    """
    if volume.ndim != 3 or volume.shape != labels.shape:
        raise ValueError(f"volume and labels must be one 3D grid, not {volume.shape} and {labels.shape}")
    page = Page()
    page.heading()
    y = page.identity(header, IDENTITY)
    y = page.figures(volumes_mm3, intervals_mm3 or {}, page.rule(y))
    page.provenance(volume.shape, spacing, model, series_description, page.rule(y))
    page.views(volume, labels, spacing)
    page.footer()
    page.quality(quality)
    return page.image


# --- geometry: one way from the volume to the page, for image and contour alike ---------------------------------------


@dataclass(frozen=True)
class View:
    """A plane of the volume as it is shown."""

    title: str
    axis: int
    index: int  # of the slice along the axis


SAGITTAL, CORONAL, AXIAL = 0, 1, 2  # the axis of the volume that a plane is normal to
LETTERS = {SAGITTAL: ("A", "P", "S", "I"), CORONAL: ("", "", "S", "I"), AXIAL: ("", "", "A", "P")}
SIDES = {SAGITTAL: (1, 2), CORONAL: (0, 2), AXIAL: (0, 1)}  # axes along the picture's width and height


def display_plane(volume: np.ndarray, view: View) -> np.ndarray:
    """The slice of volume [X, Y, Z] (RAS) as rows and columns of a picture, as radiologists look at it.

    Every axis is reversed: superior and anterior are up, anterior is left in a sagittal picture, the lowest x is right.
    """
    return np.take(volume, view.index, axis=view.axis).T[::-1, ::-1]


def display_size(shape: tuple[int, ...], spacing: tuple[float, ...], axis: int, zoom: float) -> tuple[int, int]:
    """Width and height in pixels of a plane normal to `axis`, at `zoom` pixels per mm."""
    return tuple(max(1, round(shape[side] * spacing[side] * zoom)) for side in SIDES[axis])


def zoom_to(plane: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """Scale a uint8 plane to (width, height); a voxel covers the same pixels whatever the resampling."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, resample))


def render(view: View, grey: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The picture of a view of uint8 volumes [X, Y, Z]; a contour is the rim of its structure's voxels."""
    pixels = np.repeat(zoom_to(display_plane(grey, view), size, Image.Resampling.BICUBIC)[..., None], 3, axis=2)
    mask = zoom_to(display_plane(labels, view), size, Image.Resampling.NEAREST)
    for label, colour in COLOURS.items():
        pixels[rim(mask == label)] = _rgb(colour)
    return Image.fromarray(pixels)


def rim(inside: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask [rows, columns], closed also at the picture's edge."""
    height, width = inside.shape
    steps = range(2 * CONTOUR + 1)
    core = np.pad(inside, CONTOUR)
    core = np.logical_and.reduce([core[step : step + height] for step in steps])
    core = np.logical_and.reduce([core[:, step : step + width] for step in steps])
    return inside & ~core


def window(volume: np.ndarray) -> np.ndarray:
    """Grey values uint8 between the 0.5th and 99.5th percentile: a bright vessel or two must not darken the rest."""
    low, high = np.percentile(volume, (0.5, 99.5))
    if low == high:  # almost constant: what little there is must be seen
        low, high = float(volume.min()), float(volume.max())
    if low == high:
        return np.full(volume.shape, 128, np.uint8)
    return np.round(np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def choose_views(labels: np.ndarray) -> list[View]:
    """Coronal slices through the middle of each structure, a sagittal and an axial one through the middle of both."""
    either = labels > 0
    views = []
    for name, label in (("anterior", ANTERIOR), ("posterior", POSTERIOR)):
        mask = labels == label
        title, mask = (f"Coronal, {name}", mask) if mask.any() else (f"Coronal; no {name} part found", either)
        views.append(View(title, CORONAL, middle_slice(mask, CORONAL)))
    for title, axis in (("Sagittal", SAGITTAL), ("Axial", AXIAL)):
        views.append(View(title, axis, middle_slice(either, axis)))
    return views


def middle_slice(mask: np.ndarray, axis: int) -> int:
    """The slice that halves the structure; it always cuts it. The middle of the volume for an empty mask."""
    profile = mask.sum(axis=tuple(other for other in range(3) if other != axis)).cumsum()
    return int(np.searchsorted(profile, profile[-1] / 2)) if profile[-1] else mask.shape[axis] // 2


# --- text -------------------------------------------------------------------------------------------------------------


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


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(colour[1:]))


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


# --- the page ---------------------------------------------------------------------------------------------------------


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

    def heading(self, title: str = "Hippocampus volumes") -> None:
        self.text(MARGIN, MARGIN + 28, title, 34, BRIGHT)
        self.text(MARGIN, MARGIN + 58, "HippoVolume.AI", 17, MUTED)

    def field(self, x: float, y: float, name: str, value: object, width: int, sizes: range, lines: int = 1) -> float:
        """A small name with its value below; returns the baseline of the last line."""
        self.text(x, y, name, 14, MUTED)
        text = drawable(str(value or "").strip()[:MOST_LETTERS]) or "-"
        written, size = fit(text, sizes, width, lines)
        y += 7 + round(sizes[0] * 1.2)  # whatever the size, so that neighbours share a baseline
        for number, line in enumerate(written):
            self.text(x, y + number * size * 1.2, line, size, BRIGHT)
        return y + (len(written) - 1) * size * 1.2

    def identity(self, header: Dataset, y: float) -> float:
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

    def identity_across(self, header: Dataset, y: float) -> None:
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

    def figures(
        self, volumes_mm3: Mapping[str, float], intervals_mm3: Mapping[str, Sequence[float]], y: float
    ) -> float:
        """The volumes with their 90 % intervals, and how the two parts share the total."""
        self.text(MARGIN, y, "Total volume", 16, MUTED)
        if intervals_mm3:
            low, high = intervals_mm3["total"]
            self.text(MARGIN + COLUMN, y, f"90 %: {low:.0f} to {high:.0f}", 16, NORMAL, "rs")
        self.text_mm3(MARGIN - 3, y + 72, volumes_mm3["total"], 72, BRIGHT)
        y += 98
        self.shares(volumes_mm3, y)
        y += 46
        for x, name, label in ((MARGIN, "Anterior", ANTERIOR), (MARGIN + HALF, "Posterior", POSTERIOR)):
            self.text(x, y, name, 16, MUTED)
            self.text_mm3(x, y + 44, volumes_mm3[name.lower()], 42, COLOURS[label])
            if intervals_mm3:
                low, high = intervals_mm3[name.lower()]
                self.text(x, y + 68, f"90 %: {low:.0f} to {high:.0f}", 14, NORMAL)
        return y + (68 if intervals_mm3 else 44)

    def shares(self, volumes_mm3: Mapping[str, float], y: float) -> None:
        """A bar as wide as the column: the anterior part of the total, then the posterior one."""
        self.draw.rectangle((MARGIN, y, MARGIN + COLUMN, y + 8), LINE)
        if volumes_mm3["total"]:
            border = MARGIN + COLUMN * volumes_mm3["anterior"] / volumes_mm3["total"]
            if border > MARGIN:
                self.draw.rectangle((MARGIN, y, border, y + 8), COLOURS[ANTERIOR])
            if border < MARGIN + COLUMN:
                self.draw.rectangle((border + 1, y, MARGIN + COLUMN, y + 8), COLOURS[POSTERIOR])

    def provenance(
        self,
        shape: tuple[int, ...],
        spacing: tuple[float, ...],
        model: Mapping[str, str],
        series_description: str,
        y: float,
    ) -> None:
        """What was measured, and by which model."""
        y = self.series(shape, spacing, series_description, y)
        y = self.field(MARGIN, y + 40, "Model", model["name"], COLUMN, range(17, 11, -1))
        self.text(MARGIN, y + 23, drawable(f"version {model['version']}, SHA-256 {model['sha256'][:12]}"), 14, NORMAL)

    def series(self, shape: tuple[int, ...], spacing: tuple[float, ...], description: str, y: float) -> float:
        """Which series, and its grid; returns the last baseline."""
        y = self.field(MARGIN, y, "Series", description, COLUMN, range(17, 11, -1)) + 23
        voxels, mm = " x ".join(map(str, shape)), " x ".join(f"{s:.3g}" for s in spacing)
        self.text(MARGIN, y, f"{voxels} voxels of {mm} mm", 14, NORMAL)
        return y

    def footer(self, notes: Sequence[str] = NOT_FOR) -> None:
        self.draw.line((MARGIN, FOOTER, SIZE[0] - MARGIN, FOOTER), LINE)
        for number, line in enumerate(wrap(RESEARCH, 20, COLUMN)):
            self.text(MARGIN, FOOTER + 30 + 25 * number, line, 20, WARNING)
        for number, line in enumerate(notes):
            self.text(VIEWS[0] + GUTTER[0], FOOTER + 29 + 21 * number, line, 14, NORMAL)

    def quality(self, checks: Sequence[Mapping]) -> None:
        """How many checks were passed, and which were not, below the footer's small print."""
        warned = [check["name"].replace("_", " ") for check in checks if check["verdict"] != "pass"]
        if not checks:
            return
        text = f"Quality: {len(checks) - len(warned)} of {len(checks)} checks passed."
        text += f" Look with care at: {', '.join(warned)}." if warned else ""
        (line,), size = fit(text, range(14, 10, -1), SIZE[0] - MARGIN - VIEWS[0] - GUTTER[0], 1)
        y = FOOTER + 29 + 21 * len(NOT_FOR)
        self.text(VIEWS[0] + GUTTER[0], y, line, size, WARNING if warned else NORMAL)

    def views(self, volume: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float]) -> None:
        """Four pictures at one scale, two by two, and the legend."""
        grey = window(volume)
        views = choose_views(labels)
        zoom = fit_zoom(volume.shape, spacing)
        places = place_views(volume.shape, spacing, zoom)
        for view, (left, top) in zip(views, places, strict=True):
            picture = render(view, grey, labels, display_size(volume.shape, spacing, view.axis, zoom))
            self.image.paste(picture, (left, top))
            self.annotate(view, left, top, *picture.size)
            self.levels(view, views, volume.shape, (left, top, *picture.size))
        self.legend(places[2][0], VIEWS[3] - GUTTER[3], zoom)

    def annotate(self, view: View, left: int, top: int, width: int, height: int) -> None:
        """Title above; the letters of known directions at the ends of the picture's left and lower sides."""
        self.text(left, top - 13, view.title, 16, BRIGHT)
        x, y = left - 13, top + height + 13
        places = ((left + 7, y), (left + width - 7, y), (x, top + 8), (x, top + height - 8))
        for letter, place in zip(LETTERS[view.axis], places, strict=True):
            self.text(*place, letter, 15, MUTED, "mm")

    def levels(self, view: View, views: list[View], shape: tuple[int, ...], box: tuple[int, int, int, int]) -> None:
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
                self.draw.line(line, colour, 3)

    def legend(self, left: int, bottom: int, zoom: float) -> None:
        """What bar, colours and marks mean; the last line stands on `bottom`."""
        self.draw.line((left, bottom - 61, left + 10 * zoom, bottom - 61), NORMAL, 3)
        self.text(left + 10 * zoom + 10, bottom - 56, "10 mm", 16)
        for x, name, label in ((left, "Anterior", ANTERIOR), (left + 120, "Posterior", POSTERIOR)):
            self.draw.rectangle((x, bottom - 41, x + 13, bottom - 28), None, COLOURS[label], CONTOUR)
            self.text(x + 22, bottom - 28, name, 16)
        for x, colour in zip((left + 2, left + 10), COLOURS.values(), strict=True):
            self.draw.line((x, bottom - 9, x, bottom - 3), colour, 3)
        self.text(left + 22, bottom, "Levels of the coronal pictures", 16)


def fit_zoom(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Pixels per mm at which the four pictures and the legend fit their area."""
    x, y, z = (n * mm for n, mm in zip(shape, spacing, strict=True))
    width = VIEWS[2] - VIEWS[0] - 2 * (GUTTER[0] + GUTTER[2])
    height = VIEWS[3] - VIEWS[1] - 2 * (GUTTER[1] + GUTTER[3])
    return min(width / (max(x, y) + x), height / (z + y), (height - LEGEND) / (2 * z))


def place_views(shape: tuple[int, ...], spacing: tuple[float, ...], zoom: float) -> list[tuple[int, int]]:
    """Left and top of the four pictures: the coronal ones above, the sagittal and the axial one below."""
    sizes = [display_size(shape, spacing, axis, zoom) for axis in (1, 0)]
    left, top = VIEWS[0] + GUTTER[0], VIEWS[1] + GUTTER[1]
    right = VIEWS[2] - GUTTER[2] - max(VIEW_WIDTH, sizes[0][0])
    below = top + sizes[0][1] + GUTTER[3] + GUTTER[1]
    return [(left, top), (right, top), (left, below), (right, below)]
