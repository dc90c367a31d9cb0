"""What one file says about itself, read without its pixels."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

from medlora.scans.codes import Code

#: Plain values by DICOM keyword: str, int, float, or a list of them where there are several.
Values = dict[str, Any]

_GZIP = b"\x1f\x8b"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_NIFTI_MAGICS = (b"n+1\0", b"ni1\0")
_NIFTI2_MAGICS = (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


@dataclass
class Header:
    """The elements of one file that medlora uses; picklable, and convertible to plain dicts for a cache.

    Holds identifiers (UIDs, patient ID and name), so its repr shows none of its values.

    Args:
        path: where the file lies.
        kind: ``"dicom"``, ``"nifti"``, ``"image"`` or ``""`` where the file is none of these or damaged.
        size: bytes of the file.
        values: plain values by DICOM keyword; empty for other formats.
        frames: for files of many planes, the values of each that differ from ``values``.
        pixels: keyword, offset in bytes and length (-1 where undefined) of the pixel element; None where there is none,
            or where its place is not known because the data set is deflated.
        digest: SHA-256 of the content, for files without a SOP Instance UID.
        problem: the name of a `Code` and a detail, where the file cannot be used.
    """

    path: Path
    kind: str
    size: int
    values: Values = field(default_factory=dict)
    frames: list[Values] = field(default_factory=list)
    pixels: tuple[str, int, int] | None = None
    digest: str = ""
    problem: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"Header(kind={self.kind!r}, size={self.size}, {len(self.values)} values, problem={self.problem})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold (`from_dict` reverses it); the path is given as text."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in (None, "", [], {})}
        return plain | {"path": os.fspath(self.path), "kind": self.kind}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Header:
        """The header that `to_dict` wrote."""
        known = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
        known["path"] = Path(known["path"])
        for name in ("pixels", "problem"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        return cls(**known)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read what a file says about itself, never its pixels.

    Args:
        path: one file: DICOM, NIfTI (also gzipped), PNG or JPEG, told apart by content and not by name.

    Returns:
        The header; what cannot be used has its reason in ``problem`` instead of raising.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _read(path, file, size)
    except OSError as error:
        return Header(path, "", 0, problem=(Code.CannotOpen.name, error.strerror or type(error).__name__))


def _read(path: Path, file: BinaryIO, size: int) -> Header:
    from medlora.scans import dicom

    start = file.read(dicom.FIRST_BYTES)
    if not start:
        return Header(path, "", size, problem=(Code.EmptyFile.name, ""))
    if start[128:132] == b"DICM":
        return dicom.read(path, file, size, start)
    if start.startswith((_PNG, _JPEG)):
        return Header(path, "image", size, digest=digest_of(path))
    if _is_nifti(start):
        return Header(path, "nifti", size, digest=digest_of(path))
    if dicom.looks_like_dicom(start):
        return dicom.read(path, file, size, start)
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


def digest_of(path: Path) -> str:
    """SHA-256 over the file, and over the image of a NIfTI pair."""
    from medlora.scans.nifti import files_of

    digest = hashlib.sha256()
    for part in files_of(path):
        with part.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
