"""The segmentation: right in the patient, what its segments are, and what others read in it."""

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from highdicom.sr import CodedConcept
from pydicom.uid import SegmentationStorage

from common.structures import STRUCTURES

HIPPOCAMPUS = ("5366008", "SCT", "Hippocampus")


def test_frames_match_the_source_slices_and_lie_where_they_lie(make):
    """Read the plainest way, slice by slice; verify_objects might share an error with what it checks."""
    results = make(20, orientation="PIR")
    segmentation = pydicom.dcmread(results.segmentation)
    by_uid = {one.header.SOPInstanceUID: pydicom.dcmread(one.path) for one in results.source.instances}
    for pixels, groups in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        (derivation,) = groups.DerivationImageSequence
        source = by_uid[derivation.SourceImageSequence[0].ReferencedSOPInstanceUID]
        structure = STRUCTURES[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        np.testing.assert_array_equal(pixels, np.isin(source.pixel_array // 100, structure.labels))
        assert groups.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient


@pytest.mark.parametrize("orientation", ["LPS", "AIL", "SPR"])
def test_highdicom_reads_the_same_masks(make, orientation):
    results = make(orientation=orientation)
    segmentation = highdicom.seg.segread(results.segmentation)
    assert segmentation.segmented_property_types == [CodedConcept(*HIPPOCAMPUS)]
    uids = [source.text("SOPInstanceUID") for source in results.source.instances]
    found = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for number, one in enumerate(STRUCTURES):
        expected = np.isin(results.source.by_slice(results.labels), one.labels)
        np.testing.assert_array_equal(found[..., number], expected)


@pytest.mark.parametrize("degrees", [0, 20])
def test_dcmqi_reads_the_same_masks(make, dcmqi, degrees):
    results = make(degrees, orientation="PIL")
    options = ("--outputDirectory", ".", "-t", "nifti", "-p", "x")
    folder = dcmqi("segimage2itkimage", "--inputDICOM", results.segmentation, *options)
    affine = results.source.grid.affine
    for number, (structure, volume) in enumerate(results.by_structure.items(), start=1):
        mask = np.isin(results.labels, structure.labels)
        image = nib.load(folder / f"x-{number}.nii.gz")
        found = np.argwhere(np.asarray(image.dataobj)) @ image.affine[:3, :3].T + image.affine[:3, 3]
        expected = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
        np.testing.assert_allclose(_sorted(found), _sorted(expected), atol=1e-3)
        voxel = abs(np.linalg.det(image.affine[:3, :3]))
        assert len(found) * voxel == pytest.approx(volume, rel=1e-5)


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 2).T)]


def test_segments_are_the_hippocampus_and_its_parts_without_a_side(make):
    segmentation = pydicom.dcmread(make().segmentation)
    assert segmentation.SOPClassUID == SegmentationStorage
    assert segmentation.SegmentationType == "BINARY"
    modifiers = []
    for segment in segmentation.SegmentSequence:
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("5366008", "SCT")
        modifiers.append([one.CodeValue for one in kind.get("SegmentedPropertyTypeModifierCodeSequence", ())])
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert modifiers == [["255549009"], ["255551008"], []]
    assert "Laterality" not in segmentation.to_json()


def test_what_must_be_there_though_empty_is_there(make):
    """Type 2 attributes of the Segmentation Image module, which not every validator asks for."""
    segmentation = pydicom.dcmread(make().segmentation)
    assert all(segmentation[keyword].is_empty for keyword in ("ContentCreatorName", "PositionReferenceIndicator"))


@pytest.mark.parametrize("images", [1, 3])
def test_frames_of_multi_frame_sources_are_named(make, dciodvfy, to_enhanced, capfd, images):
    def convert(paths):
        for part in range(images):
            to_enhanced(paths[part::images])

    results = make(orientation="SPL", convert=convert).add_overlay()
    results.verify()
    assert len(results.provenance.source_uids) == images
    planes = {
        (one.header.SOPInstanceUID, one.frame + 1): one.header.ImagePositionPatient for one in results.source.instances
    }
    segmentation = pydicom.dcmread(results.segmentation)
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        plane = planes[item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == plane
    for path in results.pictures:
        (item,) = pydicom.dcmread(path).SourceImageSequence
        planes.pop((item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber))
    assert not planes
    assert "".join(capfd.readouterr()) == ""
    for path in results.files[:3]:
        assert dciodvfy(path) == []
