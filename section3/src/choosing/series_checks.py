"""What the headers of a series give reason to look at twice, though its slices make a volume."""

from common.verdicts import WARN, Check
from reading.dicom_series import Series
from reading.dicom_slices import STEP_TOLERANCE
from reading.dicom_volume import SourceVolume


def check_series(series: Series, source: SourceVolume) -> tuple[Check, ...]:
    """The warnings about a series and the volume that was made of it."""
    checks = (completeness(series), step_as_stated(source), compressed_with_loss(source))
    return tuple(check for check in checks if check)


def completeness(series: Series) -> Check | None:
    """A warning where the series has fewer slices than its files state, else None.

    No more than a warning: ImagesInAcquisition counts the images of an acquisition, and what was derived from it
    inherits the number. Gaps between the slices are seen in their positions.
    """
    found, stated = series.slices, series.stated_slices
    if found >= stated:
        return None
    sentence = (
        f"The series has {found} slices where its files state {stated} (ImagesInAcquisition): a crop cut from a larger "
        "series inherits that number, but slices at an end may be missing too."
    )
    return Check("slices", found, f"at least {stated}", "ImagesInAcquisition of the series", WARN, sentence)


def step_as_stated(source: SourceVolume) -> Check | None:
    """A warning where headers and positions differ in how far apart the slices lie, else None.

    The positions are believed. A thickness alone says little: slices may overlap, or leave gaps.
    """
    step = source.grid.spacing[source.order.index(2)]
    for instance in source.instances:
        try:
            stated = float(instance.text("SpacingBetweenSlices"))
        except ValueError:  # most series have none
            continue
        if stated > 0 and abs(stated - step) > STEP_TOLERANCE * step:
            sentence = (
                f"The slices lie {step:.3g} mm apart where a header states {stated:.3g} mm (SpacingBetweenSlices): if "
                f"that is right, the volume is {step / stated - 1:+.0%} off."
            )
            return Check("slice_step", step, f"{stated:.3g} mm", "SpacingBetweenSlices of the series", WARN, sentence)
    return None


def compressed_with_loss(source: SourceVolume) -> Check | None:
    """A warning where the images were ever compressed with loss, else None."""
    if all(instance.text("LossyImageCompression") != "01" for instance in source.instances):
        return None
    sentence = "The images were compressed with loss, which can change volumes by several percent."
    return Check("lossy", None, "none", "LossyImageCompression of the series", WARN, sentence)
