"""Segmentation, measurements and overlay: right in the patient, valid, the same at every run, read by others."""

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import permutations, product
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from highdicom.sr import CodedConcept
from PIL import Image
from pydicom import Dataset, config
from pydicom.uid import SegmentationStorage

from dicom_measurements import save_measurements
from dicom_overlay import draw_overlay, save_overlay
from dicom_results import Provenance, with_history
from dicom_segmentation import STRUCTURES, save_segmentation
from dicom_series import list_files, read_study
from dicom_volume import (
    SourceVolume,
    get_predicted_volumes,
    load_dicom_volume_as_numpy_from_list,
    to_source_slices,
)
from phantom import write_series
from report import ANTERIOR, COLOURS, POSTERIOR
from verify_results import VerificationError, verify_overlay, verify_results

MODEL = {"name": "hippocampus-2d", "version": "1.2", "sha256": "0123456789abcdef" * 4}
HIPPOCAMPUS = ("5366008", "SCT", "Hippocampus")
SPACING = (0.8, 1.1, 1.7)
OTHER_MODEL = {**MODEL, "version": "1.3", "sha256": "f" * 64}
CREATED = datetime(2021, 3, 4, 5, 6, 7)
ORIENTATIONS = ["".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)]


@dataclass
class Results:
    """What was measured, and what was written of it."""

    source: SourceVolume
    labels: np.ndarray
    volumes: dict[str, float]
    provenance: Provenance
    folder: Path

    @property
    def files(self) -> list[Path]:
        return [self.segmentation, self.measurements, *self.pictures]

    @property
    def pictures(self) -> list[Path]:
        return sorted((self.folder / "overlay").glob("*"))

    @property
    def segmentation(self) -> Path:
        return self.folder / "segmentation.dcm"

    @property
    def measurements(self) -> Path:
        return self.folder / "measurements.dcm"

    @property
    def masks(self) -> dict[str, np.ndarray]:
        return {one.volume: np.isin(self.labels, one.labels) for one in STRUCTURES}

    def verify(self) -> None:
        verify_results(self.segmentation, self.measurements, self.masks, self.volumes, self.source)


@pytest.fixture
def labels() -> np.ndarray:
    """Labels [X, Y, Z] unlike their mirror images, with slices at either end that have none."""
    labels = np.random.default_rng(3).choice([0, 0, 0, ANTERIOR, POSTERIOR], (9, 11, 7)).astype(np.uint8)
    labels[:2], labels[:, -3:], labels[..., 0], labels[..., -2:] = 0, 0, 0, 0
    return labels


@pytest.fixture
def make(tmp_path, labels, edit):
    """make(...) writes a series with `labels` as its brightness, and the results of measuring it."""

    def make_results(
        degrees: float = 0,
        model: dict = MODEL,
        folder: str = "out",
        header: dict | None = None,
        convert: Callable | None = None,
        **options: object,
    ) -> Results:
        series_folder = tmp_path / "series"
        shutil.rmtree(series_folder, ignore_errors=True)
        paths = write_series(series_folder, labels.astype(np.int16) * 100, **{"spacing": SPACING, **options})
        if degrees:
            edit(paths, lambda dataset: _turn(dataset, degrees))
        if convert:
            convert(paths)
        study = read_study(list_files(series_folder))
        source = load_dicom_volume_as_numpy_from_list(study.series[0])
        study_header = study.header_for(study.series[0])
        with config.disable_value_validation():
            study_header.update(header or {})
        provenance = Provenance(study_header, source.instances, model, created=CREATED)
        volumes = get_predicted_volumes(labels, source.spacing)
        return write(Results(source, labels, volumes, provenance, tmp_path / folder))

    return make_results


def write(results: Results) -> Results:
    """The segmentation and the measurements."""
    results.folder.mkdir(exist_ok=True)
    slices = to_source_slices(results.labels, results.source)
    segmentation = save_segmentation(slices, results.segmentation, results.provenance)
    save_measurements(results.volumes, segmentation, results.measurements, results.provenance)
    return results


