"""Values as DICOM allows them, compression with loss that is not forgotten, and files that are whole."""

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from objects.dicom_items import item, save, valid


@pytest.mark.parametrize(
    ("keyword", "value", "written"),
    [
        ("PatientID", "x" * 64, "x" * 64),
        ("PatientID", "x" * 70, ""),
        ("PatientID", "one\\two", ""),
        ("PatientID", "one\ntwo", ""),
        ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("StudyDate", "2020.01.19", "20200119"),
        ("StudyDate", "19 Jan 2020", ""),
        ("StudyTime", "11:22:00", "112200"),
        ("StudyTime", "112200.123456", "112200.123456"),
        ("StudyTime", "noon", ""),
        ("PatientSex", "O", "O"),
        ("PatientSex", "X", ""),
        ("PatientSex", "male", ""),
        ("StudyID", "1.2:3", "1.2:3"),  # the punctuation of dates and times is none here
        ("StudyID", "", ""),
    ],
)
def test_a_value_that_dicom_forbids_is_left_out_whole(keyword, value, written):
    assert valid(keyword, value) == written


def test_what_was_compressed_with_loss_stays_so(make, dciodvfy):
    compressed = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "10"}
    compressed["LossyImageCompressionMethod"] = "ISO_10918_1"
    results = make(**compressed).add_overlay()
    paths = [results.segmentation, results.pictures[0]]
    for path in paths:
        written = pydicom.dcmread(path)
        assert {keyword: str(written[keyword].value) for keyword in compressed} == compressed
    assert pydicom.dcmread(make().segmentation).LossyImageCompression == "00"
    assert dciodvfy(paths[1]) == []


def test_a_write_that_fails_leaves_the_earlier_file_alone_and_says_why(mount_small_disk):
    disk = mount_small_disk(16 << 10)
    path = disk / "object.dcm"
    attributes = {"SOPClassUID": SecondaryCaptureImageStorage, "SOPInstanceUID": "1.2.3"}
    save(item(**attributes), path)
    earlier = path.read_bytes()
    with pytest.raises(OSError) as failed:
        save(item(**attributes, EncapsulatedDocument=b"\0" * (64 << 10)), path)
    assert failed.value.strerror == "No space left on device"
    assert list(disk.iterdir()) == [path]
    assert path.read_bytes() == earlier


class _Unwritable(Dataset):
    """Of which the first bytes are written only."""

    def save_as(self, file, **options):
        file.write(b"half")
        raise ValueError("no such value")


def test_what_cannot_be_encoded_leaves_the_earlier_file_alone(tmp_path):
    path = tmp_path / "object.dcm"
    path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match="no such value"):
        save(_Unwritable(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"earlier"
