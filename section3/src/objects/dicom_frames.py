"""What objects of many frames have in common: where each frame lies, and which slice it was made of."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code

from objects.dicom_items import SOURCE_IMAGE, code_item, decimals, item, references, slice_step
from objects.provenance import Provenance
from reading.dicom_file import Instance

Dimension = tuple[str, str, str]  # what tells frames apart: keyword, functional group, description
POSITION: Dimension = ("ImagePositionPatient", "PlanePositionSequence", "Image Position Patient")


def placed(provenance: Provenance, dimensions: Sequence[Dimension]) -> Dataset:
    """The grid, by the first source's spacing and orientation: the others' differ by rounding alone."""
    first = provenance.sources[0].header
    step = slice_step(provenance.sources)
    orientation = item(ImageOrientationPatient=decimals(first.ImageOrientationPatient))
    measures = item(PixelSpacing=decimals(first.PixelSpacing))
    measures.SliceThickness, measures.SpacingBetweenSlices = decimals([step, step])
    organization = item(DimensionOrganizationUID=provenance.uid("dimensions"))
    return item(
        FrameOfReferenceUID=provenance.frame_of_reference_uid,
        PositionReferenceIndicator=None,
        SharedFunctionalGroupsSequence=[item(PlaneOrientationSequence=[orientation], PixelMeasuresSequence=[measures])],
        DimensionOrganizationSequence=[organization],
        DimensionIndexSequence=[
            item(
                DimensionOrganizationUID=organization.DimensionOrganizationUID,
                DimensionIndexPointer=tag_for_keyword(keyword),
                FunctionalGroupPointer=tag_for_keyword(group),
                DimensionDescriptionLabel=label,
            )
            for keyword, group, label in dimensions
        ],
    )


def series_of(provenance: Provenance) -> Dataset:
    """The series that was measured, with all its instances."""
    return item(
        SeriesInstanceUID=provenance.sources[0].text("SeriesInstanceUID"),
        ReferencedInstanceSequence=references(provenance.sources),
    )


def derivation(source: Instance, how: Code) -> Dataset:
    """That a frame shows what was made of this source, and how."""
    (image,) = references([source])
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
    return item(SourceImageSequence=[image], DerivationCodeSequence=[code_item(how)])
