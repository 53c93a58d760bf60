"""A series of the archive as the image of a viewer that has it from there: OHIF names it by its SeriesInstanceUID."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np

from archive.dicomweb import DicomWebArchive, NotFoundError
from archive.received import temporary_folder
from archive.sending import ArchiveError
from common.refusal import Failure
from reading.dicom_series import UID_TEXT, Series, read_study
from reading.dicom_volume import SourceVolume, load_head
from viewer.image_store import ImageStore, NoSuchThing, StoredImage
from viewer.images import kind_of


def image_of_series(archive: DicomWebArchive, series_uid: str, store: ImageStore) -> StoredImage:
    """Keep the series under its UID. Raises NoSuchThing, where the archive has none; Refusal; Failure: cannot-fetch."""
    if not UID_TEXT.fullmatch(series_uid):
        raise NoSuchThing("no image of that name was sent, and it is no UID of a series")
    try:
        study_uid = archive.study_of(series_uid)
        with temporary_folder() as folder:
            files = archive.fetch_study(study_uid, folder, lambda files: [_series(files, series_uid)])
            series = _series(files, series_uid)
            source = load_head(series)
    except NotFoundError as error:
        raise NoSuchThing(f"no image of that name was sent, and of the archive: {error}") from error
    except ArchiveError as error:
        raise Failure("cannot-fetch", f"the archive: {error}") from error
    kind = kind_of(source.grid)
    return store.add_image(_as_nifti(source), ".nii.gz", kind, series_uid, _person(series), (study_uid, series_uid))


def _series(files: list[Path], series_uid: str) -> Series:
    found = read_study(files).series_of(series_uid)
    if found is None:
        raise NoSuchThing("the archive's study has no images of that series")
    return found


def _person(series: Series) -> str | None:
    """A digest of issuer and PatientID, None where there is none."""
    first = series.instances[0]
    if not first.text("PatientID"):
        return None
    identifier = repr((first.text("IssuerOfPatientID"), first.text("PatientID")))
    return hashlib.sha256(identifier.encode()).hexdigest()


def _as_nifti(source: SourceVolume) -> bytes:
    """Columns, rows and slices, as viewers count the voxels of a series."""
    voxels = source.by_slice(source.voxels).transpose(2, 1, 0)
    if np.array_equal(voxels, whole := voxels.astype(np.int16)):
        voxels = whole
    image = nib.Nifti1Image(voxels, source.affine_by_slice)
    image.set_qform(source.affine_by_slice, 1)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
