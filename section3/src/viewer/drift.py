"""Does what comes still look like what the models learned from? A new scanner is noticed before its numbers are used.

Each check of an image has a value, and a verdict by what was usual in training. There, one image in fifty or fewer does
not pass a check; three of twenty would by chance in one set of twenty in a hundred.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from checks.quality import limits_in_words, number_in_words
from checks.quality_limits import Limits, Range
from common.product import PRODUCT
from common.structures import SIDES
from common.verdicts import PASS
from measuring.head_quality import HEAD_CHECKS, SIDE_RANGES
from pages.canvas import BRIGHT, LINE, MARGIN, MUTED, NORMAL, SIZE, WARNING, Page, fit
from teaching.image_store import ImageStore
from teaching.images import HEAD
from viewer.segmenting import Answer

MOST = 500  # answers
LATEST, SUSPICIOUS = 20, 3
COLUMNS, TOP, ROW = 3, 150, 92  # of the picture
DOTS = {"pass": "#56B4E9", "warn": WARNING, "fail": "#ff8a7a"}
USUAL = "#172433"


def told_of(answer: Answer) -> tuple[str | None, dict]:
    """Code and checks of an answer, volumes among them, as the store keeps them."""
    checks = [
        {
            "name": f"{side}_{one.name}" if side else one.name,
            "value": one.value,
            "usual": one.limit,
            "verdict": one.verdict,
        }
        for side, one in answer.checks
    ]
    return answer.refusal.code if answer.refusal else None, {"checks": checks}


def drift(store: ImageStore, kind: str) -> dict:
    """What the latest images were like. changed: the checks that too many of the last ones did not pass."""
    answers = store.answers(kind, MOST)
    values: dict[str, list[dict]] = {}
    for image, one in enumerate(answers):
        at = datetime.fromtimestamp(one["at"], UTC).isoformat(timespec="seconds")
        for check in one["found"]["checks"]:
            values.setdefault(check["name"], []).append(
                {"image": image, "at": at, **{k: check[k] for k in ("value", "usual", "verdict")}}
            )
    outside = {name: sum(row["verdict"] != PASS for row in rows[-LATEST:]) for name, rows in values.items()}
    return {
        "kind": kind,
        "images": len(answers),
        "refused": dict(Counter(one["code"] for one in answers if one["code"])),
        "refused_of_the_latest": sum(one["code"] is not None for one in answers[-LATEST:]),
        "latest": min(LATEST, len(answers)),
        "changed": sorted(name for name, count in outside.items() if count >= SUSPICIOUS),
        "values": values,
    }


def usual_ranges(kind: str, limits: Limits | None) -> dict[str, Range]:
    """By the names of checks; limits: those of crops."""
    if kind == HEAD:
        of_sides = {f"{side}_{name}": one for side in SIDES for name, one in SIDE_RANGES.items()}
        return {measure.name: one for measure, one in HEAD_CHECKS} | of_sides
    return dict(limits.ranges) if limits else {}


def draw_drift(found: dict, kind: str, usual: Mapping[str, Range]) -> bytes:
    """A strip for each check, the oldest image at the left, before what is usual; PNG."""
    page = Page()
    page.text(MARGIN, MARGIN + 28, f"What {kind}s were like", 34, BRIGHT)
    page.text(MARGIN, MARGIN + 58, PRODUCT, 17, MUTED)
    refused = ", ".join(f"{code} {count}" for code, count in found["refused"].items()) or "none"
    page.text(MARGIN + 460, MARGIN + 28, f"{found['images']} images; refused: {refused}", 17, NORMAL)
    told = f"Look at the scanner: {', '.join(found['changed'])}" if found["changed"] else "Nothing has changed."
    (line,), size = fit(told, range(17, 10, -1), SIZE[0] - 2 * MARGIN - 460, 1)
    page.text(MARGIN + 460, MARGIN + 58, line, size, WARNING if found["changed"] else NORMAL)
    width = (SIZE[0] - 2 * MARGIN) / COLUMNS
    rows = -(-len(found["values"]) // COLUMNS)
    height = min(ROW, (SIZE[1] - TOP - 110) / max(rows, 1))
    for number, (name, values) in enumerate(found["values"].items()):
        column, row = divmod(number, rows)
        place = (MARGIN + column * width, TOP + row * height, width - 24, height - 14)
        within = usual[name].warn if name in usual else (None, None)
        _strip(page, name, values, found["images"], within, place)
    note = "Each dot is an image, the latest at the right. Blue: as in training (shaded: what was usual there); "
    page.footer([note + "yellow: unusual; red: refused."])
    packed = io.BytesIO()
    page.image.save(packed, "PNG")
    return packed.getvalue()


def _strip(
    page: Page,
    name: str,
    values: list[dict],
    images: int,
    usual: tuple[float | None, float | None],
    place: tuple[float, float, float, float],
) -> None:
    """place: left, top, width and height."""
    x, y, width, height = place
    numbers = [row["value"] for row in values if row["value"] is not None]
    ends = [end for end in usual if end is not None]
    low, high = min(numbers + ends, default=0), max(numbers + ends, default=0)

    def level(value: float) -> float:
        return y + height - 5 - (value - low) / ((high - low) or 1) * (height - 28)

    if ends:
        top = y + 18 if usual[1] is None else level(usual[1])
        bottom = y + height if usual[0] is None else level(usual[0])
        page.draw.rectangle((x, top, x + width, bottom), USUAL)
    page.text(x, y + 12, name.replace("_", " "), 13, NORMAL)
    if numbers:
        told = f"{number_in_words(min(numbers))} to {number_in_words(max(numbers))}"
        told += f"; usual {limits_in_words(usual)}" if ends else ""
        page.text(x + width, y + 12, told, 12, MUTED, "rs")
    page.draw.line((x, y + height, x + width, y + height), LINE)
    for row in values:
        if row["value"] is not None:
            middle, at = x + (row["image"] + 0.5) * width / max(images, 2), level(row["value"])
            page.draw.ellipse((middle - 2.5, at - 2.5, middle + 2.5, at + 2.5), fill=DOTS[row["verdict"]])
