"""What all objects of a result share: study, equipment, and UIDs by which each is there exactly once."""

import hashlib
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from pydicom import config
from pydicom.uid import generate_uid

from common.product import PRODUCT
from common.structures import STRUCTURES, WHOLE, structures_of
from objects.provenance import Provenance, with_history

pytestmark = pytest.mark.slow

OTHER_MODEL = {"name": "hippocampus-2d", "version": "1.3", "sha256": "f" * 64}
ANOTHER = (OTHER_MODEL, "a setup with another model")


def test_all_objects_belong_to_the_study_and_say_what_they_are(make, model):
    results = make().add_overlay()
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
        assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == (model["name"], model["version"])
        assert equipment.DeviceUID == results.provenance.model_uid
        assert model["sha256"] in equipment.ContributionDescription
    for ds in objects[:1] + objects[2:]:
        assert ds.FrameOfReferenceUID == header.FrameOfReferenceUID


# --- exactly once -----------------------------------------------------------------------------------------------------


def test_a_second_run_writes_the_same_bytes(make):
    assert make().add_overlay().contents == make(folder="again").add_overlay().contents


def test_a_later_run_changes_nothing_but_times_and_takes_them_from_the_earlier(make, tmp_path):
    earlier = make()
    now = replace(earlier.provenance, created=datetime.now())
    unaware = replace(earlier, folder=tmp_path / "later", provenance=now).write()
    assert unaware.contents != earlier.contents
    assert unaware.uids == earlier.uids
    aware = replace(unaware, provenance=with_history(now, earlier.measurements)).write()
    assert aware.contents == earlier.contents


