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


PARTS = (  # two colours that colour-blind readers tell apart
    Structure("anterior", "Anterior hippocampus", (ANTERIOR,), "#E69F00"),
    Structure("posterior", "Posterior hippocampus", (POSTERIOR,), "#56B4E9"),
)
# White: it lies over the other two, whose colours another colour would change.
WHOLE = Structure("total", "Whole hippocampus", (ANTERIOR, POSTERIOR), "#FFFFFF")
STRUCTURES = (*PARTS, WHOLE)  # in the order of their segment numbers, from 1
COLOURS = {part.labels[0]: part.colour for part in PARTS}
