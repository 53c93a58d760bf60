"""The page of all series: every verdict is on it, whatever the files say."""

import pytest
from pydicom import Dataset

import report
from series_page import create_series_page

HEADER = Dataset()
HEADER.PatientName, HEADER.PatientID, HEADER.StudyDate = "Doe^Jane", "ID-7", "20200119"


def _row(description: str, accepted: bool = False) -> dict:
    reason = "meets all conditions" if accepted else f"SeriesDescription is {description!r}, expected HippoCrop"
    condition = None if accepted else "description"
    return {
        "description": description,
        "instances": 32,
        "accepted": accepted,
        "condition": condition,
        "reason": reason,
    }


@pytest.fixture
def words(monkeypatch) -> list[str]:
    """All that is written on the page."""
    written = []
    text = report.Page.text

    def note(self, x, y, string, *rest):
        written.append(string)
        assert x + report.font(rest[0]).getlength(string) <= report.SIZE[0]
        return text(self, x, y, string, *rest)

    monkeypatch.setattr(report.Page, "text", note)
    return written


def test_every_series_is_on_the_page_and_the_chosen_one_first(words):
    page = create_series_page([_row("T1post"), _row("FLAIR_reg"), _row("HippoCrop", True)], HEADER)
    assert page.size == report.SIZE
    assert [word for word in words if word in ("T1post", "FLAIR_reg", "HippoCrop")] == [
        "HippoCrop",
        "T1post",
        "FLAIR_reg",
    ]
    assert words.count("rejected") == 2
    assert any("Research use only" in word for word in words)
    assert {"Doe, Jane", "ID-7", "2020-01-19"} <= set(words)


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 17, 40])
def test_what_has_no_room_is_counted(words, count):
    create_series_page([_row(f"series {number}") for number in range(count)], HEADER)
    shown = sum(word.startswith("series ") for word in words)
    assert shown == count if count <= 15 else 10 < shown < count
    assert [word for word in words if " more series" in word] == (
        [f"and {count - shown} more series, all in result.json"] if shown < count else []
    )


@pytest.mark.parametrize("text", ["", "x" * 5000, "<b>\x1b[2J\n", "\ud55c\uad6d\u8a9e"])
def test_any_text_stays_in_its_column(words, text):
    page = create_series_page([_row(text)], HEADER)
    assert page.crop((report.SIZE[0] - report.MARGIN + 1, 0, *report.SIZE)).getcolors(1)  # the background alone
