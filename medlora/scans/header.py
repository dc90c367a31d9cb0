"""What one file says about itself, as plain values."""

from __future__ import annotations

import hashlib
import os
from copy import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from medlora.scans.elements import ACQUISITION

#: What is written as Contrast/Bolus Agent where there is none.
_NO_AGENT = {"NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "WITHOUT CONTRAST", "W/O", "NATIVE", "NON CONTRAST", "0", "-"}

#: Plain values by DICOM keyword: str, int, float, or a list of them where there are several.
Values = dict[str, Any]


@dataclass(slots=True)
class Header:
    """The elements of one file that medlora uses; picklable, and convertible to plain dicts for a cache.

    Holds identifiers (UIDs, patient ID and name), so its repr shows none of its values.

    Args:
        path: where the file lies.
        kind: ``"dicom"``, ``"nifti"``, ``"metaimage"``, ``"image"``, or ``""`` where it is none of these or
            damaged.
        size: bytes of the file.
        values: plain values by DICOM keyword; empty for other formats. Lists in it may be shared between headers.
        frames: for files of many planes, the values of each that differ from ``values``.
        pixels: keyword, offset in bytes and length (-1 where undefined) of the pixel element; None where there is none.
            The offset is -1 where the data set is deflated.
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
        known.setdefault("size", 0)
        for name in ("pixels", "problem"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        return cls(**known)


def stored_pixels(header: Header) -> bytes | None:
    """SHA-256 of the pixel element as stored, undecoded; None where its place is not known."""
    if header.pixels is None or header.pixels[1] < 0:
        return None
    _, offset, length = header.pixels
    with header.path.open("rb") as file:
        file.seek(offset)
        return hashlib.sha256(file.read(length if length >= 0 else -1)).digest()


def digest_of(*paths: str | os.PathLike[str]) -> str:
    """SHA-256 over the content of the files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def whitelisted(values: Values) -> Values:
    """The acquisition fields among ``values`` (`elements.ACQUISITION`), the transfer syntax, and whether there is a
    contrast agent: ``ContrastBolusAgent`` is YES or NO, since what it is called is free text (PS3.15 Table E.1-1).

    Ages above 89 years are given as 090Y: HIPAA's Safe Harbor, 45 CFR 164.514(b)(2)(i)(C), counts them as identifiers.
    """
    header = {keyword: copy(values[keyword]) for keyword in (*ACQUISITION, "TransferSyntaxUID") if keyword in values}
    age = str(header.get("PatientAge", ""))
    if age.endswith("Y") and age[:-1].isdecimal() and int(age[:-1]) > 89:
        header["PatientAge"] = "090Y"
    if agent := str(values.get("ContrastBolusAgent", "")).strip():
        header["ContrastBolusAgent"] = "NO" if agent.upper() in _NO_AGENT else "YES"
    return header
