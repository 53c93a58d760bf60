"""Which series of a study is measured: as scanners of many makers describe theirs."""

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from choosing.acquisition import acquisition_text
from choosing.series_choice import Choice, choose_series
from choosing.series_rules import DEFAULT_HEAD_RULES, load_rules
from common.refusal import Refusal
from reading.dicom_file import Instance
from reading.dicom_series import Series, Study

CROPS, HEADS = load_rules(), load_rules(DEFAULT_HEAD_RULES)
MPRAGE = {
    "Modality": "MR",
    "SOPClassUID": MRImageStorage,
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"],
    "SeriesDescription": "t1_mprage_sag_p2_iso",
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SK", "SP", "MP"],
    "MRAcquisitionType": "3D",
    "RepetitionTime": 2300,
    "EchoTime": 2.98,
    "InversionTime": 900,
    "FlipAngle": 9,
    "PixelSpacing": [1, 1],
    "SliceThickness": 1,
}
TAKEN = {
    "Siemens MPRAGE": {},
    "Siemens MP2RAGE, uniform": {
        "ImageType": ["DERIVED", "PRIMARY", "M", "ND", "UNI"],
        "SeriesDescription": "t1_mp2rage_sag_p3_iso_UNI_Images",
        "RepetitionTime": 5000,
        "InversionTime": None,
        "FlipAngle": 4,
    },
    "Siemens SPACE, T1": {
        "ScanningSequence": "SE",
        "RepetitionTime": 700,
        "EchoTime": 11,
        "FlipAngle": 120,
        "InversionTime": None,
    },
    "Philips TFE": {
        "ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"],
        "SeriesDescription": "3D T1 TFE SAG",
        "ScanningSequence": "GR",
        "RepetitionTime": 8.1,
        "EchoTime": 3.7,
        "InversionTime": None,
        "FlipAngle": 8,
    },
    "GE BRAVO": {
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "SeriesDescription": "Sag T1 BRAVO",
        "ScanningSequence": "RM",
        "SequenceVariant": ["SS", "SP", "SK"],
        "RepetitionTime": 8.2,
        "EchoTime": 3.2,
        "InversionTime": 450,
        "FlipAngle": 12,
    },
    "UIH gre_fsp": {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "NONE"],
        "SeriesDescription": "t1_gre_fsp_3d_sag",
        "ScanningSequence": "GR",
        "RepetitionTime": 7.2,
        "EchoTime": 3.1,
        "FlipAngle": 10,
    },
    "Canon FFE3D": {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SeriesDescription": "MPRAGE SAG",
        "ScanningSequence": "GR",
        "RepetitionTime": 6.9,
        "EchoTime": 2.9,
        "FlipAngle": 9,
    },
    "any name": {"SeriesDescription": "Serie 7"},
    "no contrast agent, in words": {"ContrastBolusAgent": "none"},
}
LEFT_OUT = {
    "modality": {"Modality": "CT"},
    "sop-class": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "3d": {"MRAcquisitionType": "2D"},
    "image-type": {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
    "echo-time": {"EchoTime": 388, "InversionTime": 1800, "ScanningSequence": ["SE", "IR"]},
    "inversion-time": {"InversionTime": 2200},
    "flip-angle": {"FlipAngle": 50, "SequenceVariant": "SS", "InversionTime": None},
    "repetition-time": {"ScanningSequence": "SE", "RepetitionTime": 1500, "EchoTime": 12, "FlipAngle": 120},
    "contrast": {"ContrastBolusAgent": "Gadovist 7 ml"},
    "description": {"SeriesDescription": "t1_mprage_sag_Gd"},
}
OTHER_WORDS = ("T1 +C", "AAHead_Scout", "t1_mp2rage_sag_INV2", "TOF 3D multi-slab", "T1W_3D_POST", "3-plane localizer")


def series(uid: str = "1.2", count: int = 176, **changes: object) -> Series:
    header = Dataset()
    for keyword, value in {**MPRAGE, "SeriesInstanceUID": uid, **changes}.items():
        if value is not None:
            setattr(header, keyword, value)
    return Series(uid, [Instance(Path(f"{uid}-{number}"), header) for number in range(count)])


def choose(*all_series: Series, **options: str) -> Choice:
    return choose_series(Study("1", list(all_series), 1, 0, 0, [], {}), CROPS, HEADS, **options)


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN)
def test_3d_t1_series_of_all_makers_are_taken(changes):
    choice = choose(series(**changes))
    assert [one.uid for one in choice.heads] == ["1.2"], choice.verdicts


@pytest.mark.parametrize(("condition", "changes"), LEFT_OUT.items(), ids=LEFT_OUT)
def test_what_is_no_3d_t1_is_told_by_the_condition_that_says_so(condition, changes):
    choice = choose(series(**changes))
    assert choice.heads == ()
    assert choice.verdicts[0].condition == condition
    assert "expected" in choice.verdicts[0].reason


