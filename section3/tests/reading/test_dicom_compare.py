"""What counts as the same object, and what does not."""

import copy

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid

from phantom import make_phantom, write_series
from reading.dicom_compare import differences


@pytest.fixture
def sent(tmp_path) -> Dataset:
    path = write_series(tmp_path, make_phantom(0, shape=(20, 21, 2)).image, PatientName="Müller^Ärzte")[0]
    ds = pydicom.dcmread(path)
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "T-A2000", "SRT"
    ds.AnatomicRegionSequence = [item]
    ds.add_new(0x00091010, "LO", "private")
    return ds


@pytest.fixture
def stored(sent) -> Dataset:
    return copy.deepcopy(sent)


def test_a_copy_is_the_same(sent, stored):
    assert differences(sent, stored) == []


def test_written_otherwise_is_the_same(sent, stored):
    stored.compress(RLELossless, generate_instance_uid=False)
    stored.SpecificCharacterSet = "ISO_IR 192"
    stored.InstanceCreationDate, stored.ContentTime = "20300101", "120000"
    stored.StationName = "added by the archive"
    stored[0x00091010].value = "changed"
    del stored.ReferringPhysicianName  # it is empty
    assert differences(sent, stored) == []


def test_what_an_earlier_run_superseded_or_not_is_the_same(sent, stored):
    sent.PredecessorDocumentsSequence = [Dataset()]
    assert differences(sent, stored) == []


def test_colour_compressed_without_loss_is_the_same():
    sent = Dataset()
    sent.file_meta = pydicom.dataset.FileMetaDataset()
    sent.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    sent.SOPClassUID, sent.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, generate_uid()
    sent.Rows = sent.Columns = 8
    sent.SamplesPerPixel, sent.PhotometricInterpretation, sent.PlanarConfiguration = 3, "RGB", 0
    sent.BitsAllocated = sent.BitsStored = 8
    sent.HighBit, sent.PixelRepresentation = 7, 0
    sent.PixelData = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).tobytes()
    stored = copy.deepcopy(sent)
    stored.compress(RLELossless, generate_instance_uid=False)
    stored.PlanarConfiguration = 1
    assert differences(sent, stored) == []


def _change_pixel(ds):
    pixels = bytearray(ds.PixelData)
    pixels[100] ^= 1
    ds.PixelData = bytes(pixels)


def _claim_compression(ds):
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_change_pixel, ["PixelData"]),
        (_claim_compression, ["PixelData"]),
        (lambda ds: delattr(ds, "PixelData"), ["PixelData"]),
        (lambda ds: setattr(ds, "PatientName", "Muller^Arzte"), ["PatientName"]),
        (lambda ds: setattr(ds, "PatientID", ""), ["PatientID"]),
        (lambda ds: delattr(ds, "StudyInstanceUID"), ["StudyInstanceUID"]),
        (lambda ds: setattr(ds, "StudyDate", "20300101"), ["StudyDate"]),
        (lambda ds: setattr(ds, "ImagePositionPatient", [0, 0, 9]), ["ImagePositionPatient"]),
        (lambda ds: setattr(ds.AnatomicRegionSequence[0], "CodeValue", "T-A0100"), ["AnatomicRegionSequence"]),
        (lambda ds: ds.AnatomicRegionSequence.clear(), ["AnatomicRegionSequence"]),
    ],
)
def test_another_content_is_named(sent, stored, change, expected):
    change(stored)
    assert differences(sent, stored) == expected
