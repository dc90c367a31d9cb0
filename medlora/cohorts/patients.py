"""Which patient a scan is of: by DICOM's Patient ID, else by the table of labels, else nobody knows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medlora.cohorts.identifiers import shortened, without_damage
from medlora.cohorts.labels import is_missing, plain

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

PLACEHOLDERS = frozenset(
    {
        "anonymous", "anonymized", "anonymised", "anonymize", "anonym", "anon", "unknown", "none", "noid",
        "deidentified", "deident", "deid", "removed", "redacted", "hidden", "dummy", "test", "na", "nan", "null",
        "notavailable", "",
    }
)  # fmt: skip
"""What de-identification leaves as Patient ID of everyone (letters and digits only, lower case, without "patient")."""


@dataclass
class Patients:
    """The patient of each scan.

    Attributes:
        key: scan_id → identifier of the patient; goes nowhere but into the salted hash and ``private/``.
        origin: scan_id → ``dicom``, ``table``, ``together`` (nobody knows whose; those of one study or row are one
            patient's) or ``none`` (each such scan is its own patient).
        info: counts of what deserves a word, without identifiers.
    """

    key: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


def patients_of(
    scans: Sequence[ScanFiles],
    table: Mapping[str, str],
    rows: Mapping[str, Sequence[int]] | None = None,
    beside: Sequence[ScanFiles] = (),
) -> Patients:
    """The patient of each scan: whatever says that two scans are of one patient is believed.

    That is DICOM's Patient ID, unless it is empty or a placeholder, and the table's patient. A scan without a Patient
    ID is also of the patient of those that share its Study Instance UID, or a row of the table, where these are of one.
    A placeholder is a word such as "anonymous", or the one Patient ID of all scans where the table knows several.

    Args:
        scans: the scans.
        table: scan_id → cell of the table's patient column.
        rows: scan_id → rows of the table about it.
        beside: scans of the archive that are no cases, but may tie others.
    """
    everything = [*scans, *beside]
    given = {scan.scan_id: (scan.identity.patient_id or "").strip() for scan in everything}
    cells = {scan_id: cell for scan_id in given if not is_missing(cell := table.get(scan_id, ""))}
    no_names = placeholders(given.values())
    own = {scan.scan_id for scan in scans}
    said = {given[scan_id] for scan_id in own} - {""}
    if len(said) == 1 and len({cell for scan_id, cell in cells.items() if scan_id in own}) > 1:
        no_names |= said  # one Patient ID for all, whom the table tells apart
    known = {scan_id: name for scan_id, name in given.items() if name and name not in no_names}
    ties = _Ties(given, known, cells)
    ties.by_name()
    by_study = ties.by_group(_studies(everything, known))
    by_row = ties.by_group(_rows(given, rows or {}))
    found = Patients()
    ids = set(known.values())  # the table's patient 5 is not the hospital's, unless they are one
    for scan in scans:
        scan_id = scan.scan_id
        names, written = ties.ids[ties.of(scan_id)], ties.cells[ties.of(scan_id)]
        key = min(names if len(names) == 1 else written or names, default=f"scan {ties.of(scan_id)}")
        if key in ids - names:
            key = f"{key} of the table"
        origin = "none"
        if not names and not written:
            origin = "together" if scan_id in by_row | by_study else "none"
        elif scan_id in known:
            origin = "dicom" if len(names) == 1 else "table"
        elif scan_id in ties.written or scan_id in by_row:
            origin = "table"
        elif scan_id in by_study:
            origin = "dicom"
        found.key[scan_id], found.origin[scan_id] = key, origin
    alike: dict[str, set[str]] = defaultdict(set)
    for key in found.key.values():
        alike[_canonical(key)].add(key)
    several: dict[str, set[str]] = defaultdict(set)
    for scan_id in known.keys() & ties.sure.keys():
        several[known[scan_id]].add(ties.sure[scan_id])
    found.info = {
        "placeholders": sum(bool(given[s]) and given[s] in no_names for s in own),
        "nobody": sum(s not in ties.written and s not in known for s in own & cells.keys()),
        "alike": sum(len(keys) for keys in alike.values() if len(keys) > 1),
        "shortened": len({key for s, key in found.key.items() if found.origin[s] == "table" and key in ties.shortened}),
        "tied": len({ties.of(scan_id) for scan_id in own & known.keys() if len(ties.ids[ties.of(scan_id)]) > 1}),
        "together": sum(len(patients) > 1 for patients in several.values()),
        "strangers": _strangers(scans, found),
    }
    return found


_MOST_OF_A_ROW, _FEWEST_ROWS = 50, 10  # a row about more scans, or one of fewer rows, is about a class or a site


class _Ties:
    """Which scans are of one patient.

    Args:
        scan_ids: all of them.
        known: scan_id → Patient ID that is a name.
        cells: scan_id → the table's patient, as written.
    """

    def __init__(self, scan_ids: Iterable[str], known: Mapping[str, str], cells: Mapping[str, str]) -> None:
        from scipy.cluster.hierarchy import DisjointSet

        nobody = placeholders(cells.values())
        self.known = known
        self.shortened = shortened(cells.values())
        self.sure = {s: _canonical(c) for s, c in cells.items() if not (c in self.shortened or c in nobody)}
        self._sets = DisjointSet(scan_ids)
        self.ids = {s: {known[s]} if s in known else set() for s in self._sets}  # of the patients so far
        told = {s: cell for s, cell in cells.items() if s in self.sure or (s not in known and cell not in nobody)}
        self.written = told
        self.cells = {s: {told[s]} if s in told else set() for s in self._sets}

    def of(self, scan_id: str) -> str:
        """The scan that stands for all of its patient."""
        return self._sets[scan_id]

    def _merge(self, scan_ids: Sequence[str]) -> None:
        for scan_id in scan_ids[1:]:
            one, other = self.of(scan_ids[0]), self.of(scan_id)
            if self._sets.merge(one, other):
                ids, cells = self.ids[one] | self.ids[other], self.cells[one] | self.cells[other]
                self.ids[self.of(one)], self.cells[self.of(one)] = ids, cells

    def by_name(self) -> None:
        """Scans of one Patient ID, and those of one patient of the table, are one patient's.

        A Patient ID and a patient of the table of the same name are one where nothing says otherwise: the table may
        number patients in its own way.
        """
        of_id, of_cell, of_other = _grouped(self.known), _grouped(self.sure), _grouped(self.written)
        for scan_ids in (*of_id.values(), *of_cell.values()):
            self._merge(scan_ids)
        for scan_ids in of_other.values():
            self._merge([s for s in scan_ids if s not in self.known and s not in self.sure])
        alike = Counter(_canonical(name) for name in of_id)
        for name, scan_ids in of_id.items():
            namesakes = of_cell.get(_canonical(name), [])
            if alike[_canonical(name)] > 1:  # "007" and "7" are two: the one that is written
                namesakes = [scan_id for scan_id in namesakes if self.written[scan_id] == name]
            if namesakes and self._agree([*scan_ids, *namesakes]):
                self._merge([*scan_ids, *namesakes])

    def by_group(self, groups: Iterable[Sequence[str]]) -> set[str]:
        """Scans of one group are one patient's where one of them has no Patient ID and nothing tells them apart.

        Returns:
            Those that came to a patient so.
        """
        found: set[str] = set()
        for scan_ids in groups:
            unknown = [scan_id for scan_id in scan_ids if scan_id not in self.known]
            if unknown and len(scan_ids) > 1 and self._agree(scan_ids):
                self._merge(scan_ids)
                found.update(unknown)
        return found

    def _agree(self, scan_ids: Sequence[str]) -> bool:
        members = {self.of(scan_id) for scan_id in scan_ids}
        ids = set().union(*(self.ids[one] for one in members))
        cells = {_canonical(cell) for one in members for cell in self.cells[one]}
        return len(ids) < 2 and len(cells) < 2


def written_apart(cells: Iterable[str]) -> int:
    """How many patients of a table are written in several ways, which counts as one."""
    writings: dict[str, set[str]] = defaultdict(set)
    for cell in {cell for cell in cells if not is_missing(cell)} - shortened(cells):
        writings[_canonical(cell)].add(cell)
    return sum(len(ways) > 1 for ways in writings.values())


def _canonical(name: str) -> str:
    return without_damage(name).casefold()


def _grouped(values: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for scan_id, value in values.items():
        groups[value].append(scan_id)
    return groups


def _studies(scans: Sequence[ScanFiles], known: Mapping[str, str]) -> list[list[str]]:
    """The scans of each study; of none whose UID anonymisation has left to all or to several people."""
    studies = _grouped({scan.scan_id: scan.identity.study_uid for scan in scans if scan.identity.study_uid})
    if not known and len(studies) < 2:
        return []
    people: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for scan in scans:
        said = plain(scan.identity.patient_name or ""), str(scan.header.get("PatientSex", "")).upper()
        people[scan.identity.study_uid].add(said)
    alike = {
        study
        for study, said in people.items()
        if all(len({value for value in part if value}) < 2 for part in zip(*said, strict=True))
    }
    return [scan_ids for study, scan_ids in studies.items() if study in alike]


def _rows(scan_ids: Iterable[str], rows: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """The scans that each row is about; of no row where there are so few that they may be about classes or sites."""
    of_row: dict[int, list[str]] = defaultdict(list)
    for scan_id in scan_ids:
        for row in rows.get(scan_id, ()):
            of_row[row].append(scan_id)
    groups = [of_row[row] for row in sorted(of_row)]
    return [] if len(groups) < _FEWEST_ROWS else [group for group in groups if len(group) <= _MOST_OF_A_ROW]


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
    """Whether a Patient ID is a word for nobody, or nothing but zeros, or three x and more; an empty one is none."""
    word = plain(name)
    blank = set(word) == {"0"} or (set(word) == {"x"} and len(word) > 2)
    return bool(name) and (blank or word.replace("patient", "") in PLACEHOLDERS)
