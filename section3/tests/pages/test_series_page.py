"""The page of all series: every verdict is on it, whatever the files say."""

from collections.abc import Callable

import pytest

from common.verdicts import SeriesVerdict
from pages.canvas import MARGIN, SIZE
from pages.series_page import create_series_page

HEADER = {"PatientName": "Doe^Jane", "PatientID": "ID-7", "StudyDate": "20200119"}


def _verdict(description: str, accepted: bool = False) -> SeriesVerdict:
    condition = None if accepted else "description"
    reason = "meets all conditions" if accepted else f"SeriesDescription is {description!r}, expected HippoCrop"
    return SeriesVerdict("1.2", description, "MR", 32, condition, reason)


@pytest.fixture
def texts(words) -> Callable:
    """texts(): all that is written on the page so far, none of it beyond its edge."""

    def written() -> list[str]:
        for text, (left, top, right, bottom) in words:
            assert left >= 0 and top >= 0 and right <= SIZE[0] and bottom <= SIZE[1], text
        return [text for text, _ in words]

    return written


def test_every_series_is_on_the_page_and_the_chosen_one_first(texts):
    page = create_series_page([_verdict("T1post"), _verdict("FLAIR_reg"), _verdict("HippoCrop", True)], HEADER)
    assert page.size == SIZE
    words = texts()
    assert [word for word in words if word in ("T1post", "FLAIR_reg", "HippoCrop")] == [
        "HippoCrop",
        "T1post",
        "FLAIR_reg",
    ]
    assert words.count("rejected") == 2
    assert any("Research use only" in word for word in words)
    assert {"Doe, Jane", "ID-7", "2020-01-19"} <= set(words)


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 17, 40])
def test_what_has_no_room_is_counted(texts, count):
    create_series_page([_verdict(f"series {number}") for number in range(count)], HEADER)
    words = texts()
    shown = sum(word.startswith("series ") for word in words)
    assert shown == count if count <= 15 else 10 < shown < count
    assert [word for word in words if " more series" in word] == (
        [f"and {count - shown} more series, all in result.json"] if shown < count else []
    )


@pytest.mark.parametrize("text", ["", "x" * 5000, "<b>\x1b[2J\n", "\ud55c\uad6d\u8a9e"])
def test_any_text_stays_in_its_column(texts, text):
    page = create_series_page([_verdict(text)], HEADER)
    assert texts()
    assert page.crop((SIZE[0] - MARGIN + 1, 0, *SIZE)).getcolors(1)  # the background alone
