"""The measurements: what they measure, and what others read in them."""

import json

import highdicom
import pydicom
import pytest

from common.structures import STRUCTURES


def test_they_refer_to_the_segments_and_the_slices(make):
    results = make()
    segmentation, report = pydicom.dcmread(results.segmentation), pydicom.dcmread(results.measurements)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    instances = [one for series in study.ReferencedSeriesSequence for one in series.ReferencedSOPSequence]
    evidence = {one.ReferencedSOPInstanceUID for one in instances}
    assert evidence == {segmentation.SOPInstanceUID, *results.provenance.source_uids}


def test_each_segment_has_one_measurement_of_the_same_tracking_uid(make):
    results = make()
    segments = pydicom.dcmread(results.segmentation).SegmentSequence
    text = pydicom.dcmread(results.measurements).to_json()
    assert len({segment.TrackingUID for segment in segments}) == len(STRUCTURES)
    for segment in segments:
        assert text.count(f'"{segment.TrackingUID}"') == 1


@pytest.mark.parametrize("orientation", ["LPS", "AIL", "SPR"])
def test_highdicom_reads_the_same_numbers(make, orientation):
    results = make(orientation=orientation)
    groups = highdicom.sr.srread(results.measurements).content.get_volumetric_roi_measurement_groups()
    assert [group.get_measurements()[0].value for group in groups] == [results.volumes[one.key] for one in STRUCTURES]


@pytest.mark.parametrize("degrees", [0, 20])
def test_dcmqi_reads_the_same_numbers(make, dcmqi, degrees):
    results = make(degrees, orientation="PIL")
    folder = dcmqi("tid1500reader", "--inputDICOM", results.measurements, "--outputMetadata", "read.json")
    groups = json.loads((folder / "read.json").read_text())["Measurements"]
    for number, (group, structure) in enumerate(zip(groups, STRUCTURES, strict=True), start=1):
        (item,) = group["measurementItems"]
        assert float(item["value"]) == pytest.approx(results.volumes[structure.key], rel=1e-9)
        assert (item["units"]["CodeValue"], item["quantity"]["CodeValue"]) == ("mm3", "118565006")
        assert group["ReferencedSegment"] == number
        assert group["TrackingUniqueIdentifier"] == results.provenance.tracking_uid(structure)
        assert group["segmentationSOPInstanceUID"] == results.provenance.uid("segmentation")


def test_what_must_be_there_though_empty_is_there(make):
    """Type 2 attributes of the SR Document modules, which not every validator asks for."""
    report = pydicom.dcmread(make().measurements)
    keywords = ("PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence")
    assert all(report[keyword].is_empty for keyword in keywords)
