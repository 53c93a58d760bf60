"""A study with a T1 of a head in place of a crop: both sides are measured, named rightly, and written so."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from choosing.series_rules import DEFAULT_HEAD_RULES, load_rules
from common.output_files import MEASUREMENTS, OUTPUTS, PAGE, SEGMENTATION
from common.shipped import DEFAULT_MODEL
from common.stopwatch import Stopwatch
from common.structures import LEFT, RIGHT
from common.volume import Grid, Volume
from measuring.measure_head import measure_head
from objects.verify_objects import decode_measurements, decode_segmentation
from phantom import StudyHeader, write_series
from reading.dicom_series import list_files
from study.setup import Setup, SetupFiles

pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[3] / "data" / "demo_head.nii.gz"
MIDDLES = {LEFT: 56, RIGHT: 114}  # nearly, of the demo head's hippocampi, in voxels from the left
MPRAGE = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    "ScanningSequence": ["GR", "IR"],
    "MRAcquisitionType": "3D",
    "RepetitionTime": "2300",
    "EchoTime": "2.98",
    "InversionTime": "900",
    "FlipAngle": "9",
}
STUDY = StudyHeader.from_seed(5)
SEGMENTS = [f"{side} {part} hippocampus" for side in ("Left", "Right") for part in ("anterior", "posterior", "whole")]


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(DEMO)).dataobj).astype(np.int16)


@pytest.fixture(scope="module")
def setup() -> Setup:
    return SetupFiles(DEFAULT_MODEL, load_rules(), head_rules=load_rules(DEFAULT_HEAD_RULES)).load(2)


@pytest.fixture(scope="module")
def as_nifti(setup, voxels) -> dict[str, dict[str, float]]:
    """What the same head gives where there is no DICOM."""
    head = Volume(voxels.astype(np.float32), Grid(voxels.shape, np.eye(4)))
    measured = measure_head(head, setup.localiser, setup.agent, Stopwatch())
    return {one.side: one.volumes_mm3 for one in measured.hippocampi}


@pytest.fixture
def write_head(tmp_path, voxels) -> Callable[..., Path]:
    """write_head(voxels, ...) writes one more series of the study, and returns the study's folder."""

    def write(head: np.ndarray = voxels, seed: int = 1, **options: object) -> Path:
        options = {"orientation": "PIL", "description": "t1_mprage_sag", "study": STUDY, **MPRAGE, **options}
        write_series(tmp_path / "study" / f"series{seed}", head, seed=seed, **options)
        return tmp_path / "study"

    return write


@pytest.mark.parametrize("orientation", ["PIL", "LPS", "LIP", "RAI"])
def test_both_sides_are_measured_however_the_slices_lie(process, setup, write_head, as_nifti, orientation):
    result = process(write_head(orientation=orientation), setup)
    assert (result.status, result.code, result.not_shown) == ("success", None, None)
    for side, volumes in as_nifti.items():
        assert result.volumes_mm3[side] == pytest.approx(volumes, rel=0.005)
    assert {one["file"].split("/")[0] for one in result.outputs} == set(OUTPUTS)
    assert {one.get("side") for one in result.quality} == {None, LEFT, RIGHT}


def test_a_multi_frame_image_gives_the_same(process, setup, write_head, as_nifti, to_enhanced):
    study = write_head(EffectiveEchoTime=None)
    to_enhanced(list_files(study))
    assert process(study, setup).volumes_mm3[LEFT] == pytest.approx(as_nifti[LEFT], rel=0.005)


