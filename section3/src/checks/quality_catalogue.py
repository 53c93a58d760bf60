"""What is asked of a crop and of the model's answer, in words."""

from dataclasses import dataclass, replace

from checks.quality_measures import WRONG_SCALE


@dataclass(frozen=True)
class Measure:
    """What a check is about, in the words for its sentence. A side without words has no limit."""

    name: str
    subject: str
    unit: str = ""
    too_low: str = ""
    too_high: str = ""


_SIZE = {
    "unit": "mm",
    "too_low": "the crop is too tight, or its spacing is wrong",
    "too_high": "this is no crop around one hippocampus, or its spacing is wrong",
}
_GREY = {
    "too_low": "the contrast is not that of the T1-weighted crops of training",
    "too_high": "the contrast is not that of the T1-weighted crops of training",
}


def _volume(name: str, what: str) -> Measure:
    return Measure(
        name,
        f"The volume of the {what}",
        "mm3",
        too_low=f"the {what} is smaller than any that experts outlined for the model",
        too_high=f"the {what} is larger than any that experts outlined for the model",
    )


SIZE_MEASURES = (
    Measure("size_x", "The size of the crop from side to side", **_SIZE),
    Measure("size_y", "The size of the crop from back to front", **_SIZE),
    Measure("size_z", "The size of the crop from bottom to top", **_SIZE),
)
IMAGE_MEASURES = (
    Measure("grey_levels", "The number of grey values", too_low="such an image holds next to no information"),
    Measure("brightness", "The mean grey value on a scale from 0 (black) to 1 (white)", **_GREY),
    Measure("asymmetry", "The skewness of the grey values", **_GREY),
    Measure(
        "smoothness",
        "The correlation of neighbouring voxels",
        too_low="the image is noise, broken, or of another contrast",
        too_high="the image is blurred, or was enlarged from coarser voxels",
    ),
    Measure(
        "likeness",
        "The likeness (correlation) to the mean training crop",
        too_low="the crop shows something else, in another contrast, or not in its middle",
    ),
    Measure(
        "orientation",
        "The likeness to the mean training crop less the one to its best mirror image",
        too_low="the crop looks mirrored or turned against the training crops",
    ),
    Measure(
        "scale",
        f"The likeness to the mean training crop less the one to it {WRONG_SCALE:g} times larger or smaller",
        too_low="the spacing in the headers looks wrong, so that volumes would be wrong too",
    ),
)
INPUT_MEASURES = SIZE_MEASURES + IMAGE_MEASURES
# Of an image whose dark and bright are reversed more can be said than that it is not like the mean crop.
REVERSED = replace(
    next(measure for measure in IMAGE_MEASURES if measure.name == "likeness"),
    too_low="dark and bright look reversed, so that this is no T1-weighted image",
)
OUTPUT_MEASURES = (
    _volume("anterior", "anterior part"),
    _volume("posterior", "posterior part"),
    _volume("total", "whole structure"),
    Measure(
        "ratio",
        "The ratio of anterior to posterior volume",
        too_low="the border between the parts lies unusually far to the front",
        too_high="the border between the parts lies unusually far to the back",
    ),
    Measure(
        "forward",
        "The distance of the anterior part in front of the posterior part, between their middles",
        unit="mm",
        too_low="the parts lie in the wrong order or too close together",
        too_high="the parts lie too far apart",
    ),
    Measure(
        "tilt",
        "The angle of the line between the middles of the parts to straight forward",
        unit="degrees",
        too_high="the structure lies askew in the crop",
    ),
    Measure(
        "margin",
        "The least distance of the structure from the crop's edge",
        unit="voxels",
        too_low="the structure comes so near to the edge of the crop that a part of it may be cut off",
    ),
    Measure(
        "one_piece",
        "The least share of a part, or of both, that hangs together",
        too_low="the structure found is in pieces",
    ),
    Measure(
        "surface",
        "The surface for this volume (6 for a cube)",
        too_low="too smooth and round for a hippocampus",
        too_high="too ragged for a hippocampus",
    ),
    Measure("confidence", "The mean probability inside the structure", too_low="the model is unusually unsure"),
    Measure(
        "doubt",
        "The share of voxels that are wrong by the model's own probabilities",
        too_high="the model is unusually unsure",
    ),
)

# In this order: what fails first is the cause of what fails after it.
CAUSES = (
    *("slices_alike", "size_x", "size_y", "size_z", "grey_levels"),
    *("smoothness", "likeness", "orientation", "scale", "brightness", "asymmetry"),
    *("margin", "one_piece", "total", "anterior", "posterior", "ratio", "forward", "tilt"),
    *("handedness", "surface", "confidence", "doubt"),
)
