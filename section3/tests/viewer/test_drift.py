"""A new scanner is noticed: what is told of the latest images, and its picture."""

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from common.refusal import Refusal
from common.verdicts import Check
from teaching.image_store import ImageStore
from viewer.drift import LATEST, USUAL, draw_drift, drift, told_of, usual_ranges
from viewer.segmenting import Answer


def answer(value: float, verdict: str = "pass", refusal: Refusal | None = None) -> Answer:
    checks = (
        (None, Check("brain", 1200, "", "", "pass", "")),
        ("left", Check("confidence", value, "at least .9", "", verdict, "")),
    )
    return Answer(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1)), {}, checks, refusal)


@pytest.fixture
def store(tmp_path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def add(store: ImageStore, number: int, one: Answer) -> None:
    store.add_answer(store.add_image(str(number).encode(), ".nii", "head"), "1.0", *told_of(one))


def test_images_as_in_training_are_no_drift(store):
    for number in range(30):
        add(store, number, answer(0.95, "warn" if number in (12, 25) else "pass"))
    found = drift(store, "head")
    assert (found["images"], found["changed"], found["refused"], found["latest"]) == (30, [], {}, LATEST)
    assert found["values"].keys() == {"brain", "left_confidence"}
    assert len(found["values"]["left_confidence"]) == 30
    assert drift(store, "crop")["images"] == 0


def test_a_check_that_several_of_the_latest_do_not_pass_is_named(store):
    for number in range(30):
        add(store, number, answer(0.95))
    for number in range(30, 33):
        add(store, number, answer(0.91, "warn"))
    add(store, 33, answer(0.5, "fail", Refusal("implausible-result", "no")))
    found = drift(store, "head")
    assert found["changed"] == ["left_confidence"] and found["refused"] == {"implausible-result": 1}
    assert found["refused_of_the_latest"] == 1
    # Of long ago it does not count.
    for number in range(40, 40 + LATEST):
        add(store, number, answer(0.95))
    assert drift(store, "head")["changed"] == []


def test_asking_again_of_the_same_image_counts_once(store):
    for _ in range(5):
        add(store, 1, answer(0.91, "warn"))
    assert drift(store, "head")["images"] == 1


def test_the_picture_has_a_strip_for_each_check_and_says_what_changed(store, words, require_apart):
    draw_drift(drift(store, "crop"), "crop", {})
    words.clear()
    for number in range(40):
        add(store, number, answer(0.95 - 0.001 * number, "warn" if number > 30 else "pass"))
    picture = Image.open(io.BytesIO(draw_drift(drift(store, "head"), "head", usual_ranges("head", None))))
    said = [text for text, _ in words]
    assert "1200 to 1200; usual 850 to 1800" in said and "0.911 to 0.95; usual at least 0.935" in said
    assert picture.size == (1400, 1000) and "left confidence" in said and "Look at the scanner: left_confidence" in said
    assert any("Research use only" in text for text in said)
    require_apart(words)


def test_dots_lie_before_what_is_usual(store):
    """Of the brain 850 to 1800 ml: a dot in the middle, and two that end the strip."""
    for number, brain in enumerate((400, 1325, 2250)):
        checks = ((None, Check("brain", brain, "", "", "pass", "")),)
        add(store, number, Answer(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1)), {}, checks, None))
    picture = Image.open(io.BytesIO(draw_drift(drift(store, "head"), "head", usual_ranges("head", None))))
    pixels = np.array(picture)
    shaded = np.argwhere((pixels == ImageColor.getrgb(USUAL)).all(axis=-1))
    dots = np.argwhere((pixels == ImageColor.getrgb("#56B4E9")).all(axis=-1))
    by_image = [dots[abs(dots[:, 1] - at) < 20].mean(axis=0) for at in np.quantile(dots[:, 1], (0, 0.5, 1))]
    heights = [row for row, _ in by_image]
    assert heights[0] > shaded[:, 0].max() > heights[1] > shaded[:, 0].min() > heights[2]
    share = np.ptp(shaded[:, 0]) / (heights[0] - heights[2])
    assert share == pytest.approx((1800 - 850) / (2250 - 400), abs=0.05)
