"""The structures that are measured: by which label, name and colour each is known, everywhere."""

from dataclasses import dataclass

ANTERIOR, POSTERIOR = 1, 2


@dataclass(frozen=True)
class Structure:
    """key: in volumes_mm3 and result.json. labels: of the voxels that belong to it. colour: #RRGGBB."""

    key: str
    name: str
    labels: tuple[int, ...]
    colour: str


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
