"""Which patient a scan is of: by DICOM's Patient ID, else by the table of labels, else nobody knows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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


def patients_of(
    scans: Sequence[ScanFiles], table: Mapping[str, str], rows: Mapping[str, Sequence[int]] | None = None
) -> Patients:
    """The patient of each scan: DICOM's Patient ID unless it is empty or a placeholder, else the table's.

    A placeholder is a word such as "anonymous", or the one Patient ID of all scans where the table knows several. Where
    the table's patients have several Patient IDs each, as where there is one per image, its patients are followed.
    Where neither says the patient, the scans that one row is about are one.

    Args:
        scans: the scans.
        table: scan_id → cell of the table's patient column.
        rows: scan_id → rows of the table about it.
    """
    found = Patients()
    given = {scan.scan_id: (scan.identity.patient_id or "").strip() for scan in scans}
    no_names = placeholders(given.values())
    cells = {table[scan_id] for scan_id in given if scan_id in table}  # others' scans may have been left out
    if len(set(given.values())) == 1 and len(cells) > 1:
        no_names |= set(given.values())  # one Patient ID for all, whom the table tells apart
    known = {scan_id: name for scan_id, name in given.items() if name and name not in no_names}
    several, together = _disagreements(known, table)
    # Where an ID is of several of the table's patients, following the table would tear it.
    tied = {name: patient for patient, names in several.items() for name in names} if not together else {}
    by_row = _by_row([scan_id for scan_id in given if is_missing(table.get(scan_id, ""))], rows or {})
    for scan_id, dicom in given.items():
        cell = table.get(scan_id, "")
        if scan_id in known and dicom not in tied:
            found.key[scan_id], found.origin[scan_id] = dicom, "dicom"
        elif scan_id in known:
            found.key[scan_id], found.origin[scan_id] = tied[dicom], "table"
        elif not is_missing(cell):
            found.key[scan_id], found.origin[scan_id] = cell, "table"
        elif scan_id in by_row:
            found.key[scan_id], found.origin[scan_id] = f"row {by_row[scan_id]}", "table"
        else:
            found.key[scan_id], found.origin[scan_id] = f"scan {scan_id}", "none"
    alike: dict[str, set[str]] = defaultdict(set)
    for key in found.key.values():
        alike[without_damage(key).casefold()].add(key)
    tables = Counter(found.key[scan_id] for scan_id, origin in found.origin.items() if origin == "table")
    found.info = {
        "placeholders": sum(bool(name) and name in no_names for name in given.values()),
        "alike": sum(len(keys) for keys in alike.values() if len(keys) > 1),
        "shortened": sum(is_shortened(key) for key in tables),
        "disagree": 0 if tied else len(several),
        "tied": len(set(tied.values())),
        "together": together,
        "strangers": _strangers(scans, found),
    }
    return found


_MOST_OF_A_ROW, _FEWEST_ROWS = 50, 10  # a row about more scans, or one of fewer rows, is about a class or a site


def _by_row(scan_ids: Sequence[str], rows: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """scan_id → the first of the rows that tie it to others, directly or through others."""
    from scipy.cluster.hierarchy import DisjointSet

    of_row: dict[int, list[str]] = defaultdict(list)
    for scan_id in scan_ids:
        for row in rows.get(scan_id, ()):
            of_row[row].append(scan_id)
    tying = {row: members for row, members in of_row.items() if 1 < len(members) <= _MOST_OF_A_ROW}
    if len(of_row) < _FEWEST_ROWS:
        return {}
    groups = DisjointSet(tying)
    for row, members in tying.items():
        for other in {other for scan_id in members for other in rows[scan_id] if other in tying}:
            groups.merge(row, other)
    first = {row: min(subset) for subset in groups.subsets() for row in subset}
    return {scan_id: first[row] for row, members in tying.items() for scan_id in members}


def _disagreements(given: Mapping[str, str], table: Mapping[str, str]) -> tuple[dict[str, set[str]], int]:
    """The Patient IDs of each of the table's patients that has several, and how many Patient IDs are of several of the
    table's patients."""
    by_cell: dict[str, set[str]] = defaultdict(set)
    by_id: dict[str, set[str]] = defaultdict(set)
    written: dict[str, str] = {}
    nobody = placeholders(table.values())
    for scan_id, name in given.items():
        cell = table.get(scan_id, "")
        if not (is_missing(cell) or is_shortened(cell) or cell in nobody):
            patient = without_damage(cell).casefold()
            written[patient] = min(cell, written.get(patient, cell))
            by_cell[patient].add(name)
            by_id[name].add(patient)
    several = {written[patient]: names for patient, names in by_cell.items() if len(names) > 1}
    return several, sum(len(cells) > 1 for cells in by_id.values())


def _strangers(scans: Sequence[ScanFiles], found: Patients) -> int:
    """How many Patient IDs are of people whose names have no part in common, or of both sexes.

    Parts in Latin letters alone are compared: in others the same name is written in several scripts.
    """
    names: dict[str, list[set[str]]] = defaultdict(list)
    sexes: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        if found.origin[scan.scan_id] == "dicom":
            parts = {plain(part) for part in re.split(r"[\^\s=,]+", scan.identity.patient_name or "")}
            parts = {part for part in parts if part.isascii() and part.isalpha()}
            if parts and not is_placeholder("".join(sorted(parts))):
                names[found.key[scan.scan_id]].append(parts)
            sexes[found.key[scan.scan_id]].add(str(scan.header.get("PatientSex", "")).upper())
    apart = {key for key, heard in names.items() if any(not heard[0] & other for other in heard)}
    return len(apart | {key for key, said in sexes.items() if {"M", "F"} <= said})


def placeholders(names: Iterable[str]) -> set[str]:
    """Those of the names that are nobody's; but zeros are the first of a numbering where others are numbers, too."""
    names = set(names)
    nobody = {name for name in names if is_placeholder(name)}
    if any(name.isdecimal() for name in names - nobody):
        nobody = {name for name in nobody if not name.isdecimal()}
    return nobody


def is_placeholder(name: str) -> bool:
    """Whether a Patient ID is a word for nobody, or nothing but zeros; an empty one is none."""
    word = plain(name)
    return bool(name) and (word.replace("patient", "") in PLACEHOLDERS or set(word) == {"0"})
