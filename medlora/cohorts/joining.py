"""Joining the rows of a table of labels to the scans of an archive."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medlora.cohorts.headings import asked_key, key_columns
from medlora.cohorts.identifiers import Matches, match_identifiers
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.cohorts.paths import PathMatches, match_paths
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

ONE_SCAN = ("file", "sop", "series")
"""Keys that mean one scan; a row with another key is about all the scans of a study or patient."""

NAMES = {
    "file": "file path",
    "sop": "SOP Instance UID",
    "series": "Series Instance UID",
    "study": "Study Instance UID",
    "accession": "accession number",
    "patient": "patient ID",
}


@dataclass
class Join:
    """What came of joining a table to an archive. Rows are numbered as a spreadsheet shows them.

    Attributes:
        key: the kind of key.
        column: its heading.
        rows: number of rows of the table.
        scans: scan_id → rows that are about it.
        unmatched: rows about no scan of the archive.
        ambiguous: the rows among them whose identifier may mean several scans.
        left_out: rows about files that could not be taken as a scan.
        copies: scan_id → rows among them about files that are copies of the scan's, where it has rows of its own.
        of_others: rows whose accession number, or end of a path, is that of another patient's scan, as the table's
            patient column says.
        repaired: how an identifier had to be read → rows.
        of_folders: whether a row names the folder of several scans.
        groups: rows of the same identifier (more than one).
        better: a key further down in the order that would have matched more rows.
    """

    key: str
    column: str
    rows: int
    scans: dict[str, list[int]] = field(default_factory=dict)
    unmatched: list[int] = field(default_factory=list)
    ambiguous: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    copies: dict[str, list[int]] = field(default_factory=dict)
    of_others: list[int] = field(default_factory=list)
    repaired: dict[str, list[int]] = field(default_factory=dict)
    of_folders: bool = False
    groups: list[list[int]] = field(default_factory=list)
    better: Join | None = None

    @property
    def matched(self) -> int:
        """How many rows are about a scan of the archive."""
        return len({row for rows in self.scans.values() for row in rows})

    @property
    def whole_study(self) -> bool:
        """Whether a row is about a study, a patient or a folder of scans, not one scan."""
        return self.key not in ONE_SCAN or self.of_folders

    def messages(self) -> list[str]:
        """One sentence each: what matched, what did not, what had to be repaired."""
        name = NAMES[self.key]
        lines = [
            f"{self.matched} of {self.rows} rows matched {len(self.scans)} scans by {name} (column {self.column!r})"
        ]
        if self.unmatched:
            why = " (its value may mean several)" if self.unmatched[0] in self.ambiguous else ""
            lines.append(
                f"{_rows(self.unmatched)} matched no scan: {_named(self.unmatched)}, column {self.column!r}{why}"
            )
        if self.left_out:
            lines.append(
                f"{_rows(self.left_out)} matched files that were left out (see excluded.csv): {_named(self.left_out)}"
            )
        if self.of_others:
            lines.append(
                f"{_rows(self.of_others)} would have matched a scan of another patient than the table says, which was "
                f"not taken: {_named(self.of_others)}, column {self.column!r}"
            )
        lines += [
            f"{_rows(rows)} matched with {how}; the first is row {rows[0]}, column {self.column!r}"
            for how, rows in self.repaired.items()
        ]
        if self.better is not None:
            lines.append(
                f"{self.better.matched} rows would match by {NAMES[self.better.key]} (column {self.better.column!r}): "
                f"--key {self.better.key}"
            )
        return lines


def _named(rows: Sequence[int], most: int = 20) -> str:
    """Row numbers, in runs: "rows 3, 7 to 12 and 4 more"."""
    runs: list[list[int]] = []
    for row in sorted(rows):
        if runs and row == runs[-1][-1] + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    said = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:most])
    rest = sum(map(len, runs[most:]))
    return f"row{'s' if len(rows) > 1 else ''} {said}" + (f" and {rest} more" if rest else "")


def _rows(rows: Sequence[int]) -> str:
    return f"{len(rows)} row{'s' if len(rows) != 1 else ''}"


def join(
    table: LabelTable,
    scans: Sequence[ScanFiles],
    left_out: Iterable[str | Path],
    archive: Path,
    key: str | None = None,
    copies: Sequence[ScanFiles] = (),
) -> Join:
    """Join by the first key that matches anything: file path, SOP, series or study UID, accession number, patient.

    Args:
        table: the labels.
        scans: those of the archive.
        left_out: files of the archive that are part of no scan.
        archive: its root.
        key: a kind of key, a heading, or ``kind=heading``, to take no other.
        copies: scans left out as copies of one of ``scans``, whose scan_id they have.

    Raises:
        MedloraError: there is no key, or it matches nothing.
    """
    columns = dict([asked_key(table, key)]) if key else key_columns(table)
    if not columns:
        raise MedloraError(
            f"{table.path.name} has no column that tells which scan a row is about; its columns are: "
            + ", ".join(map(repr, table.frame.columns)),
            "add a column 'file' (path in the archive), 'series_uid', 'study_uid', 'accession_number' or "
            "'patient_id', or name it with --key, e.g. --key patient=COLUMN",
        )
    tried = [_join_by(kind, column, table, scans, left_out, archive, copies) for kind, column in columns.items()]
    for joined in tried:
        if joined.scans:
            best = max(tried, key=lambda other: other.matched)
            joined.better = best if best.matched > joined.matched else None
            return joined
    raise MedloraError(
        f"none of the {len(table.frame)} rows of {table.path.name} matched one of the {len(scans)} scans; compared: "
        + "; ".join(f"column {joined.column!r} as {NAMES[joined.key]}" for joined in tried)
        + f". The first row is row {table.frame.index[0]}",
        "check that the table belongs to this archive, or name the right column with --key",
    )


def _join_by(
    kind: str,
    column: str,
    table: LabelTable,
    scans: Sequence[ScanFiles],
    left_out: Iterable[str | Path],
    archive: Path,
    copies: Sequence[ScanFiles],
) -> Join:
    rows_of: dict[str, list[int]] = defaultdict(list)
    result = Join(kind, column, len(table.frame))
    for row in table.frame.index:
        value = table.cell(row, column)
        if is_missing(value):
            result.unmatched.append(row)
        else:
            rows_of[value].append(row)
    scans_of: dict[str, list[str]] = defaultdict(list)  # archive's identifier → scan_ids
    found: PathMatches | Matches
    if kind == "file":
        for scan in scans:
            for path in scan.paths:
                scans_of[relative(path, archive)].append(scan.scan_id)
        outside = [relative(path, archive) for path in left_out]
        found = match_paths(rows_of, [*scans_of, *outside], archive, table.path.parent)
        meant = dict(found.to)
        result.copies = _of_copies(rows_of, meant, copies, archive)
    else:
        for scan in scans:
            for name in identifiers(scan, kind):
                scans_of[name].append(scan.scan_id)
        found = match_identifiers(rows_of, scans_of)
        meant = {value: [name] for value, name in found.to.items()}
    others = _of_others(rows_of, meant, scans_of, table, scans) if kind == "accession" else set()
    if kind == "file":
        read = {value: meant[value] for values in found.repaired.values() for value in values}
        others = _of_others(rows_of, read, scans_of, table, scans, elsewhere=True)
    by_target: dict[tuple[tuple[str, ...], ...], list[int]] = defaultdict(list)
    for value, rows in rows_of.items():
        targets = meant.get(value, [])
        scan_ids = sorted({scan_id for name in targets for scan_id in scans_of.get(name, [])})
        result.of_folders |= kind == "file" and len(targets) > 1 and len(scan_ids) > 1
        for row in rows:
            of_row = [scan_id for scan_id in scan_ids if (row, scan_id) not in others]
            for scan_id in of_row:
                result.scans.setdefault(scan_id, []).append(row)
            if len(of_row) < len(scan_ids):
                result.of_others.append(row)
            if not of_row:
                (result.left_out if targets and not scan_ids else result.unmatched).append(row)
            if targets:
                by_target[tuple(sorted(targets)), tuple(of_row)].append(row)
    for scan_id in result.copies.keys() - result.scans.keys():  # the table names the copy alone
        result.scans[scan_id] = result.copies.pop(scan_id)
        result.left_out = [row for row in result.left_out if row not in result.scans[scan_id]]
    for value in found.ambiguous:
        result.ambiguous.extend(rows_of[value])
    result.repaired = {
        how: sorted(row for value in values for row in rows_of[value]) for how, values in found.repaired.items()
    }
    result.groups = sorted(sorted(rows) for rows in by_target.values() if len(rows) > 1)
    for rows in (result.unmatched, result.ambiguous, result.left_out, result.of_others, *result.scans.values()):
        rows.sort()
    return result


def _of_copies(
    rows_of: Mapping[str, list[int]],
    meant: Mapping[str, list[str]],
    copies: Iterable[ScanFiles],
    archive: Path,
) -> dict[str, list[int]]:
    """scan_id → rows about files that are copies of the scan's."""
    copied = {relative(path, archive): scan.scan_id for scan in copies for path in scan.paths}
    found: dict[str, list[int]] = defaultdict(list)
    for value, names in meant.items():
        for scan_id in dict.fromkeys(copied[name] for name in names if name in copied):
            found[scan_id] += rows_of[value]
    return dict(found)


