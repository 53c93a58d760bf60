"""Who must not be named is taken out of any text."""

from pathlib import Path

import pydicom
import pytest

from common.refusal import Failure, Refusal
from common.verdicts import SeriesVerdict
from reading.dicom_file import Instance
from reading.dicom_series import Series, Study
from reading.identity import Identity, Nobody, pseudonym

ACCESSION = "9977123"


def _study(**attributes: str) -> Study:
    """A study of one instance that says so much of its patient."""
    header = pydicom.Dataset()
    header.update(attributes)
    series = Series("1.2.3.4", [Instance(Path("IM0001"), header)])
    return Study("1.2.3", [series], files=1, not_dicom=0, duplicates=0, damaged=[], doubles={})


@pytest.fixture
def identity() -> Identity:
    return Identity.of(
        _study(PatientName="Secretson^Anna^Li", PatientID="SECRET-77", AccessionNumber=ACCESSION, StudyDate="20200119")
    )


def test_pseudonyms_are_stable_and_tell_studies_apart():
    assert pseudonym("1.2.3") == pseudonym("1.2.3") == "HV-" + pseudonym("1.2.3")[3:]
    assert len({pseudonym(f"1.2.{number}") for number in range(100)}) == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SECRETSON_ANNA_001.dcm", "***_***_001.dcm"),
        ("1x1 mm in AnnaSecretson2.dcm", "1x1 mm in ******2.dcm"),
        ("Li, or LI_2.dcm", "***, or ***_2.dcm"),
        ("Slices and lists", "Slices and lists"),  # not Li
        (f"{ACCESSION}.dcm and IM{ACCESSION}", "***.dcm and IM***"),
        (f"1.2.{ACCESSION}.5 and 1.2.{ACCESSION} and 1{ACCESSION}",) * 2,  # UIDs, and another number
        ("SECRET-77", "***"),
    ],
)
def test_what_is_removed(identity, text, expected):
    assert identity.removed_from(text) == expected


DECOMPOSED = "Mu\u0308ller"


@pytest.mark.parametrize(
    ("attributes", "text", "expected"),
    [
        ({"PatientName": "Müller^Jörg"}, "MUELLER_JOERG_001.dcm, Muller.Jorg.002", "***_***_001.dcm, ***.***.002"),
        ({"PatientName": "Müller^Jörg"}, f"{DECOMPOSED} and m\u00fcller", "*** and ***"),
        ({"PatientName": f"{DECOMPOSED}^Jörg"}, "Müller, Mueller", "***, ***"),
        ({"PatientName": "Łukasz^Weiß"}, "LUKASZ WEISS", "*** ***"),
        ({"PatientName": "Ng^Øystein"}, "NG_Oystein_ng2 ng, among", "***_***_ng2 ***, among"),
        ({"PatientName": "Li^Ming=李^明=り^みん"}, "李明.dcm, T1李明, みん", "******.dcm, T1******, ***"),
        ({"PatientName": "Kim=김^철수"}, "김철수, 철수김", "******, ******"),
        ({"PatientID": "123456"}, "123456.0003.dcm, 0003.123456, 1.123456.dcm", "***.0003.dcm, 0003.***, 1.***.dcm"),
        ({"PatientID": "123456"}, *("1.2.123456.7, a.1.2.123456.7, 0.1234567, 1123456",) * 2),
        ({"PatientID": "35"}, "voxels of 1.35 mm, 35.dcm", "voxels of 1.35 mm, ***.dcm"),
        (
            {"PatientBirthDate": "19700131"},
            "31.01.1970 or 1970-01-31, 01/31/1970, 19700131_1",
            "*** or ***, ***, ***_1",
        ),
        ({"PatientBirthName": "Vogel"}, "T1 VOGEL", "T1 ***"),
        ({"StudyID": "ST7788", "AdmissionID": "ADM-1"}, "ST7788 and adm-1", "*** and ***"),
    ],
)
def test_however_a_name_is_written(attributes, text, expected):
    assert Identity.of(_study(**attributes)).removed_from(text) == expected


def test_other_ids_are_identifiers():
    items = [pydicom.Dataset(), pydicom.Dataset()]
    items[1].PatientID = "OTHER-5566"
    identity = Identity.of(_study(PatientName="A^B", OtherPatientIDsSequence=items))
    assert identity.removed_from("other-5566.0003.dcm") == "***.0003.dcm"


def test_the_names_of_files_are_removed_as_they_are():
    name = f"{DECOMPOSED}_001.dcm"
    assert Identity(frozenset([name])).removed_from(f"{name}: no valid UID") == "***: no valid UID"


def test_where_no_text_is_shown_an_allowed_word_that_is_a_name_is_not_either():
    nobody = Nobody.of(_study(PatientName="Tse^Bravo", PatientID="Post"))
    assert nobody.removed_from("T1_TSE_SAG bravo post contrast, Dr. Who") == "T1 SAG contrast"
    assert Nobody().removed_from("T1_TSE_SAG, Dr. Who") == "T1 TSE SAG"


def test_who_has_no_name_is_nowhere():
    nobody = Identity.of(_study(PatientName="", PatientID="", AccessionNumber=""))
    assert nobody.removed_from("any text") == "any text"


def test_every_instance_may_name_the_patient():
    first, second = _study(PatientName="Secretson^Anna"), _study(PatientName="Sekretson^Anna")
    series = [Series("1.2.3.4", [*first.series[0].instances, *second.series[0].instances])]
    identity = Identity.of(Study("1.2.3", series, files=2, not_dicom=0, duplicates=0, damaged=[], doubles={}))
    assert identity.removed_from("Secretson or Sekretson") == "*** or ***"


@pytest.mark.parametrize("stop", [Refusal("geometry-gap", "ANNA_1.dcm"), Failure("helper-failed", "ANNA_1.dcm")])
def test_what_stops_a_study_names_nobody_and_stays_what_it_is(identity, stop):
    with pytest.raises(type(stop)) as stopped, identity.kept_out_of_stops():
        raise stop
    assert (stopped.value.code, stopped.value.reason) == (stop.code, "***_1.dcm")
    assert stopped.value.__suppress_context__  # nor does a traceback


def test_a_verdict_quotes_nobody(identity):
    verdict = SeriesVerdict("1.2.3.4", "T1 Anna", "MR", 22, "description", "SeriesDescription is 'T1 Anna'")
    without = identity.removed_from_verdict(verdict)
    assert (without.description, without.reason) == ("T1 ***", "SeriesDescription is 'T1 ***'")
    assert (without.series_instance_uid, without.instances, without.condition) == ("1.2.3.4", 22, "description")
