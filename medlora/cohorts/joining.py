"""Joining the rows of a table of labels to the scans of an archive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medlora.cohorts.headings import asked_key, has_no_heading, key_columns
from medlora.cohorts.identifiers import Matches, match_identifiers
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.cohorts.paths import PathMatches, match_paths
from medlora.cohorts.reconciling import reconcile
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
        contradicting: rows whose patient has scans elsewhere in the archive than where a path or UID leads.
        contradicted: whether that is so of most rows, and of looser keys than those.
        of_folders: scan_ids of each folder of several scans that rows name.
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
    contradicting: list[int] = field(default_factory=list)
    contradicted: bool = False
    of_folders: list[list[str]] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)
    better: Join | None = None

    @property
    def matched(self) -> int:
        """How many rows are about a scan of the archive."""
        return len({row for rows in self.scans.values() for row in rows})

    @property
    def whole_study(self) -> bool:
        """Whether a row is about a study or patient, not one scan."""
        return self.key not in ONE_SCAN

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
        if self.contradicting:
            lines.append(
                f"{_rows(self.contradicting)} matched a scan of another patient of the archive than the table says, "
                f"which was believed: {_named(self.contradicting)}, column {self.column!r}"
            )
        lines += [
            f"{_rows(rows)} matched {how}; the first is row {rows[0]}, column {self.column!r}"
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
    copies: Mapping[str, str] | None = None,
) -> Join:
    """Join by the first key that matches anything: file path, SOP, series or study UID, accession number, patient.

    Args:
        table: the labels.
        scans: those of the archive.
        left_out: files of the archive that are part of no scan.
        archive: its root.
        key: a kind of key, a heading, or ``kind=heading``, to take no other.
        copies: paths (relative to the archive) of files left out as copies of one of a scan → its scan_id.

    Raises:
        MedloraError: there is no key, or it matches nothing.
    """
    try:
        columns = dict([asked_key(table, key)]) if key else key_columns(table)
    except MedloraError:
        if not has_no_heading(table):
            raise
        columns = {}
    if not columns and has_no_heading(table):
        raise MedloraError(
            f"{table.path.name} seems to have no headings: its first row holds a file, a number or a date",
            "add a first row that names the columns, e.g. file,label",
        )
    if not columns:
        raise MedloraError(
            f"{table.path.name} has no column that tells which scan a row is about; its columns are: "
            + ", ".join(map(repr, table.frame.columns)),
            "add a column 'file' (path in the archive), 'series_uid', 'study_uid', 'accession_number' or "
            "'patient_id', or name it with --key, e.g. --key patient=COLUMN",
        )
    tried = [_join_by(kind, column, table, scans, left_out, archive, copies or {}) for kind, column in columns.items()]
    for joined in tried:
        if joined.contradicted and joined.column == columns.get("patient"):
            continue  # the name of a folder, of another patient's
        if joined.contradicted and not key:
            raise MedloraError(
                f"{table.path.name}: by {NAMES[joined.key]} (column {joined.column!r}) most rows lead to scans of "
                f"other patients of the archive than the column {columns['patient']!r} names, e.g. row "
                f"{joined.contradicting[0]}; it is not known which of the two is right",
                "say it: " + ", or ".join(f"--key {other}" for other in columns),
            )
        if joined.scans:
            best = max(tried, key=lambda other: other.matched)
            joined.better = best if best.matched > joined.matched and not joined.contradicting else None
            return joined
    met = max(len(joined.left_out) for joined in tried)
    doubtful = max(len(joined.ambiguous) for joined in tried)
    raise MedloraError(
        f"none of the {len(table.frame)} rows of {table.path.name} matched one of the {len(scans)} scans; compared: "
        + "; ".join(f"column {joined.column!r} as {NAMES[joined.key]}" for joined in tried)
        + (f"; {met} rows are about files that were left out" if met else "")
        + (f"; {doubtful} rows may mean several scans, or scans of several patients" if doubtful else "")
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
    copies: Mapping[str, str],
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
    folders: set[str] = set()
    loose: set[str] = set(rows_of)  # what may mean another patient's scans, too
    if kind == "file":
        for scan in scans:
            for path in scan.paths:
                scans_of[relative(path, archive)].append(scan.scan_id)
        outside = [relative(path, archive) for path in left_out]
        same = {name: scan_ids[0] for name, scan_ids in scans_of.items() if len(scan_ids) == 1}
        found = match_paths(rows_of, [*scans_of, *outside], archive, table.path.parent, {**same, **copies})
        meant, folders = dict(found.to), found.folders
        loose = folders.union(*found.repaired.values())
    else:
        for scan in scans:
            for name in identifiers(scan, kind):
                scans_of[name].append(scan.scan_id)
        found = match_identifiers(rows_of, scans_of)
        meant = {value: [name] for value, name in found.to.items()}
    _take(result, rows_of, meant, scans_of)
    if kind == "file":
        _take_copies(result, rows_of, meant, copies)
        result.of_folders = _of_folders(result, rows_of, folders)
    if kind != "patient":
        _hold_against_patients(result, {row for value in loose for row in rows_of[value]}, table, scans)
    for value in found.ambiguous:
        result.ambiguous.extend(rows_of[value])
    result.repaired = {
        how: sorted(row for value in values for row in rows_of[value]) for how, values in found.repaired.items()
    }
    for rows in (result.unmatched, result.ambiguous, result.left_out, result.of_others, *result.scans.values()):
        rows.sort()
    return result


def _take(
    result: Join,
    rows_of: Mapping[str, list[int]],
    meant: Mapping[str, Sequence[str]],
    scans_of: Mapping[str, Sequence[str]],
) -> None:
    """The rows to the scans that their values mean."""
    by_target: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for value, rows in rows_of.items():
        targets = meant.get(value, [])
        scan_ids = sorted({scan_id for name in targets for scan_id in scans_of.get(name, [])})
        for scan_id in scan_ids:
            result.scans.setdefault(scan_id, []).extend(rows)
        if not scan_ids:
            (result.left_out if targets else result.unmatched).extend(rows)
        if targets:
            by_target[tuple(sorted(targets))] += rows
    result.groups = sorted(sorted(rows) for rows in by_target.values() if len(rows) > 1)


def _take_copies(
    result: Join, rows_of: Mapping[str, list[int]], meant: Mapping[str, Sequence[str]], copies: Mapping[str, str]
) -> None:
    """The rows about copies of files: those about the first to the scan itself, where no other row is about it."""
    taken: set[int] = set()
    by_copy = sorted((name, value) for value, names in meant.items() for name in names if name in copies)
    for name, value in by_copy:
        scan_id, rows = copies[name], rows_of[value]
        if scan_id not in result.scans:
            result.scans[scan_id] = list(rows)
            taken.update(rows)
        elif not set(rows) <= {*result.scans[scan_id], *result.copies.get(scan_id, ())}:  # as where a folder holds both
            result.copies.setdefault(scan_id, []).extend(rows)
    result.left_out = [row for row in result.left_out if row not in taken]


def _of_folders(result: Join, rows_of: Mapping[str, list[int]], folders: Iterable[str]) -> list[list[str]]:
    """For each folder that rows name, its scans, where they are several; without those that a row names themselves."""
    folder_of = {row: value for value in folders for row in rows_of[value]}
    found: dict[str, list[str]] = defaultdict(list)
    named = set()
    for scan_id, rows in sorted(result.scans.items()):
        for value in sorted({folder_of[row] for row in rows if row in folder_of}):
            found[value].append(scan_id)
        if any(row not in folder_of for row in rows):
            named.add(scan_id)
    return [[s for s in scan_ids if s not in named] for _, scan_ids in sorted(found.items()) if len(scan_ids) > 1]


def _hold_against_patients(result: Join, loose: set[int], table: LabelTable, scans: Sequence[ScanFiles]) -> None:
    """Take no scan of another patient than the table says: hospitals number accessions, and files, each for itself.

    A row that leads to a scan of its patient gives up the others. One that leads to others' alone gives them up where
    more rows agree than do not, since de-identification may have renamed one side; by the end of a path only where its
    patient is elsewhere in the archive. A path written out, and a UID, are believed.
    """
    named: dict[int, list[str]] = defaultdict(list)
    for scan_id, rows in result.scans.items():
        for row in rows:
            named[row].append(scan_id)
    found = reconcile(named, table, key_columns(table).get("patient"), scans)
    dropped = set(found.beside)
    against = {"file": found.elsewhere & loose, "accession": found.against}.get(result.key, set())
    if len(found.agree) > len(against):
        dropped |= {(row, scan_id) for row in against for scan_id in named[row]}
        against = set()
    result.contradicting = sorted(found.elsewhere - {row for row, _ in dropped})
    result.contradicted = 2 * len(found.elsewhere & against) > found.told
    if result.key in ("accession", "study"):
        several = {row for row, count in found.patients.items() if count > 1}
        result.ambiguous.extend(several)
        result.unmatched.extend(several)
        result.scans = {s: [row for row in rows if row not in several] for s, rows in result.scans.items()}
    result.scans = {s: [row for row in rows if (row, s) not in dropped] for s, rows in result.scans.items()}
    result.scans = {scan_id: rows for scan_id, rows in result.scans.items() if rows}
    result.of_others = sorted({row for row, _ in dropped})
    still = {row for rows in result.scans.values() for row in rows}
    result.unmatched += [row for row in result.of_others if row not in still]
    result.of_folders = [[s for s in scan_ids if s in result.scans] for scan_ids in result.of_folders]


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
