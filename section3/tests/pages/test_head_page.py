"""The page of a head: whatever was found of it is said, and nothing is drawn outside."""

import numpy as np
import pytest

from common.refusal import Refusal
from common.structures import LEFT, RIGHT
from common.verdicts import WARN, Check, SeriesVerdict
from common.volume import Grid, Volume
from measuring.measurement import Hippocampus, Measurement
from pages.canvas import SIZE
from pages.head_page import create_head_page

MODEL = {"name": "hippovolume", "version": "1", "sha256": "0" * 64}
BOXES = ((slice(2, 12), slice(8, 24), slice(6, 14)), (slice(18, 28), slice(8, 24), slice(6, 14)))


@pytest.fixture
def head() -> Volume:
    voxels = np.random.default_rng(0).random((30, 36, 28)).astype(np.float32)
    return Volume(voxels, Grid(voxels.shape, np.diag([5.0, 5, 5, 1])))


@pytest.fixture
def side(head):
    """side(name, ...): a hippocampus on its box, with volumes or a reason."""

    def make(name: str, volume: float | None, checks: tuple[Check, ...] = ()) -> Hippocampus:
        box = BOXES[(LEFT, RIGHT).index(name)]
        shape = tuple(one.stop - one.start for one in box)
        if volume is None:
            refusal = Refusal("implausible-result", "The model is unusually unsure.")
            return Hippocampus(Grid(shape, head.grid.affine), checks, refusal=refusal, side=name, box=box)
        labels = np.zeros(shape, np.uint8)
        labels[2:6, 8:12, 2:6], labels[2:6, 4:8, 2:6] = 1, 2
        volumes = {"anterior": volume * 0.55, "posterior": volume * 0.45, "total": volume}
        return Hippocampus(Grid(shape, head.grid.affine), checks, labels, volumes, side=name, box=box)

    return make


def said(monkeypatch, measurement: Measurement, **more) -> list[str]:
    """The texts that are drawn on the page."""
    from pages import canvas

    texts = []
    draw = canvas.Page.text

    def text(page, x, y, words, *more, **named):
        texts.append(words)
        assert 0 <= x < SIZE[0] and 0 < y < SIZE[1], words
        return draw(page, x, y, words, *more, **named)

    monkeypatch.setattr(canvas.Page, "text", text)
    assert create_head_page(measurement, MODEL, **more).size == SIZE
    return texts


def test_both_sides_and_their_difference_are_told(monkeypatch, head, side):
    measured = Measurement({}, source=head, hippocampi=(side(LEFT, 3000), side(RIGHT, 3200)))
    texts = said(monkeypatch, measured, image="subject.nii.gz")
    for words in ("3000", "3200", "1650", "1440", "subject.nii.gz", "Left, total", "Right, coronal"):
        assert words in texts
    assert "The left one is 6.2 % smaller." in texts  # of the larger
    assert any("Research use only" in words for words in texts)
    assert (texts.count("R"), texts.count("L")) == (6, 6)  # of each coronal and axial picture


def test_of_a_side_without_a_number_the_reason_is_told_and_no_difference(monkeypatch, head, side):
    measured = Measurement({}, source=head, hippocampi=(side(LEFT, 3000), side(RIGHT, None)))
    texts = said(monkeypatch, measured)
    assert "no number" in texts and "3000" in texts
    assert not any("smaller" in words for words in texts)
    assert any("No number of the right one." in words for words in texts)


def test_what_calls_for_care_is_told_with_its_side(monkeypatch, head, side):
    check = Check("margin", 1.0, "at least 1", "", WARN, "A part may be cut off.")
    sides = side(LEFT, 3000, (check,)), side(RIGHT, 3000)
    texts = " ".join(said(monkeypatch, Measurement({}, source=head, hippocampi=sides, checks=(check,))))
    assert "With care: A part may be cut off." in texts and "With care (left): A part may be cut off." in texts


def test_a_head_without_any_number_has_a_page_that_says_why(monkeypatch, head):
    refused = Measurement({}, source=head, refusal=Refusal("unfit-input", "No head of an adult. " * 20))
    texts = said(monkeypatch, refused, image="x" * 300 + ".nii.gz")
    assert "No volumes" in texts and any("No head of an adult." in words for words in texts)
    assert not any(words.isdigit() for words in texts)


def test_a_side_that_lies_outside_of_the_image_has_no_picture(monkeypatch, head, side):
    outside = Hippocampus(head.grid, refusal=Refusal("structure-cut", "It lies outside."), side=RIGHT)
    texts = said(monkeypatch, Measurement({}, source=head, hippocampi=(side(LEFT, 3000), outside)))
    assert "Left, coronal" in texts and "Right, coronal" not in texts
    assert any("It lies outside." in words for words in texts)


@pytest.mark.parametrize("warnings", [0, 12])
def test_of_a_study_the_patient_is_named_and_no_text_lies_on_another(head, side, words, require_apart, warnings):
    checks = (Check("margin", 1.0, "at least 1", "", WARN, "A part may be cut off, or what not. " * 3),) * warnings
    sides = side(LEFT, 3000, checks), side(RIGHT, 3200, checks)
    series = (SeriesVerdict("1.2", "T1w MPRAGE", "MR", 176, None, "meets all conditions"),)
    header = {"PatientName": "A very long name indeed^Of a patient^With many names", "PatientID": "X" * 64}
    create_head_page(Measurement({}, series, head, sides, checks), MODEL, header, history="analysed 2026-11-26")
    said = " ".join(text for text, _ in words)
    assert "T1w MPRAGE" in said and "Analysed 2026-11-26" in said
    require_apart(words)
