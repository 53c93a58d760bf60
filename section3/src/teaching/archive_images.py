"""A series of the archive as the image of a viewer that has it from there: OHIF names it by its SeriesInstanceUID."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from archive.dicomweb import DicomWebArchive, NotFoundError
from archive.received import temporary_folder
from archive.sending import ArchiveError
from choosing.series_rules import is_ours
from common.refusal import Failure, Refusal
from reading.dicom_file import Instance
from reading.dicom_series import UID_TEXT, Series, Study, read_study
from reading.dicom_volume import SourceVolume, load_head
from teaching.corrections import by_names
from teaching.image_store import FINAL, ImageStore, NoSuchThing, StoredImage
from teaching.images import as_nifti, kind_of, read_image

if TYPE_CHECKING:
    import highdicom as hd

WHOLE_NAME = "whole"  # of a segment that holds others


def image_of_series(archive: DicomWebArchive, series_uid: str, store: ImageStore) -> StoredImage:
    """Keep the series under its UID. Raises NoSuchThing, where the archive has none; Refusal; Failure: cannot-fetch."""
    if not UID_TEXT.fullmatch(series_uid):
        raise NoSuchThing("no image of that name was sent, and it is no UID of a series")
    try:
        study_uid = archive.study_of(series_uid)
    except NotFoundError as error:
        raise NoSuchThing(f"no image of that name was sent, and of the archive: {error}") from error
    except ArchiveError as error:
        raise Failure("cannot-fetch", f"the archive: {error}") from error
    with fetched(archive, study_uid, lambda one: one.uid == series_uid) as study:
        series = study.series_of(series_uid)
        if series is None:
            raise NoSuchThing("the archive's study has no images of that series")
        source = load_head(series)
    kind = kind_of(source.grid)
    return store.add_image(_as_nifti(source), ".nii.gz", kind, series_uid, _person(series), (study_uid, series_uid))


def pull_corrections(archive: DicomWebArchive, image: StoredImage, store: ImageStore) -> tuple[int, list[str]]:
    """Keep the segmentations of a series that others than we put into the archive, as corrections of its image.

    How many are new, and why others could not be used. Raises Failure: cannot-fetch.
    """
    known = {json.loads(one.params).get("sop_instance_uid") for one in store.labels(image, FINAL)}
    kept, told = 0, []
    with fetched(archive, image.study_uid, lambda one: one.uid == image.series_uid or _is_correction(one)) as study:
        source = load_head(study.series_of(image.series_uid))
        placed_image = read_image(store.content_of(image), image.ending)
        for instance in (one for series in study.series if _is_correction(series) for one in series.instances):
            uid = instance.text("SOPInstanceUID")
            if uid in known:
                continue
            try:
                labels = correction_of(instance.path, source, image.kind)
            except Refusal as refusal:
                told.append(f"{uid}: {refusal}")
                continue
            if labels is not None and labels.any():
                params = json.dumps({"sop_instance_uid": uid})
                store.add_label(image, FINAL, as_nifti(placed_image, labels), "archive", "", params)
                kept += 1
    return kept, told


def _is_correction(series: Series) -> bool:
    return series.modality == "SEG" and not is_ours(series)


@contextmanager
def fetched(archive: DicomWebArchive, study_uid: str, wanted: Callable[[Series], bool]) -> Iterator[Study]:
    """A study of the archive with the pixels of the series that are wanted. Raises Failure: cannot-fetch."""
    try:
        with temporary_folder() as folder:
            files = archive.fetch_study(
                study_uid, folder, lambda files: [one for one in read_study(files).series if wanted(one)]
            )
            yield read_study(files)
    except ArchiveError as error:
        raise Failure("cannot-fetch", f"the archive: {error}") from error


def correction_of(path: Path, source: SourceVolume, kind: str) -> np.ndarray | None:
    """The labels [X, Y, Z] uint8, on the volume's grid, of a DICOM segmentation of a series; None where it is of
    another. Raises Refusal, where its segments are none of ours.
    """
    import highdicom as hd  # here, as it takes long

    segmentation = hd.seg.segread(path)
    uids = {one.text("SOPInstanceUID") for one in source.instances}
    drawn_on = {uid for _, _, uid in segmentation.get_source_image_uids()}
    if not drawn_on <= uids:
        return None
    frames = _masks_by_slice(segmentation, source.instances, drawn_on)
    names, places = [], np.zeros(frames.shape[:3], np.uint8)
    for number, segment in enumerate(segmentation.segment_numbers):
        name = _our_name(segmentation.get_segment_description(segment).segment_label)
        if name != WHOLE_NAME:
            names.append(name)
            places[frames[..., number] > 0] = len(names)
    by_column = by_names(places, names, kind).transpose(2, 1, 0)
    turned = np.flip(by_column.transpose(source.order), source.reversed_axes)
    return np.ascontiguousarray(turned)


def _masks_by_slice(segmentation: hd.seg.Segmentation, slices: Sequence[Instance], drawn_on: set[str]) -> np.ndarray:
    """Masks [slice, row, column, segment], empty where nothing was drawn; a slice is an image, or a frame of one.

    drawn_on: SOP Instance UIDs.
    """
    options = {"ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
    uids = [one.text("SOPInstanceUID") for one in slices]
    if slices[0].frame is None:
        return segmentation.get_pixels_by_source_instance(uids, **options)
    masks = np.zeros((len(slices), segmentation.Rows, segmentation.Columns, segmentation.number_of_segments), np.uint8)
    for uid in drawn_on:
        places = [place for place, one in enumerate(uids) if one == uid]
        frames = [slices[place].frame + 1 for place in places]
        masks[places] = segmentation.get_pixels_by_source_frame(uid, frames, **options)
    return masks


def _our_name(label: str) -> str:
    """As viewers name a segment, of "Left anterior hippocampus" or the like: of ours, and as people write them."""
    words = label.lower().replace("_", " ").replace("-", " ").split()
    name = "_".join(word for word in words if word != "hippocampus")
    return WHOLE_NAME if name.endswith(WHOLE_NAME) else name


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