def _of_others(
    rows_of: Mapping[str, list[int]],
    meant: Mapping[str, list[str]],
    scans_of: Mapping[str, list[str]],
    table: LabelTable,
    scans: Sequence[ScanFiles],
    elsewhere: bool = False,
) -> set[tuple[int, str]]:
    """Pairs of row and scan whose patients differ: hospitals number their accessions, and files, each for itself.

    Nothing where the table's patients are not mostly the archive's, since de-identification may have renamed one side.

    Args:
        rows_of: table's value → rows.
        meant: table's value → what it means in the archive.
        scans_of: archive's name → scan_ids.
        table: the labels.
        scans: those of the archive.
        elsewhere: those alone whose patient has other scans in the archive, however many they are.
    """
    column = key_columns(table).get("patient")
    if column is None:
        return set()
    patient_of = {scan.scan_id: next(iter(identifiers(scan, "patient")), "") for scan in scans}
    cells = {row: cell for row in table.frame.index if not is_missing(cell := table.cell(row, column))}
    known = match_identifiers(cells.values(), filter(None, patient_of.values())).to
    same, others = 0, set()
    for value, names in meant.items():
        for row, scan_id in itertools.product(rows_of[value], (s for name in names for s in scans_of.get(name, ()))):
            if row in cells and patient_of[scan_id]:
                if known.get(cells[row]) == patient_of[scan_id]:
                    same += 1
                elif not elsewhere or cells[row] in known:
                    others.add((row, scan_id))
    return others if elsewhere or same > len(others) else set()


def identifiers(scan: ScanFiles, kind: str) -> list[str]:
    """The identifiers of ``scan`` that a key of this kind compares, without the empty ones."""
    identity = scan.identity
    found = {
        "sop": list(identity.sop_uids or ()),
        "series": [identity.series_uid],
        "study": [identity.study_uid],
        "accession": [identity.accession_number],
        "patient": [identity.patient_id],
    }[kind]
    return [name.strip() for name in found if name and name.strip()]


def relative(path: str | Path, archive: Path) -> str:
    """``path`` relative to the archive, with forward slashes."""
    path = Path(path)
    try:
        return path.relative_to(archive).as_posix()
    except ValueError:
        return path.resolve().relative_to(archive.resolve()).as_posix()
