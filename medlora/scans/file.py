"""Any file → its header: the format is told by content, never by name."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from medlora.scans import dicom
from medlora.scans.codes import Code
from medlora.scans.header import Header, digest_of
from medlora.scans.nifti import files_of

_FIRST_BYTES = 16 * 1024  # holds the whole header of most images
_GZIP = b"\x1f\x8b"
_PLAIN_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG, JPEG
_NIFTI_MAGICS = (b"n+1\0", b"ni1\0")
_NIFTI2_MAGICS = (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read what a file says about itself, never decoding its pixels.

    Args:
        path: one file: DICOM, NIfTI (also gzipped), PNG or JPEG, told apart by content and not by name.

    Returns:
        The header; what cannot be used has its reason in ``problem`` instead of raising.
    """
    path = path if isinstance(path, Path) else Path(path)  # parsing a path again costs as much as reading the file
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_FIRST_BYTES)
        return _read(path, size, start)
    except OSError as error:
        return Header(path, "", 0, problem=(Code.CannotOpen.name, error.strerror or type(error).__name__))


def _read(path: Path, size: int, start: bytes) -> Header:
    if start[128:132] == b"DICM":
        return dicom.read(path, size, start)
    if not start:
        return Header(path, "", size, problem=(Code.EmptyFile.name, ""))
    if start.startswith(_PLAIN_IMAGES):
        return Header(path, "image", size, digest=digest_of(path))
    if _is_nifti(start):
        return Header(path, "nifti", size, digest=digest_of(*files_of(path)))
    if dicom.looks_like_dicom(start):
        return dicom.read(path, size, start)
    return Header(path, "", size, problem=(Code.NotAnImage.name, ""))


def _is_nifti(start: bytes) -> bool:
    """Whether the file begins as NIfTI-1 or NIfTI-2, single or the header of a pair, perhaps gzipped."""
    if start.startswith(_GZIP):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, 540)
        except zlib.error:
            return False
    if len(start) < 348:
        return False
    length = {struct.unpack_from(order + "i", start)[0] for order in "<>"}
    return (348 in length and start[344:348] in _NIFTI_MAGICS) or (540 in length and start[4:12] in _NIFTI2_MAGICS)
