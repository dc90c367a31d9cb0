"""Who was examined and when, and the names of what was made: the same for every kind of phantom."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pydicom.uid import UID

from medlora.files import write_text


def uid(*words: object) -> UID:
    """A UID of the 2.25 root (PS3.5 B.2), the same for the same words, in the form of a name-based UUID."""
    digest = bytearray(hashlib.sha256("\x1f".join(map(str, words)).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80  # version 8, RFC 9562
    digest[8] = digest[8] & 0x3F | 0x80
    return UID(f"2.25.{int.from_bytes(digest, 'big')}")


@dataclass(frozen=True)
class Identity:
    """Who and when; all fictitious."""

    patient_id: str
    patient_name: str
    sex: str
    age: int
    date: str  # DICOM DA
    time: str  # DICOM TM
    accession: str
    study_uid: UID


def write_labels(file: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write the labels of an archive, a row for each case."""
    text = StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(file, text.getvalue())
