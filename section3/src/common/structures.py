"""The structures that are measured: by which label, name and colour each is known, everywhere."""

from dataclasses import dataclass, replace

import numpy as np

ANTERIOR, POSTERIOR = 1, 2
LEFT, RIGHT = "left", "right"
SIDES = (LEFT, RIGHT)


@dataclass(frozen=True)
class Structure:
    """key: in volumes_mm3 and result.json. labels: of the voxels that belong to it. colour: #RRGGBB.

    side: "left" or "right", None of a crop, which does not say.
    """

    key: str
    name: str
    labels: tuple[int, ...]
    colour: str
    side: str | None = None


# Two colours that colour-blind readers tell apart. In each, red and blue differ: by that the contours are found again
# on grey images. Who changes a colour raises objects.provenance.REVISION, as the same result then looks different.
PARTS = (
    Structure("anterior", "Anterior hippocampus", (ANTERIOR,), "#E69F00"),
    Structure("posterior", "Posterior hippocampus", (POSTERIOR,), "#56B4E9"),
)
# White: it lies over the other two, whose colours another colour would change.
WHOLE = Structure("total", "Whole hippocampus", (ANTERIOR, POSTERIOR), "#FFFFFF")
STRUCTURES = (*PARTS, WHOLE)  # in the order of their segment numbers, from 1
if any(part.colour[1:3] == part.colour[5:7] for part in PARTS):
    raise ValueError("the colour of a part must not have as much red as blue")
COLOURS = {part.labels[0]: part.colour for part in PARTS}


def structures_of(side: str | None) -> tuple[Structure, ...]:
    """STRUCTURES of one side of a head, with labels of their own: 1 and 2 of the left parts, 3 and 4 of the right."""
    if side is None:
        return STRUCTURES
    first = len(PARTS) * SIDES.index(side)
    return tuple(
        replace(
            one,
            name=f"{side.capitalize()} {one.name.lower()}",
            labels=tuple(first + label for label in one.labels),
            side=side,
        )
        for one in STRUCTURES
    )


def without_sides(labels: np.ndarray) -> np.ndarray:
    """Labels of a head as those of a crop: anterior and posterior, whichever side."""
    return np.where(labels > len(PARTS), labels - len(PARTS), labels).astype(labels.dtype)
