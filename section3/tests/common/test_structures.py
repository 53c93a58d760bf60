"""The structures, of which no two may be taken for each other."""

import pytest

from common.structures import ANTERIOR, COLOURS, PARTS, POSTERIOR, STRUCTURES, WHOLE


@pytest.mark.parametrize("attribute", ["key", "name", "labels", "colour"])
def test_no_two_structures_share(attribute):
    values = [getattr(one, attribute) for one in STRUCTURES]
    assert len(set(values)) == len(values) == 3


def test_the_parts_make_up_the_whole():
    assert [part.labels for part in PARTS] == [(ANTERIOR,), (POSTERIOR,)]
    assert WHOLE.labels == tuple(label for part in PARTS for label in part.labels)
    assert (*PARTS, WHOLE) == STRUCTURES


def test_every_label_has_a_colour_of_its_own_that_is_no_grey():
    assert list(COLOURS) == [ANTERIOR, POSTERIOR]
    for colour in COLOURS.values():
        assert len(set(bytes.fromhex(colour.removeprefix("#")))) == 3  # a contour must stand out from the picture
