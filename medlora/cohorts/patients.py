"""Which patient a scan is of: by DICOM's Patient ID, else by the table of labels, else nobody knows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medlora.cohorts.identifiers import is_shortened, without_damage
from medlora.cohorts.labels import is_missing, plain

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

PLACEHOLDERS = frozenset(
    {"anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "noid", "deidentified", "removed", "xxx", ""}
)
"""What de-identification leaves as Patient ID of everyone (letters and digits only, lower case, without "patient")."""


@dataclass
class Patients:
    """The patient of each scan.

    Attributes:
        key: scan_id → identifier of the patient; goes nowhere but into the salted hash and ``private/``.
        origin: scan_id → ``dicom``, ``table`` or ``none`` (each such scan is its own patient).
        info: counts of what deserves a word, without identifiers.
    """

    key: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


def patients_of(scans: Sequence[ScanFiles], table: Mapping[str, str]) -> Patients:
    """The patient of each scan: DICOM's Patient ID unless it is empty or a placeholder, else the table's.

    A placeholder is a word such as "anonymous", or the one Patient ID of all scans where the table knows several.

    Args:
        scans: the scans.
        table: scan_id → cell of the table's patient column.
    """
    found = Patients()
    given = {scan.scan_id: (scan.identity.patient_id or "").strip() for scan in scans}
    no_names = {name for name in given.values() if is_placeholder(name)}
    cells = {table[scan_id] for scan_id in given if scan_id in table}  # others' scans may have been left out
    if len(set(given.values())) == 1 and len(cells) > 1:
        no_names |= set(given.values())  # one Patient ID for all, whom the table tells apart
    for scan in scans:
        dicom = given[scan.scan_id]
        cell = table.get(scan.scan_id, "")
        if dicom and dicom not in no_names:
            found.key[scan.scan_id], found.origin[scan.scan_id] = dicom, "dicom"
        elif not is_missing(cell):
            found.key[scan.scan_id], found.origin[scan.scan_id] = cell, "table"
        else:
            found.key[scan.scan_id], found.origin[scan.scan_id] = f"scan {scan.scan_id}", "none"
    alike: dict[str, set[str]] = defaultdict(set)
    for key in found.key.values():
        alike[without_damage(key).casefold()].add(key)
    tables = Counter(found.key[scan_id] for scan_id, origin in found.origin.items() if origin == "table")
    found.info = {
        "placeholders": sum(bool(name) and name in no_names for name in given.values()),
        "alike": sum(len(keys) for keys in alike.values() if len(keys) > 1),
        "shortened": sum(is_shortened(key) for key in tables),
    }
    found.info["disagree"], found.info["together"] = _disagreements(scans, found, table)
    return found


def is_placeholder(name: str) -> bool:
    """Whether a Patient ID is a word for nobody, or nothing but zeros; an empty one is none."""
    word = plain(name)
    return bool(name) and (word.replace("patient", "") in PLACEHOLDERS or set(word) == {"0"})


def _disagreements(scans: Sequence[ScanFiles], found: Patients, table: Mapping[str, str]) -> tuple[int, int]:
    """How many of the table's patients have scans under several Patient IDs, and how many Patient IDs have scans of
    several of the table's patients."""
    by_cell: dict[str, set[str]] = defaultdict(set)
    by_key: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        cell = table.get(scan.scan_id, "")
        if found.origin[scan.scan_id] == "dicom" and not is_missing(cell) and not is_shortened(cell):
            by_cell[cell].add(found.key[scan.scan_id])
            by_key[found.key[scan.scan_id]].add(without_damage(cell).casefold())
    return sum(len(keys) > 1 for keys in by_cell.values()), sum(len(cells) > 1 for cells in by_key.values())