@pytest.mark.parametrize("name", OTHER_WORDS)
def test_what_parameters_cannot_tell_a_name_does(name):
    assert choose(series(SeriesDescription=name)).verdicts[0].condition == "description"


@pytest.mark.parametrize("keyword", ["EchoTime", "MRAcquisitionType"])
def test_who_does_not_say_how_it_was_acquired_is_not_taken(keyword):
    assert choose(series(**{keyword: None})).heads == ()


def test_a_few_slices_are_no_head():
    assert choose(series(count=20)).verdicts[0].condition == "slices"


def test_a_crop_goes_before_any_head():
    crop = series("1.3", 2, SeriesDescription="HippoCrop", ImageType=["DERIVED", "SECONDARY"])
    choice = choose(series(), crop)
    assert choice.heads == ()
    assert [one.condition for one in choice.verdicts] == ["description", None]


def test_of_several_the_original_and_finest_goes_first_and_the_verdicts_say_so():
    coarse, fine = series("1.2", SliceThickness=1.4), series("1.3")
    plain = series("1.1", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    made = series("1.0", ImageType=["DERIVED", "SECONDARY"], PixelSpacing=[0.5, 0.5], SliceThickness=0.5)
    spin = series("1.4", ScanningSequence="SE", RepetitionTime=700, EchoTime=11, FlipAngle=120, SliceThickness=0.8)
    choice = choose(coarse, made, spin, plain, fine)
    assert [one.uid for one in choice.heads] == ["1.3", "1.1", "1.2"]

    verdicts = {one.series_instance_uid: one for one in choice.taking(plain, {"1.3": "no head"}).verdicts}
    assert verdicts["1.1"].accepted
    assert (verdicts["1.3"].condition, verdicts["1.2"].condition) == ("images", "best")
    assert "no head" in verdicts["1.3"].reason and "1.1" in verdicts["1.2"].reason


def test_the_one_that_is_named_is_the_only_one():
    choice = choose(series("1.2"), series("1.3"), series_uid="1.2")
    assert [one.uid for one in choice.heads] == ["1.2"]


def test_where_nothing_fits_each_series_hears_the_reason_that_comes_nearest():
    crop = series("1.3", SeriesDescription="HippoCrop", MRAcquisitionType=None)  # no DERIVED
    flair = series("1.2", EchoTime=388)
    choice = choose(flair, crop)
    assert [one.condition for one in choice.verdicts] == ["echo-time", "derived"]
    with pytest.raises(Refusal, match="EchoTime is '388") as refusal:
        choice.series(Study("1", [flair, crop], 1, 0, 0, [], {}))
    assert refusal.value.code == "no-hippocrop-series"


def enhanced(**groups: dict[str, object]) -> Series:
    """As Philips writes it: parameters in functional groups that all frames share, echoes in those of each frame."""

    def item(values: dict[str, object]) -> Dataset:
        ds = Dataset()
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        return ds

    shared = {
        "MRTimingAndRelatedParametersSequence": {"RepetitionTime": 8.1, "FlipAngle": 8.0},
        "MRModifierSequence": {"InversionTimes": [900.0]},
        "PixelMeasuresSequence": {"PixelSpacing": [1, 1], "SliceThickness": 1.0},
        **groups,
    }
    frame = item({"MREchoSequence": [item({"EffectiveEchoTime": 3.7})]})
    parameters = {"ScanningSequence", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "PixelSpacing"}
    return series(
        count=1,
        **dict.fromkeys(parameters),
        SOPClassUID=EnhancedMRImageStorage,
        EchoPulseSequence="GRADIENT",
        NumberOfFrames=180,
        SharedFunctionalGroupsSequence=[item({name: [item(values)] for name, values in shared.items()})],
        PerFrameFunctionalGroupsSequence=[frame] * 180,
    )


def test_an_enhanced_image_says_the_same_in_its_groups():
    image = enhanced()
    texts = {name: acquisition_text(image.instances[0], name) for name in ("EchoTime", "FlipAngle", "ScanningSequence")}
    assert texts == {"EchoTime": "3.7", "FlipAngle": "8.0", "ScanningSequence": "GR"}
    assert [one.uid for one in choose(image).heads] == ["1.2"]

    late = enhanced(MRModifierSequence={"InversionTimes": [2200.0]})
    assert choose(late).verdicts[0].condition == "inversion-time"
    given = enhanced()
    given.instances[0].header.ContrastBolusAgentSequence = [Dataset()]
    assert choose(given).verdicts[0].condition == "contrast"


def test_groups_that_cannot_be_decoded_say_nothing():
    image = enhanced()
    image.instances[0].header.PerFrameFunctionalGroupsSequence = [Dataset()]
    assert choose(image).verdicts[0].condition == "echo-time"