def _predecessors(path: Path) -> list[str]:
    return [
        instance.ReferencedSOPInstanceUID
        for study in pydicom.dcmread(path).get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


def test_another_model_has_other_uids_and_says_what_it_supersedes(make):
    first, second = make(), make(made_with=ANOTHER, folder="second")
    assert not first.uids & second.uids
    assert _predecessors(second.measurements) == []

    second.provenance = with_history(second.provenance, first.measurements)
    second.write()
    assert _predecessors(second.measurements) == [first.provenance.uid("measurements")]

    again = with_history(replace(second.provenance, supersedes=()), second.measurements)  # knows it from itself
    assert again.supersedes == second.provenance.supersedes
    assert with_history(first.provenance, second.measurements).supersedes == ()  # back to the model before


def test_another_setup_of_the_same_model_has_other_uids(make, model):
    assert not make().uids & make(made_with=(model, "with other limits"), folder="other").uids


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


# --- the same structure of the same person, at every visit ------------------------------------------------------------


PERSON = {"PatientID": "PAT-0042", "IssuerOfPatientID": "HOSPITAL"}


@pytest.fixture
def visit(make, model):
    """visit(seed, made_with, **header) -> the results of one visit of the person, in a folder of its own."""

    def make_visit(seed: int = 1, made_with: tuple[dict, str] = (model, "a setup"), **header: str):
        return make(seed=seed, folder=f"visit{seed}", made_with=made_with, header={**PERSON, **header})

    return make_visit


def tracking_uids(provenance: Provenance) -> list[str]:
    return [provenance.tracking_uid(one) for side in (None, "left", "right") for one in structures_of(side)]


def test_tracking_uids_are_those_of_the_person_at_every_visit(visit, model):
    first = visit()
    later = visit(seed=2, StudyDate="20230405", StudyTime="101112", AccessionNumber="77", PatientName="Married^Name")
    assert not later.uids & first.uids
    for other in (
        later.provenance,
        visit(seed=3, made_with=ANOTHER).provenance,  # digests differ by model, limits, rules or REVISION
        visit(seed=4, made_with=(model, "a setup of another revision")).provenance,
        replace(first.provenance, created=datetime.now()),
    ):
        assert tracking_uids(other) == tracking_uids(first.provenance)
    segments = [pydicom.dcmread(one.segmentation).SegmentSequence for one in (first, later)]
    assert [one.TrackingUID for one in segments[0]] == [one.TrackingUID for one in segments[1]]


def test_another_person_issuer_structure_or_side_is_tracked_apart(visit):
    provenances = [
        visit(**header).provenance
        for header in (
            {},
            {"PatientID": "PAT-0043"},
            {"IssuerOfPatientID": "OTHER HOSPITAL"},
            {"IssuerOfPatientID": ""},
            {"PatientID": "HOSPITALPAT-0042", "IssuerOfPatientID": ""},  # no two may run into each other
            {"PatientID": "PAT-0042HOSPITAL", "IssuerOfPatientID": ""},
        )
    ]
    for names_patient in (True, False):
        found = [uid for one in provenances for uid in tracking_uids(replace(one, names_patient=names_patient))]
        assert len(found) == len(provenances) * len(STRUCTURES) * 3
        assert len(set(found)) == len(found)


def _plain_hashes(patient_id: str, issuer: str) -> set[str]:
    """What somebody who guesses an identifier would try: every hash of it, put where the person's hash stands."""
    texts = [patient_id, issuer + patient_id, f"{issuer}/{patient_id}", repr((issuer, patient_id))]
    texts += [PRODUCT + text for text in texts]
    names = [name for name in hashlib.algorithms_guaranteed if not name.startswith("shake")]
    persons = texts + [hashlib.new(name, text.encode()).hexdigest() for name in names for text in texts]
    sources = [[repr((PRODUCT, "tracking", person, WHOLE.key, None))] for person in persons]
    sources += [[person] for person in persons] + [[PRODUCT, "tracking", person, WHOLE.key] for person in persons]
    return {generate_uid(entropy_srcs=source) for source in sources}


def test_no_plain_hash_of_an_identifier_finds_the_tracking_uid_of_a_pseudonymous_result(visit):
    named = visit().provenance
    pseudonymous = replace(named, names_patient=False)
    guesses = _plain_hashes(PERSON["PatientID"], PERSON["IssuerOfPatientID"])
    assert named.tracking_uid(WHOLE) in guesses  # so the guesses are good ones
    assert pseudonymous.tracking_uid(WHOLE) not in guesses
    assert not set(tracking_uids(pseudonymous)) & set(tracking_uids(named))
    assert tracking_uids(pseudonymous) == tracking_uids(replace(visit(seed=2).provenance, names_patient=False))


def test_a_guess_at_the_identifier_of_a_pseudonymous_result_costs_what_a_slow_hash_costs(visit):
    """The slow hash itself finds it, with the cost that RFC 7914 gives for passwords: 16 MiB and 2^14 rounds."""
    pseudonymous = replace(visit().provenance, names_patient=False)
    identifier = repr((PERSON["IssuerOfPatientID"], PERSON["PatientID"])).encode()
    person = hashlib.scrypt(identifier, salt=PRODUCT.encode(), n=1 << 14, r=8, p=1).hex()
    expected = generate_uid(entropy_srcs=[repr((PRODUCT, "tracking", person, WHOLE.key, None))])
    assert pseudonymous.tracking_uid(WHOLE) == expected


@pytest.mark.parametrize("names_patient", [True, False])
def test_who_has_no_identifier_is_tracked_within_a_result_only(visit, names_patient):
    first, other, another_setup = (
        replace(results.provenance, names_patient=names_patient)
        for results in (
            visit(PatientID=""),
            visit(seed=2, PatientID=""),
            visit(seed=1, made_with=ANOTHER, PatientID=""),
        )
    )
    assert tracking_uids(first) == tracking_uids(replace(first, created=datetime.now()))
    found = {uid for one in (first, other, another_setup) for uid in tracking_uids(one)}
    assert len(found) == 3 * len(STRUCTURES) * 3


@pytest.mark.parametrize("patient_id", [PERSON["PatientID"], ""])
def test_segments_and_measurements_of_a_structure_share_their_tracking_uid(visit, patient_id):
    results = visit(PatientID=patient_id)
    results.verify()  # finds the volumes by the segments' tracking UIDs
    segments = pydicom.dcmread(results.segmentation).SegmentSequence
    assert [one.TrackingUID for one in segments] == [results.provenance.tracking_uid(one) for one in STRUCTURES]
    report = pydicom.dcmread(results.measurements)
    measured = [
        item.UID
        for group in report.ContentSequence[-1].ContentSequence
        for item in group.ContentSequence
        if item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == "112040"
    ]
    assert measured == [one.TrackingUID for one in segments]


# --- what others make of them -----------------------------------------------------------------------------------------


FAULTS = {
    "gaps": {},
    "long identifier": {"PatientID": "x" * 70},
    "dotted date": {"StudyDate": "2020.01.19", "StudyTime": "11:22:00"},
    "no date": {"StudyDate": "yesterday", "PatientBirthDate": "19480001"},
    "words": {"PatientSex": "male", "StudyID": "9" * 20, "StudyDescription": "a\\b"},
    "letters": {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
    "long name": {"PatientName": "Long" * 30},
}


@pytest.mark.parametrize("header", FAULTS.values(), ids=FAULTS)
def test_validators_find_no_error_whatever_the_source_is_like(make, dciodvfy, header):
    for path in make(header=header).add_overlay().files[:3]:
        assert dciodvfy(path) == []
        pydicom.dcmread(path)


@pytest.mark.parametrize(
    "options",
    [{"FrameOfReferenceUID": None}, {"PositionReferenceIndicator": None}, {"SliceThickness": None}],
)
def test_what_a_source_lacks_is_no_error_of_ours(make, dciodvfy, options):
    results = make(**options).add_overlay()
    results.verify()
    for path in results.files[:3]:
        assert dciodvfy(path) == []


@pytest.mark.parametrize("header", FAULTS.values(), ids=FAULTS)
def test_they_open_under_enforced_validation(make, monkeypatch, header):
    paths = make(header=header).add_overlay().files
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    for path in paths:
        assert len([element.value for element in pydicom.dcmread(path).iterall()]) > 50


def test_no_identity_is_printed(make, capfd):
    make(
        header={"PatientName": "Secret" * 20, "PatientID": "SECRET" * 20, "StudyDescription": "secret\nsecret"}
    ).add_overlay()
    assert "secret" not in "".join(capfd.readouterr()).lower()
