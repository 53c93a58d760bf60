"""NRRD, in which 3D Slicer sends and takes images (teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import bz2
import io
import zlib

import nibabel as nib
import nrrd
import numpy as np

from common.refusal import Refusal
from common.volume import LARGEST_HEAD

TO_RAS = {  # the spaces that NRRD knows, by the axes that they count the other way
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
}
ELSEWHERE = {"data file", "datafile"}  # names another file: of this machine
SKIPS = {"line skip", "lineskip", "byte skip", "byteskip"}
LARGEST_TYPE = 8  # bytes
LARGEST_HEADER = 1 << 16  # bytes
PACKED = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "gz": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "bzip2": bz2.BZ2Decompressor,
    "bz2": bz2.BZ2Decompressor,
}
UNREADABLE = (nrrd.NRRDError, ValueError, TypeError, LookupError, AttributeError, OverflowError, EOFError, zlib.error)


def read_nrrd(content: bytes) -> nib.Nifti1Image:
    """An image of three axes, where it lies in the patient. Raises Refusal: unreadable-pixels, geometry-missing."""
    try:
        file = io.BytesIO(content)
        if len(_header_text(content)) > LARGEST_HEADER:
            raise Refusal("unreadable-pixels", "the header of the NRRD file has no end")
        header = nrrd.read_header(file)
        sizes = [int(size) for size in header["sizes"]]
        if len(sizes) != 3 or min(sizes) < 1:
            raise Refusal("geometry-missing", f"the image has the sizes {sizes}, expected one volume")
        if np.prod(sizes, dtype=float) > LARGEST_HEAD:
            raise Refusal("geometry-field-of-view", f"the image has {' x '.join(map(str, sizes))} voxels")
        if found := (ELSEWHERE | SKIPS) & set(header):
            raise Refusal(
                "unreadable-pixels", f"the NRRD file has the field {min(found)}: send one file with all in it"
            )
        return nib.Nifti1Image(_voxels(header, file, int(np.prod(sizes))), _affine(header))
    except OSError as error:  # of bz2
        raise Refusal("unreadable-pixels", "the file is no whole image") from error
    except UNREADABLE as error:
        raise Refusal("unreadable-pixels", f"the file is no NRRD that can be read ({type(error).__name__})") from error


def _header_text(content: bytes) -> bytes:
    """What stands before the first empty line."""
    ends = [end for blank in (b"\n\n", b"\r\n\r\n") if (end := content.find(blank)) >= 0]
    return content[: min(ends, default=len(content))]


def _voxels(header: dict, file: io.BytesIO, count: int) -> np.ndarray:
    """[x, y, z]; what is packed unpacks to no more than the header promises."""
    encoding = str(header["encoding"])
    most = count * LARGEST_TYPE
    if encoding in PACKED:
        unpacked = PACKED[encoding]().decompress(file.read(), most + 1)
    elif encoding == "raw":
        unpacked = file.read()
    else:
        raise Refusal("unreadable-pixels", f"the NRRD file is written as {encoding!r}, expected gzip or raw")
    voxels = nrrd.read_data({**header, "encoding": "raw"}, io.BytesIO(unpacked), index_order="F")
    if voxels.nbytes != len(unpacked):
        raise Refusal("unreadable-pixels", "the NRRD file has more voxels than its header says")
    return voxels


def _affine(header: dict) -> np.ndarray:
    """[4, 4] from indices to RAS, mm."""
    signs = TO_RAS.get(str(header.get("space", "")).lower())
    directions, origin = header.get("space directions"), header.get("space origin")
    if signs is None or directions is None or origin is None:
        raise Refusal("geometry-missing", "the NRRD file does not say where its voxels lie in the patient")
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions, np.float64).T
    affine[:3, 3] = np.array(origin, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise Refusal("geometry-missing", "the NRRD file places its voxels nowhere")
    return np.diag([*signs, 1.0]) @ affine


def write_nrrd(voxels: np.ndarray, affine: np.ndarray, compress: bool = True) -> bytes:
    """The file of voxels [x, y, z], uint8 or uint16, whose affine [4, 4] leads to RAS.

    Written here, as pynrrd writes version 5 with its own name and the time; readers of viewers know version 4.
    """
    types = {np.dtype(np.uint8): "uint8", np.dtype(np.uint16): "uint16"}
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    lines = [
        "NRRD0004",
        f"type: {types[voxels.dtype]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, voxels.shape))}",
        f"space directions: {' '.join(_vector(lps[:3, axis]) for axis in range(3))}",
        "kinds: domain domain domain",
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {_vector(lps[:3, 3])}",
    ]
    raw = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    if compress:
        packer = zlib.compressobj(level=1, wbits=zlib.MAX_WBITS | 16)
        raw = packer.compress(raw) + packer.flush()
    return "\n".join(lines).encode() + b"\n\n" + raw


def _vector(values: np.ndarray) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"
