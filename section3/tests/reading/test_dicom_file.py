"""What the disk does not do is not the file's fault."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement

from common.refusal import Failure
from phantom import write_series
from reading.dicom_file import DamagedFile, Instance, read_dicom, read_instance


@pytest.fixture
def path(tmp_path, blocks) -> Path:
    return write_series(tmp_path / "series", blocks)[0]


@pytest.mark.parametrize("read", [read_instance, read_dicom])
def test_a_file_that_is_gone_cannot_be_read(path, read):
    read(path)
    path.unlink()
    with pytest.raises(Failure) as failed:
        read(path)
    assert failed.value.code == "cannot-read"
    assert failed.value.reason == f"{path.name} cannot be read: No such file or directory"


@pytest.mark.parametrize("read", [read_instance, read_dicom])
def test_a_folder_in_place_of_a_file_cannot_be_read(path, read):
    """So does a folder that may not be listed stand for itself."""
    with pytest.raises(Failure) as failed:
        read(path.parent)
    assert failed.value.code == "cannot-read"
    assert path.parent.name in failed.value.reason


def test_a_disk_that_fails_while_it_is_read_is_not_the_file_s_fault():
    with pytest.raises(Failure) as failed:
        read_dicom(Path("/proc/self/mem"))  # opens, and gives an input/output error from its first byte on
    assert failed.value.code == "cannot-read"
    assert "Input/output error" in failed.value.reason


def test_a_file_that_changed_since_its_header_was_read_is_not_read(path, edit):
    instance = read_instance(path)
    assert read_dicom(path, instance.sha256).PatientID == instance.text("PatientID")
    edit([path], lambda dataset: setattr(dataset, "PatientID", "ANOTHER"))
    with pytest.raises(Failure) as failed:
        read_dicom(path, instance.sha256)
    assert failed.value.code == "study-changed"
    assert path.name in failed.value.reason


def test_what_is_wrong_within_a_file_is_its_own_fault(path, tmp_path):
    content = path.read_bytes()
    damaged, other, empty = (tmp_path / name for name in ("damaged", "other", "empty"))
    damaged.write_bytes(content[:60])
    other.write_text("no DICOM")
    empty.touch()
    assert isinstance(read_instance(path), Instance)
    assert isinstance(read_instance(damaged), DamagedFile)
    assert read_instance(other) is None
    assert read_instance(empty) is None


def test_a_frame_is_named_with_its_number_from_one_on(path):
    header = pydicom.dcmread(path, stop_before_pixels=True)
    assert Instance(path, header).name == path.name
    assert Instance(path, header, 0).name == f"{path.name}, frame 1"


def _raw(keyword, vr, value):
    return RawDataElement(pydicom.tag.Tag(keyword), vr, len(value), value, 0, False, True)


def test_what_cannot_be_decoded_is_none_whenever_it_is_asked_for(path):
    """pydicom decodes PixelRepresentation with every sequence, and gives that sequence at the second time."""
    header = pydicom.Dataset()
    header.add(_raw("PixelRepresentation", "US", b"1e999"))
    header.add(_raw("SharedFunctionalGroupsSequence", "SQ", b"\xfe\xff\x00\xe0\x00\x00\x00\x00"))
    header.PatientID = "1"
    instance = Instance(path, header)
    for keyword in ("SharedFunctionalGroupsSequence", "PixelRepresentation", "Columns"):
        assert [instance.value(keyword), instance.value(keyword), instance.text(keyword)] == [None, None, ""]
    assert instance.value("PatientID") == "1"


def test_what_is_absurdly_long_is_none(path):
    header = pydicom.Dataset()
    header.add(_raw("PatientName", "PN", bytes(1 << 17)))
    assert Instance(path, header).value("PatientName") is None
