"""Does what comes still look like what the models learned from? A new scanner is noticed before its numbers are used.

Each check of an image has a value, and a verdict by what was usual in training. There, one image in fifty or fewer does
not pass a check; three of twenty would by chance in one set of twenty in a hundred.
"""

from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime

from common.product import PRODUCT
from common.verdicts import PASS
from pages.canvas import BRIGHT, LINE, MARGIN, MUTED, NORMAL, SIZE, WARNING, Page, fit
from teaching.image_store import ImageStore
from viewer.segmenting import Answer

MOST = 500  # answers
LATEST, SUSPICIOUS = 20, 3
COLUMNS, TOP, ROW = 3, 150, 92  # of the picture
DOTS = {"pass": "#56B4E9", "warn": WARNING, "fail": "#ff8a7a"}


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


def draw_drift(found: dict, kind: str) -> bytes:
    """A strip for each check, the oldest image at the left; PNG."""
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
        _strip(page, name, values, found["images"], place)
    page.footer(["Each dot is an image, the latest at the right. Blue: as in training; yellow: unusual; red: refused."])
    packed = io.BytesIO()
    page.image.save(packed, "PNG")
    return packed.getvalue()


def _strip(page: Page, name: str, values: list[dict], images: int, place: tuple[float, float, float, float]) -> None:
    """place: left, top, width and height."""
    x, y, width, height = place
    numbers = [row["value"] for row in values if row["value"] is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0, 0)
    span = (high - low) or 1
    page.text(x, y + 12, name.replace("_", " "), 13, NORMAL)
    page.text(x + width, y + 12, f"{_short(low)} to {_short(high)}", 12, MUTED, "rs")
    page.draw.line((x, y + height, x + width, y + height), LINE)
    for row in values:
        if row["value"] is not None:
            middle = x + (row["image"] + 0.5) * width / max(images, 2)
            level = y + height - 5 - (row["value"] - low) / span * (height - 28)
            page.draw.ellipse((middle - 2.5, level - 2.5, middle + 2.5, level + 2.5), fill=DOTS[row["verdict"]])


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
