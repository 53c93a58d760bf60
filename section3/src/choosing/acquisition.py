"""How an image was acquired, as classic and as enhanced multi-frame images say it (PS3.3, C.8.3 and C.8.13)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from reading.dicom_file import DICOM_ERRORS, Instance

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# What classic images call it: the functional group of enhanced ones, and what it is called there.
GROUPED = {
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
}
# The words of enhanced images, in those of classic ones.
PULSES = {"GRADIENT": "GR", "SPIN": "SE", "BOTH": "SE\\GR"}


def acquisition_text(instance: Instance, keyword: str) -> str:
    """An attribute as text; of an enhanced image, which lacks it, what its functional groups say instead.

    Values that differ from frame to frame come with backslashes between them.
    """
    if text := instance.text(keyword):
        return text
    if keyword == "ScanningSequence":
        return PULSES.get(instance.text("EchoPulseSequence"), "")
    if keyword == "ContrastBolusAgent":
        return "given" if instance.value("ContrastBolusAgentSequence") else ""
    if keyword not in GROUPED:
        return ""
    found = {}
    for groups in GROUPS:
        for item in instance.value(groups) or ():
            found.update(dict.fromkeys(_texts(item, *GROUPED[keyword])))
    return "\\".join(found)


def _texts(groups: Dataset, group: str, keyword: str) -> list[str]:
    try:
        value = groups[group][0][keyword].value
    except DICOM_ERRORS:  # the group is absent, or cannot be decoded
        return []
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return [str(one) for one in values if one is not None]