def draw(results: Results) -> list[Image.Image]:
    slices = to_source_slices(results.labels, results.source)
    return draw_overlay(slices * 100, slices)


def add_overlay(results: Results) -> Results:
    save_overlay(draw(results), results.folder / "overlay", results.provenance)
    return results


def _turn(dataset: Dataset, degrees: float) -> None:
    """Turn a slice about two axes."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    orientation = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3) @ turn.T
    dataset.ImageOrientationPatient = [f"{value:.10g}" for value in orientation.ravel()]
    position = turn @ np.array(dataset.ImagePositionPatient, float)
    dataset.ImagePositionPatient = [f"{value:.10g}" for value in position]


@pytest.mark.parametrize(
    ("orientation", "degrees"),
    [*((codes, 0) for codes in ORIENTATIONS), *((codes, 20) for codes in ("LPS", "AIL", "SPR"))],
)
def test_every_voxel_comes_back_from_the_file_in_its_place(make, orientation, degrees):
    make(degrees, orientation=orientation).verify()


def test_frames_match_the_source_slices_and_lie_where_they_lie(make):
    """Read the plainest way, slice by slice; the loop above might share an error with what it checks."""
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
def test_highdicom_reads_the_same_masks_and_numbers(make, orientation):
    results = make(orientation=orientation)
    segmentation = highdicom.seg.segread(results.segmentation)
    assert segmentation.segmented_property_types == [CodedConcept(*HIPPOCAMPUS)]
    uids = [source.text("SOPInstanceUID") for source in results.source.instances]
    found = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for number, one in enumerate(STRUCTURES):
        expected = np.isin(to_source_slices(results.labels, results.source), one.labels)
        np.testing.assert_array_equal(found[..., number], expected)
    groups = highdicom.sr.srread(results.measurements).content.get_volumetric_roi_measurement_groups()
    assert [group.get_measurements()[0].value for group in groups] == [
        results.volumes[one.volume] for one in STRUCTURES
    ]


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


def test_all_objects_belong_to_the_study_and_say_what_they_are(make):
    results = add_overlay(make())
    header = results.source.instances[0].header
    objects = [pydicom.dcmread(path) for path in results.files]
    assert len({ds.SeriesInstanceUID for ds in objects} | {header.SeriesInstanceUID}) == 4
    assert len({ds.SOPInstanceUID for ds in objects}) == len(objects)
    for ds in objects:
        assert ds.StudyInstanceUID == header.StudyInstanceUID
        assert (ds.PatientID, ds.StudyDate, ds.StudyTime) == (header.PatientID, header.StudyDate, header.StudyTime)
        assert (ds.PatientBirthDate, ds.PatientSex) == ("", "")
        assert ds.SeriesDescription.startswith("HippoVolume.AI")
        assert "research use only" in ds.SeriesDescription
        (equipment,) = ds.ContributingEquipmentSequence
        assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == (MODEL["name"], MODEL["version"])
        assert equipment.DeviceUID == results.provenance.model_uid
        assert MODEL["sha256"] in equipment.ContributionDescription
    for ds in objects[:1] + objects[2:]:
        assert ds.FrameOfReferenceUID == header.FrameOfReferenceUID


def test_the_measurements_refer_to_the_segments_and_the_slices(make):
    results = make()
    segmentation, report = pydicom.dcmread(results.segmentation), pydicom.dcmread(results.measurements)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    instances = [one for series in study.ReferencedSeriesSequence for one in series.ReferencedSOPSequence]
    evidence = {one.ReferencedSOPInstanceUID for one in instances}
    assert evidence == {segmentation.SOPInstanceUID, *results.provenance.source_uids}
    text = report.to_json()
    for segment in segmentation.SegmentSequence:
        assert text.count(f'"{segment.TrackingUID}"') == 1


# --- exactly once -----------------------------------------------------------------------------------------------------


def _contents(results: Results) -> list[bytes]:
    return [path.read_bytes() for path in results.files]


def _uids(results: Results) -> set[str]:
    objects = [pydicom.dcmread(path) for path in results.files]
    return {uid for ds in objects for uid in (ds.SeriesInstanceUID, ds.SOPInstanceUID)}


def test_a_second_run_writes_the_same_bytes(make):
    assert _contents(add_overlay(make())) == _contents(add_overlay(make(folder="again")))


def test_a_later_run_changes_nothing_but_times_and_takes_them_from_the_earlier(make, tmp_path):
    earlier = make()
    now = replace(earlier.provenance, created=datetime.now())
    unaware = write(replace(earlier, folder=tmp_path / "later", provenance=now))
    assert _contents(unaware) != _contents(earlier)
    assert _uids(unaware) == _uids(earlier)
    aware = write(replace(unaware, provenance=with_history(now, earlier.measurements)))
    assert _contents(aware) == _contents(earlier)


def _predecessors(path: Path) -> list[str]:
    return [
        instance.ReferencedSOPInstanceUID
        for study in pydicom.dcmread(path).get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


def test_another_model_has_other_uids_and_says_what_it_supersedes(make):
    first, second = make(), make(model=OTHER_MODEL, folder="second")
    assert not _uids(first) & _uids(second)
    assert _predecessors(second.measurements) == []

    second.provenance = with_history(second.provenance, first.measurements)
    write(second)
    assert _predecessors(second.measurements) == [first.provenance.uid("measurements")]

    again = with_history(replace(second.provenance, supersedes=()), second.measurements)  # knows it from itself
    assert again.supersedes == second.provenance.supersedes
    assert with_history(first.provenance, second.measurements).supersedes == ()  # back to the model before


def test_a_pseudonymous_result_has_other_uids(make):
    results = make()
    other = replace(results.provenance, names_patient=False)
    assert other.uid("report") != results.provenance.uid("report")


def test_results_of_other_slices_are_not_superseded(make):
    first = make()
    other = make(folder="other", seed=5)
    assert with_history(other.provenance, first.measurements) == other.provenance


@pytest.mark.parametrize("content", [None, b"", b"nothing\n" * 100])
def test_no_earlier_result_is_no_history(make, tmp_path, content):
    provenance = make().provenance
    path = tmp_path / "earlier.dcm"
    if content is not None:
        path.write_bytes(content)
    assert with_history(provenance, path) == provenance


# --- what others make of them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 3])
def test_frames_of_multi_frame_sources_are_named(make, need_program, to_enhanced, capfd, images):
    need_program("dciodvfy")

    def convert(paths):
        for part in range(images):
            to_enhanced(paths[part::images])

    results = add_overlay(make(orientation="SPL", convert=convert))
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
        assert _dciodvfy(path) == []


FAULTS = {
    "gaps": {},
    "long identifier": {"PatientID": "x" * 70},
    "dotted date": {"StudyDate": "2020.01.19", "StudyTime": "11:22:00"},
    "no date": {"StudyDate": "yesterday", "PatientBirthDate": "19480001"},
    "words": {"PatientSex": "male", "StudyID": "9" * 20, "StudyDescription": "a\\b"},
    "letters": {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
    "long name": {"PatientName": "Long" * 30},
}


def _dciodvfy(path: Path) -> list[str]:
    result = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=60)
    assert result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("header", FAULTS.values(), ids=FAULTS)
def test_validators_find_no_error_whatever_the_source_is_like(make, need_program, header):
    need_program("dciodvfy")
    for path in add_overlay(make(header=header)).files[:3]:
        assert _dciodvfy(path) == []
        pydicom.dcmread(path)


@pytest.mark.parametrize(
    "options",
    [{"FrameOfReferenceUID": None}, {"PositionReferenceIndicator": None}, {"SliceThickness": None}],
)
def test_what_a_source_lacks_is_no_error_of_ours(make, need_program, options):
    need_program("dciodvfy")
    results = add_overlay(make(**options))
    results.verify()
    for path in results.files[:3]:
        assert _dciodvfy(path) == []


@pytest.mark.parametrize("header", FAULTS.values(), ids=FAULTS)
def test_they_open_under_enforced_validation(make, monkeypatch, header):
    paths = add_overlay(make(header=header)).files
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    for path in paths:
        assert len([element.value for element in pydicom.dcmread(path).iterall()]) > 50


def test_what_must_be_there_though_empty_is_there(make):
    """Type 2 attributes of the Segmentation Image and SR Document modules, which not every validator asks for."""
    results = make()
    for path, keywords in (
        (results.segmentation, ["ContentCreatorName", "PositionReferenceIndicator"]),
        (results.measurements, ["PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence"]),
    ):
        assert all(pydicom.dcmread(path)[keyword].is_empty for keyword in keywords)


def test_what_was_compressed_with_loss_stays_so(make, need_program):
    compressed = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "10"}
    compressed["LossyImageCompressionMethod"] = "ISO_10918_1"
    results = add_overlay(make(**compressed))
    paths = [results.segmentation, next((results.folder / "overlay").iterdir())]
    for path in paths:
        written = pydicom.dcmread(path)
        assert {keyword: str(written[keyword].value) for keyword in compressed} == compressed
    assert pydicom.dcmread(make().segmentation).LossyImageCompression == "00"
    need_program("dciodvfy")
    assert [_dciodvfy(path) for path in paths[1:]] == [[]]


def test_no_identity_is_printed(make, capfd):
    add_overlay(
        make(header={"PatientName": "Secret" * 20, "PatientID": "SECRET" * 20, "StudyDescription": "secret\nsecret"})
    )
    assert "secret" not in "".join(capfd.readouterr()).lower()


def _dcmqi(program: str, *arguments: object) -> None:
    command = [Path(sysconfig.get_path("scripts")) / program, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("degrees", [0, 20])
def test_dcmqi_reads_the_same_masks_and_numbers(make, tmp_path, degrees):
    pytest.importorskip("dcmqi", reason="dcmqi is not installed")
    results = make(degrees, orientation="PIL")
    options = ("--outputDirectory", tmp_path, "-t", "nifti", "-p", "x")
    _dcmqi("segimage2itkimage", "--inputDICOM", results.segmentation, *options)
    for number, (name, mask) in enumerate(results.masks.items(), start=1):
        image = nib.load(tmp_path / f"x-{number}.nii.gz")
        found = np.argwhere(np.asarray(image.dataobj)) @ image.affine[:3, :3].T + image.affine[:3, 3]
        expected = np.argwhere(mask) @ results.source.affine[:3, :3].T + results.source.affine[:3, 3]
        np.testing.assert_allclose(_sorted(found), _sorted(expected), atol=1e-3)
        voxel = abs(np.linalg.det(image.affine[:3, :3]))
        assert len(found) * voxel == pytest.approx(results.volumes[name], rel=1e-5)

    _dcmqi("tid1500reader", "--inputDICOM", results.measurements, "--outputMetadata", tmp_path / "read.json")
    groups = json.loads((tmp_path / "read.json").read_text())["Measurements"]
    for number, (group, structure) in enumerate(zip(groups, STRUCTURES, strict=True), start=1):
        (item,) = group["measurementItems"]
        assert float(item["value"]) == pytest.approx(results.volumes[structure.volume], rel=1e-9)
        assert (item["units"]["CodeValue"], item["quantity"]["CodeValue"]) == ("mm3", "118565006")
        assert group["ReferencedSegment"] == number
        assert group["TrackingUniqueIdentifier"] == structure.tracking_uid(results.provenance)
        assert group["segmentationSOPInstanceUID"] == results.provenance.uid("segmentation")


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 2).T)]


# --- the closed loop --------------------------------------------------------------------------------------------------


def _shift_frame(segmentation: Dataset) -> None:
    position = segmentation.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    position.ImagePositionPatient = [float(value) + 2 for value in position.ImagePositionPatient]


def _shift_all(millimetres: float):
    def shift(segmentation: Dataset) -> None:
        for groups in segmentation.PerFrameFunctionalGroupsSequence:
            (position,) = groups.PlanePositionSequence
            x, y, z = position.ImagePositionPatient
            position.ImagePositionPatient = [float(x) + millimetres, y, z]

    return shift


def _flip_bit(segmentation: Dataset) -> None:
    segmentation.PixelData = bytes([segmentation.PixelData[0] ^ 1]) + segmentation.PixelData[1:]


def _mirror(segmentation: Dataset) -> None:
    frames = segmentation.pixel_array[:, :, ::-1]
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    segmentation.PixelData = packed + b"\0" * (len(packed) % 2)


def _exchange_segments(segmentation: Dataset) -> None:
    first, second, _ = segmentation.SegmentSequence
    first.SegmentNumber, second.SegmentNumber = 2, 1


def _squeeze(segmentation: Dataset) -> None:
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    measures.SpacingBetweenSlices = float(measures.SpacingBetweenSlices) * 0.999


def _drop_segment(segmentation: Dataset) -> None:
    segmentation.SegmentSequence.pop()


def _drop_pixels(segmentation: Dataset) -> None:
    del segmentation.PixelData


@pytest.mark.parametrize(
    "tamper",
    [
        _shift_frame,
        _shift_all(2.0),
        _shift_all(0.3),
        _flip_bit,
        _mirror,
        _exchange_segments,
        _squeeze,
        _drop_segment,
        _drop_pixels,
    ],
)
def test_a_segmentation_that_is_not_the_mask_is_found_out(make, edit, tamper):
    results = make()
    edit([results.segmentation], tamper)
    with pytest.raises(VerificationError):
        results.verify()


def _groups(report: Dataset) -> list[Dataset]:
    return list(report.ContentSequence[-1].ContentSequence)


def _measured(group: Dataset) -> Dataset:
    return next(item for item in group.ContentSequence if item.ValueType == "NUM").MeasuredValueSequence[0]


def _add_a_thousandth(report: Dataset) -> None:
    _measured(_groups(report)[1]).FloatingPointValue += 0.001


def _change_the_text(report: Dataset) -> None:
    _measured(_groups(report)[1]).NumericValue = "1"


def _in_millilitres(report: Dataset) -> None:
    _measured(_groups(report)[0]).MeasurementUnitsCodeSequence[0].CodeValue = "ml"


def _of_another_segmentation(report: Dataset) -> None:
    for item in _groups(report)[0].ContentSequence:
        for reference in item.get("ReferencedSOPSequence", ()):
            reference.ReferencedSOPInstanceUID = "1.2.3"


def _drop_group(report: Dataset) -> None:
    report.ContentSequence[-1].ContentSequence.pop()


@pytest.mark.parametrize(
    "tamper", [_add_a_thousandth, _change_the_text, _in_millilitres, _of_another_segmentation, _drop_group]
)
def test_measurements_that_are_not_the_volumes_are_found_out(make, edit, tamper):
    results = make()
    results.verify()
    edit([results.measurements], tamper)
    with pytest.raises(VerificationError):
        results.verify()


def test_a_missing_file_is_found_out(make):
    results = make()
    results.measurements.unlink()
    with pytest.raises(VerificationError):
        results.verify()


# --- the overlay ------------------------------------------------------------------------------------------------------


def _corners(ds: Dataset) -> np.ndarray:
    """The outer corners of an image, in patient coordinates."""
    along_row, along_column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = np.array(ds.PixelSpacing, float)
    edges = product((-0.5, ds.Columns - 0.5), (-0.5, ds.Rows - 0.5))
    position = np.array(ds.ImagePositionPatient, float)
    return np.array([position + x * between_columns * along_row + y * between_rows * along_column for x, y in edges])


def test_each_overlay_picture_covers_its_source_slice(make):
    results = add_overlay(make(20, orientation="ASL"))
    pictures = [pydicom.dcmread(path) for path in results.pictures]
    assert len(pictures) == len(results.source.instances)
    for number, (picture, instance) in enumerate(zip(pictures, results.source.instances, strict=True), start=1):
        assert picture.InstanceNumber == number
        assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == instance.header.SOPInstanceUID
        assert picture.Rows % instance.header.Rows == 0
        np.testing.assert_allclose(_corners(picture), _corners(instance.header), atol=1e-5)


def test_contours_lie_within_their_structure(make):
    results = add_overlay(make())
    for path, labels in zip(results.pictures, to_source_slices(results.labels, results.source), strict=True):
        pixels = pydicom.dcmread(path).pixel_array
        zoom = pixels.shape[0] // labels.shape[0]
        large = labels.repeat(zoom, axis=0).repeat(zoom, axis=1)
        for label, colour in COLOURS.items():
            coloured = (pixels == list(bytes.fromhex(colour[1:]))).all(axis=-1)
            assert (large[coloured] == label).all()
            assert coloured.any() == (labels == label).any()


def test_every_overlay_picture_says_what_it_is_for():
    black = np.zeros((3, 11, 9), np.uint8)
    for picture in draw_overlay(black, black):
        drawn = np.argwhere(np.asarray(picture).any(axis=-1))
        assert len(drawn) > 300
        assert drawn[:, 0].min() > picture.height - 20


def _move(axis: int, millimetres: float):
    def move(picture: Dataset) -> None:
        position = [float(value) for value in picture.ImagePositionPatient]
        position[axis] += millimetres
        picture.ImagePositionPatient = position

    return move


def _turn_over(picture: Dataset) -> None:
    """The pixels as they are, the image said to lie the other way round."""
    along_row = [-float(value) for value in picture.ImageOrientationPatient[:3]]
    picture.ImageOrientationPatient = [*along_row, *picture.ImageOrientationPatient[3:]]


def _enlarge(picture: Dataset) -> None:
    picture.PixelSpacing = [float(value) * 1.5 for value in picture.PixelSpacing]


def _mirror_pixels(picture: Dataset) -> None:
    picture.PixelData = np.ascontiguousarray(picture.pixel_array[:, ::-1]).tobytes()


def _change_a_pixel(picture: Dataset) -> None:
    picture.PixelData = bytes([picture.PixelData[0] ^ 1]) + picture.PixelData[1:]


def _say_other_colours(picture: Dataset) -> None:
    picture.PlanarConfiguration = 1


@pytest.mark.parametrize(
    "tamper",
    [
        *(_move(axis, 1.2 * length) for axis, length in enumerate(SPACING)),
        _turn_over,
        _enlarge,
        _mirror_pixels,
        _change_a_pixel,
        _say_other_colours,
        _drop_pixels,
    ],
)
def test_an_overlay_that_is_not_what_was_drawn_is_found_out(make, edit, tamper):
    results = add_overlay(make())
    verify_overlay(dict(zip(results.pictures, draw(results), strict=True)), results.labels, results.source)
    edit(results.pictures[3:4], tamper)
    with pytest.raises(VerificationError):
        verify_overlay(dict(zip(results.pictures, draw(results), strict=True)), results.labels, results.source)


def test_contours_of_another_mask_are_found_out(make):
    """As drawn, and drawn wrong: one voxel at the border has no contour, or one beside it has."""
    results = add_overlay(make())
    pictures = dict(zip(results.pictures, draw(results), strict=True))
    for value in (0, ANTERIOR):
        labels = results.labels.copy()
        place = tuple(np.argwhere((labels > 0) if value == 0 else (labels == 0))[40])
        labels[place] = value
        with pytest.raises(VerificationError, match="contours"):
            verify_overlay(pictures, labels, results.source)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_a_right_overlay_is_found_right_whatever_way_it_lies(make, orientation, degrees):
    results = add_overlay(make(degrees, orientation=orientation))
    verify_overlay(dict(zip(results.pictures, draw(results), strict=True)), results.labels, results.source)
