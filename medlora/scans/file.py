"""Any file → its header: the format is told by content, never by name."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from medlora.scans import dicom, metaimage
from medlora.scans.codes import Code
from medlora.scans.header import Header, digest_of
from medlora.scans.nifti import files_of
from medlora.scans.others import format_of

_LEAST_BYTES = 16 * 1024  # holds the whole header of most images
_MOST_BYTES = 1 << 20
_first_bytes = _LEAST_BYTES  # more where the header before was longer, since those of a series are of one length
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would translate line ends
_GZIP = b"\x1f\x8b"
_PLAIN_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG, JPEG
_NIFTI_MAGICS = (b"n+1\0", b"ni1\0")
_NIFTI2_MAGICS = (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read what a file says about itself, never decoding its pixels.

    Args:
        path: one file: DICOM, NIfTI (also gzipped), MetaImage, PNG or JPEG, told apart by content and not by name.

    Returns:
        The header; what cannot be used has its reason in ``problem`` instead of raising.
    """
    header = header_of(os.fspath(path))
    header.path = Path(path)
    return header


def header_of(path: str) -> Header:
    """As `read_header`, with the path left as text: to make a `Path` takes longer than to read an image's header."""
    global _first_bytes  # noqa: PLW0603 - a guess that only costs time where it is wrong
    try:
        file = os.open(path, _READ_ONLY)
        try:
            size = os.fstat(file).st_size
            start = os.read(file, _first_bytes)
        finally:
            os.close(file)
        header = _read(path, size, start)
    except OSError as error:
        return _unusable(path, 0, Code.CannotOpen, error.strerror or type(error).__name__)
    ends = header.pixels[1] if header.pixels is not None else 0
    needed = _LEAST_BYTES if ends <= _LEAST_BYTES else min(ends + _LEAST_BYTES, _MOST_BYTES)
    _first_bytes = max(needed, _first_bytes - (_first_bytes >> 6))  # soon more, slowly less: archives are mixed
    return header


def _read(path: str, size: int, start: bytes) -> Header:
    if start[128:132] == b"DICM":
        return dicom.read(path, size, start)
    if not start:
        return _unusable(path, size, Code.EmptyFile)
    if start.startswith(_PLAIN_IMAGES):
        return Header(path, "image", size, digest=digest_of(path))  # type: ignore[arg-type]
    if _is_nifti(start):
        return Header(path, "nifti", size, digest=digest_of(*files_of(Path(path))))  # type: ignore[arg-type]
    if metaimage.looks_like_metaimage(start):
        return Header(path, "metaimage", size, digest=digest_of(*metaimage.files_of(Path(path))))  # type: ignore[arg-type]
    if dicom.looks_like_dicom(start):
        return dicom.read(path, size, start)
    return _unusable(path, size, Code.NotAnImage, format_of(start, size))


def _unusable(path: str, size: int, code: Code, detail: str = "") -> Header:
    return Header(path, "", size, problem=(code.name, detail))  # type: ignore[arg-type]


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
