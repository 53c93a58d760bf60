"""Letters: in the font's own, in their place, and never blank."""

import numpy as np
import pytest
from PIL import ImageFont

from pages import canvas
from pages.canvas import BOX, MARGIN, MOST_LETTERS, Page, date, drawable, fit, font, has_glyph, person, wrap


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Müller^Jürgen", "Muller, Jurgen"),
        ("Strauß^Søren", "Strauss, Soren"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou"),
        ("=山田^太郎", "\ufffd\ufffd, \ufffd\ufffd"),
        ("Иванов^Иван", "\ufffd" * 6 + ", " + "\ufffd" * 4),
        ("Doe^\x07\u202eJane", "Doe, \ufffd\ufffdJane"),
        ("^Jane", "Jane"),
        ("Doe^", "Doe"),
        ("^^", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_names_are_written_in_letters_that_the_font_has(name, shown):
    assert drawable(person(name)) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [("20200119", "2020-01-19"), ("2020", "2020"), ("yesterday", "yesterday"), ("", ""), (None, "")]
)
def test_what_is_no_date_stands_as_it_is(value, shown):
    assert date(value) == shown


def test_a_letter_that_the_font_lacks_is_never_blank():
    assert not has_glyph("日")
    assert not has_glyph(BOX)
    assert any(font(20).getmask(BOX))
    assert all(has_glyph(character) for character in "AZaz09 -.,:…±")


@pytest.mark.parametrize("text", ["some words of several lengths, and more", "W" * 100, "", "a " + "W" * 100 + " b"])
def test_lines_are_no_wider_than_their_column(text):
    lines = wrap(text, 20, 150)
    assert all(font(20).getlength(line) <= 150 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_text_is_made_smaller_before_it_is_cut():
    assert fit("short", range(20, 10, -1), 150, 1) == (["short"], 20)
    (line,), size = fit("a little longer than that", range(20, 10, -1), 150, 1)
    assert line == "a little longer than that" and 10 < size < 20
    (line,), size = fit("x" * 500, range(20, 10, -1), 150, 1)
    assert line.endswith("…") and size == 11
    assert font(size).getlength(line) <= 150


def test_a_value_of_a_million_letters_costs_no_more_than_one_of_the_longest(words, monkeypatch):
    """As much of it is laid out, letter by letter, as of one that a header may have."""
    measured = []
    getlength = ImageFont.FreeTypeFont.getlength

    def counted(self, text, *rest, **more):
        measured.append(len(text))
        return getlength(self, text, *rest, **more)

    monkeypatch.setattr(ImageFont.FreeTypeFont, "getlength", counted)
    counts = []
    for letters in (MOST_LETTERS, 1_000_000):
        measured.clear()
        Page().identity({"PatientName": "x" * letters + "^y", "PatientID": "y z" * letters}, canvas.IDENTITY)
        counts.append((len(measured), sum(measured)))
    assert counts[0] == counts[1]
    assert counts[0][0] > MOST_LETTERS
    assert any(text.endswith("…") for text, _ in words)


def test_a_volume_has_its_unit_whose_3_is_raised(words):
    Page().text_mm3(100, 200, 1234.56, 40, canvas.BRIGHT)
    assert [text for text, _ in words] == ["1235", "mm", "3"]
    _, unit, raised = (box for _, box in words)
    assert raised[3] < unit[3]


@pytest.mark.parametrize("value", ["", None, "  "])
def test_what_a_header_lacks_is_a_dash(words, value):
    Page().identity({} if value is None else {"PatientID": value, "StudyDate": value}, canvas.IDENTITY)
    assert [text for text, _ in words].count("-") == 4


def test_nothing_is_drawn_on_the_margin():
    page = Page()
    page.identity_across({"PatientName": "W" * 300, "PatientID": "W" * 300, "AccessionNumber": "W" * 300}, 154)
    pixels = np.asarray(page.image)
    assert (pixels[:, : MARGIN - 2] == pixels[0, 0]).all()
    assert (pixels[:, canvas.SIZE[0] - MARGIN + 2 :] == pixels[0, 0]).all()
