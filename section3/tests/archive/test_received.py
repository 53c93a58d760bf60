"""What came is read as any file is, within limits; what goes wrong with it is the archive's error."""

import pytest

from archive.received import read_received, read_received_header, temporary_folder, write_received
from archive.sending import ArchiveError


def test_what_was_written_is_read(files, tmp_path):
    path = write_received(files[0].read_bytes(), tmp_path / "received.dcm")
    uid = read_received(path).SOPInstanceUID
    header = read_received_header(path)
    assert (header.text("SOPInstanceUID"), "PixelData" in header.header) == (uid, False)


@pytest.mark.parametrize("read", [read_received, read_received_header])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: b"", "cannot be read"),
        (lambda content: b"no DICOM", "cannot be read"),
        (None, "received.dcm cannot be read: No such file"),
    ],
)
def test_what_cannot_be_read_is_an_error(files, tmp_path, read, change, told):
    path = tmp_path / "received.dcm"
    if change:
        write_received(change(files[0].read_bytes()), path)
    with pytest.raises(ArchiveError, match=told):
        read(path)


def test_a_folder_lasts_for_its_block():
    with temporary_folder() as folder:
        write_received(b"x", folder / "received.dcm")
    assert not folder.exists()