def test_the_objects_name_the_side_and_lie_there(process, setup, write_head, out, dciodvfy):
    result = process(write_head(), setup)
    segmentation, measurements = (pydicom.dcmread(out / name) for name in (SEGMENTATION, MEASUREMENTS))
    assert [one.SegmentLabel for one in segmentation.SegmentSequence] == SEGMENTS
    for segment in segmentation.SegmentSequence:
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        first, *others = [one.CodeMeaning for one in kind.SegmentedPropertyTypeModifierCodeSequence]
        assert first == segment.SegmentLabel.split()[0]
        assert others == [word.capitalize() for word in segment.SegmentLabel.split()[1:2] if word != "whole"]

    decoded = decode_segmentation(segmentation)
    x = [one.points[:, 0].mean() for one in decoded]  # to the right of the patient
    assert max(x[:3]) < min(x[3:])
    measured = decode_measurements(measurements, segmentation.SOPInstanceUID)
    expected = [result.volumes_mm3[side][part] for side in (LEFT, RIGHT) for part in ("anterior", "posterior", "total")]
    assert [measured[one.tracking_uid] for one in decoded] == expected
    assert len({one.tracking_uid for one in decoded}) == 6
    lateralities = [one.CodeMeaning for one in _values(measurements, "Laterality")]
    assert lateralities == ["Left"] * 3 + ["Right"] * 3
    for path in (out / SEGMENTATION, out / MEASUREMENTS, out / PAGE, next((out / "overlay").iterdir())):
        assert dciodvfy(path) == []


def _values(item: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    """The codes of all content items of that name."""
    found = []
    for child in item.get("ContentSequence", ()):
        if child.get("ConceptNameCodeSequence") and child.ConceptNameCodeSequence[0].CodeMeaning == name:
            found.append(child.ConceptCodeSequence[0])
        found += _values(child, name)
    return found


def test_where_the_best_series_is_refused_the_next_is_measured(process, setup, write_head, voxels, as_nifti):
    dark = np.where(voxels > 3, 140 - voxels, 0).clip(0).astype(np.int16)
    write_head(dark, seed=1, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"])
    result = process(write_head(seed=2), setup)
    assert result.volumes_mm3[LEFT] == pytest.approx(as_nifti[LEFT], rel=0.005)
    assert sorted(one["condition"] or "" for one in result.series_considered) == ["", "images"]
    assert result.series_instance_uid in {one["series_instance_uid"] for one in result.series_considered}


def test_a_head_that_is_refused_has_a_page_that_says_why(process, setup, write_head, voxels, out):
    dark = np.where(voxels > 3, 140 - voxels, 0).clip(0).astype(np.int16)
    result = process(write_head(dark), setup)
    assert (result.status, result.volumes_mm3) == ("refused", None)
    assert result.code in ("unfit-input", "implausible-result", "nothing-found")
    assert result.outputs_to_send and {path.name for path in out.iterdir()} == {PAGE, "report.png", "result.json"}


def test_of_a_cut_head_one_side_is_shown_and_the_other_refused_with_its_reason(
    process, setup, write_head, voxels, as_nifti, out
):
    result = process(write_head(voxels[: MIDDLES[RIGHT]]), setup)
    assert result.status == "success" and list(result.volumes_mm3) == [LEFT], (result.code, result.reason)
    assert result.volumes_mm3[LEFT]["total"] == pytest.approx(as_nifti[LEFT]["total"], rel=0.05)
    assert set(result.not_shown) == {RIGHT} and result.quality_verdict == "fail"
    segments = [one.SegmentLabel for one in pydicom.dcmread(out / SEGMENTATION).SegmentSequence]
    assert segments == SEGMENTS[:3]


def test_a_hippocampus_that_the_image_cuts_is_never_shown(process, setup, write_head, voxels):
    result = process(write_head(np.ascontiguousarray(voxels[MIDDLES[LEFT] :])), setup)
    assert LEFT not in (result.volumes_mm3 or {})


def test_a_crop_beside_a_head_is_what_is_measured(process, setup, write_head, voxels, as_nifti):
    write_series(write_head() / "crop", np.zeros((40, 50, 40), np.int16), study=STUDY, seed=9)
    result = process(write_head(seed=2), setup)
    assert result.status == "refused"  # an empty one
    assert [one["accepted"] for one in result.series_considered].count(True) == 1


def test_without_rules_for_heads_none_is_looked_for(process, write_head):
    result = process(write_head(), SetupFiles(DEFAULT_MODEL, load_rules()).load())
    assert result.code == "no-hippocrop-series"
