"""Joining the rows of a table of labels to the scans of an archive."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medlora.cohorts.headings import KEYS, all_key_columns, asked_key, columns_of, has_no_heading, headings_below
from medlora.cohorts.identifiers import Matches, match_identifiers, shortened
from medlora.cohorts.joined import NAMES, SHORTENED, ZEROS_LOST, Join, key_option
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.cohorts.narrowing import MOST_FILES, narrow
from medlora.cohorts.paths import PathMatches, match_paths
from medlora.cohorts.patient_columns import patient_columns
from medlora.cohorts.patients import written_apart
from medlora.cohorts.places import unread_centres
from medlora.cohorts.reconciling import hold_against_folders, hold_against_patients
from medlora.cohorts.suggesting import suggestion
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles


def join(
    table: LabelTable,
    scans: Sequence[ScanFiles],
    left_out: Iterable[str | Path],
    archive: Path,
    key: str | None = None,
    copies: Mapping[str, str] | None = None,
    patient_column: str | None = None,
) -> Join:
    """Join by the first key that matches anything: file path, SOP, series or study UID, accession number, patient.

    Of several columns of one kind the one is taken by which most rows match.

    Args:
        table: the labels.
        scans: those of the archive.
        left_out: files of the archive that are part of no scan.
        archive: its root.
        key: a kind of key, a heading, or ``kind=heading``, to take no other.
        copies: paths (relative to the archive) of files left out as copies of one of a scan → its scan_id.
        patient_column: heading of the patients that splits keep together; told by its name where None.

    Raises:
        MedloraError: there is no key, or it matches nothing.
    """
    try:
        columns = _asked(table, key) if key else all_key_columns(table)
    except MedloraError:
        if not has_no_heading(table):
            raise
        columns = {}
    if not columns and has_no_heading(table):
        raise MedloraError(
            f"{table.path.name} seems to have no headings: its first row holds a file, a number or a date",
            "add a first row that names the columns, e.g. file,label",
        )
    there = _Archive(scans, left_out, archive, copies or {})
    if not columns:
        raise MedloraError(
            f"{table.path.name} has no column that tells which scan a row is about; its columns are: "
            + ", ".join(map(repr, table.frame.columns)),
            (f"{below}; or " if (below := headings_below(table)) else "")
            + "add a column 'file' (path in the archive), 'series_uid', 'study_uid', 'accession_number' or "
            "'patient_id', or name it with --key, e.g. --key patient=COLUMN" + there.suggestion(table, []),
        )
    whose = patient_columns(table, there.scans_of("patient"), patient_column)
    there.patient = whose.named
    tried = [_best_of(kind, found, table, there) for kind, found in columns.items()]
    if not key and tried[0].key == "file":
        strange = all(joined.key != "patient" or not joined.matched for joined in tried)
        tried[:1] = _by_files(tried[0], columns.get("patient", []) if strange else [], table, there)
        best = max(tried, key=lambda other: other.matched)
        if best.key != "file" and 2 * tried[0].matched < min(best.matched, len(tried[0].ambiguous)):
            tried.sort(key=lambda joined: joined.key == "file")  # numbers of images, which few files happen to have
    order = list(KEYS)
    for joined in tried:
        if joined.contradicted and joined.column in columns.get("patient", ()):
            continue  # the name of a folder, of another patient's
        if joined.contradicted and not key:
            raise MedloraError(
                f"{table.path.name}: by {NAMES[joined.key]} (column {joined.column!r}) most rows lead to scans of "
                f"other patients of the archive than the column {there.patient!r} names, e.g. row "
                f"{joined.contradicting[0]}; it is not known which of the two is right",
                "say it: " + ", or ".join(f"--key {other}" for other in columns),
            )
        if joined.scans:
            _not_disputed(joined, table)
            best = max(tried, key=lambda other: other.matched)
            joined.better = best if best.matched > joined.matched and not joined.contradicting else None
            before = order[: order.index(joined.key)]
            joined.passed = [other for other in tried if other.key in before and other.column != joined.column]
            if joined.key == "patient":
                whose = patient_columns(table, there.scans_of("patient"), patient_column, joined.column)
            joined.patient = whose.people
            joined.notes = [*whose.notes(), *_notes(joined, table)]
            _narrow(joined, table, scans, archive)
            return joined
    tried = [other for joined in tried for other in (joined, *joined.rivals)]
    met = max(len(joined.left_out) for joined in tried)
    elsewhere = max(len(joined.elsewhere) for joined in tried)
    paths = any(joined.ambiguous for joined in tried if joined.key == "file")
    doubtful = max(len(joined.ambiguous) for joined in tried)
    lost = max(len(joined.shortened) for joined in tried)
    zeros = max(len(joined.zeros_lost) for joined in tried)
    raise MedloraError(
        f"none of the {len(table.frame)} rows of {table.path.name} matched one of the {len(scans)} scans; compared: "
        + "; ".join(f"column {joined.column!r} as {NAMES[joined.key]}" for joined in tried)
        + (f"; {met} rows are about files that were left out" if met else "")
        + (f"; {doubtful} rows may mean several scans, or scans of several patients" if doubtful else "")
        + (f"; the paths of {elsewhere} rows name another folder than {archive.name!r}" if elsewhere else "")
        + (f"; {zeros} rows hold {ZEROS_LOST}" if zeros else "")
        + (f"; {lost} rows hold {SHORTENED}" if lost else "")
        + f". The first row is row {table.frame.index[0]}",
        "check that the table belongs to this archive, or name the right column with --key"
        + ("; write paths from the archive's folder on, with the file's extension" if paths else "")
        + there.suggestion(table, tried),
    )


class _Archive:
    """The archive's side of a join; `join` documents the arguments.

    Attributes:
        patient: heading of the table's patients that are held against the archive's.
    """

    patient: str | None = None

    def __init__(
        self, scans: Sequence[ScanFiles], left_out: Iterable[str | Path], root: Path, copies: Mapping[str, str]
    ) -> None:
        self.scans, self.root, self.copies = scans, root, copies
        self._left_out = left_out
        self._scans_of: dict[str, dict[str, list[str]]] = {}

    def scans_of(self, kind: str) -> dict[str, list[str]]:
        """Identifier, or path relative to the archive → scan_ids; formed at the first call."""
        if kind not in self._scans_of:
            made: dict[str, list[str]] = defaultdict(list)
            for scan in self.scans:
                for name in identifiers(scan, kind) if kind != "file" else self._paths(scan):
                    made[name].append(scan.scan_id)
            self._scans_of[kind] = dict(made)
        return self._scans_of[kind]

    def _paths(self, scan: ScanFiles) -> list[str]:
        return [relative(path, self.root) for path in scan.paths]

    def suggestion(self, table: LabelTable, tried: Sequence[Join]) -> str:
        """See `suggestion`, of the columns that were not tried."""
        known = {kind: {*self.scans_of(kind), *(self.outside if kind == "file" else ())} for kind in KEYS}
        return suggestion(table, known, {(joined.key, joined.column) for joined in tried})

    @cached_property
    def paths(self) -> dict[str, str]:
        """scan_id → the first of its paths."""
        return {scan.scan_id: relative(scan.paths[0], self.root) for scan in self.scans}

    @cached_property
    def outside(self) -> list[str]:
        """Paths of the files that are part of no scan."""
        return [relative(path, self.root) for path in self._left_out]


def _by_files(first: Join, patients: Sequence[str], table: LabelTable, there: _Archive) -> list[Join]:
    """Joins by columns of files, best first: by the first, by others, by a folder's and a name's together.

    Folders may be called by ``patients``, too: the headings of these, where the scans themselves say nothing of them.
    """
    columns = [first.column, *(c for c in columns_of(table, KEYS["file"]) if c != first.column)]
    found = [first, *(_join_by("file", column, table, there) for column in columns[1:])]
    unsettled = any(joined.ambiguous or joined.folder_rows or joined.groups for joined in found)
    folders = [*columns, *(column for column in patients if column not in columns)]
    for folder, name in itertools.product(folders, columns) if unsettled else ():
        if folder == name:
            continue
        both = table.frame[folder].str.rstrip("/\\") + "/" + table.frame[name]
        frame = table.frame.assign(**{name: both.where((table.frame[folder] != "") & (table.frame[name] != ""), "")})
        joined = _join_by("file", name, replace(table, frame=frame), there)
        joined.told_by = [folder]
        if joined.matched and not joined.folder_rows:
            found = [other for other in found if other.told_by or not _tells_more(joined, other)]
            found.append(joined)
    return sorted(found, key=lambda joined: (-joined.matched, bool(joined.folder_rows), len(joined.told_by)))


def _tells_more(joined: Join, other: Join) -> bool:
    """Whether a folder and a name together lead other rows to a scan than the name, or the folder, alone does."""
    alike = all(sorted(rows) == sorted(other.scans.get(scan_id, rows)) for scan_id, rows in joined.scans.items())
    return not alike or bool(joined.apart(other))


def _asked(table: LabelTable, key: str) -> dict[str, list[str]]:
    """What ``--key`` allows: one column; but of a kind alone, all of that kind (of files, the first)."""
    kind, column = asked_key(table, key)
    return {kind: all_key_columns(table)[kind] if key == kind and kind != "file" else [column]}


def _best_of(kind: str, columns: Sequence[str], table: LabelTable, there: _Archive) -> Join:
    """The join by one of the columns, by which most rows match. (Columns of files are compared by `_by_files`.)"""
    found = [_join_by(kind, column, table, there) for column in (columns[:1] if kind == "file" else columns)]
    best = max(found, key=lambda joined: joined.matched)
    best.rivals = [joined for joined in found if joined is not best]
    return best


def _not_disputed(joined: Join, table: LabelTable) -> None:
    for other in joined.rivals:
        if other.matched == joined.matched and joined.apart(other):
            raise MedloraError(
                f"{table.path.name}: by {NAMES[joined.key]} as many rows match by the column {other.column!r} as by "
                f"{joined.column!r}, but other scans, and it is not known which of the two is right",
                f"say it: {key_option(joined.key, joined.column)}, or {key_option(joined.key, other.column)}",
            )


def _notes(joined: Join, table: LabelTable) -> list[str]:
    """What is to be said of columns beside the key."""
    found, cells = [], []
    if joined.patient is not None:
        cells = [table.cell(row, joined.patient) for row in joined.scans_of_rows]
    if apart := written_apart(cells):
        found.append(
            f"{apart} patients of the column {joined.patient!r} are written in several ways, which differ in leading "
            "zeros, a trailing .0 or case; each counts as one patient"
        )
    if unread := unread_centres(table):
        found.append(
            f"the columns {', '.join(map(repr, unread))} were not read as centres of places; if they are, name them "
            "x, y and z, and say --coordinates"
        )
    return found


def _join_by(kind: str, column: str, table: LabelTable, there: _Archive) -> Join:
    rows_of: dict[str, list[int]] = defaultdict(list)
    result = Join(kind, column, len(table.frame))
    for row in table.frame.index:
        value = table.cell(row, column)
        if is_missing(value):
            result.unmatched.append(row)
        else:
            rows_of[value].append(row)
    scans_of = there.scans_of(kind)
    found: PathMatches | Matches
    if kind == "file":
        same = {name: scan_ids[0] for name, scan_ids in scans_of.items() if len(scan_ids) == 1}
        files = [*scans_of, *there.outside]
        found = paths = match_paths(rows_of, files, there.root, table.path.parent, {**same, **there.copies})
        meant = dict(paths.to)
        _take(result, rows_of, meant, scans_of)
        _take_copies(result, rows_of, meant, there.copies)
        result.zeros_lost = sorted(row for value in paths.zeros_lost for row in rows_of[value])
        result.elsewhere = sorted(row for value in paths.elsewhere for row in rows_of[value])
        result.folder_rows = {row for value in paths.folders for row in rows_of[value]}
        result.of_folders = _of_folders(result, rows_of, paths.folders)
        by_end = set().union(*paths.repaired.values())
        loose = {row for value in by_end | paths.folders for row in rows_of[value]}
        hold_against_patients(result, loose, table, there.patient, there.scans)
        bare = {row for value in by_end if not re.search(r"[/\\]", value) for row in rows_of[value]}
        hold_against_folders(result, bare, table, there.patient, there.paths)
    else:
        found = match_identifiers(rows_of, scans_of)
        meant = {value: [name] for value, name in found.to.items()}
        _take(result, rows_of, meant, scans_of)
        if kind != "patient":  # what may mean another patient's scans, too
            hold_against_patients(result, set(result.scans_of_rows), table, there.patient, there.scans)
    for value in found.ambiguous:
        result.ambiguous.extend(rows_of[value])
    result.shortened = [row for value in shortened(rows_of) if value not in meant for row in rows_of[value]]
    result.repaired = {
        how: sorted(row for value in values for row in rows_of[value]) for how, values in found.repaired.items()
    }
    for rows in (result.unmatched, result.ambiguous, result.shortened, result.left_out, result.of_others):
        rows.sort()
    for rows in result.scans.values():
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


def _narrow(result: Join, table: LabelTable, scans: Sequence[ScanFiles], archive: Path) -> None:
    """Leave each row the scans that its other columns fit (see `medlora.cohorts.narrowing`)."""
    named: dict[int, list[str]] = defaultdict(list)
    for scan_id, rows in result.scans.items():
        for row in rows:
            if result.whole_study or row in result.folder_rows:
                named[row].append(scan_id)
    by_id = {scan.scan_id: scan for scan in scans}
    several = {scan_id for scan_ids in named.values() for scan_id in scan_ids}
    paths = {
        scan_id: [relative(path, archive) for path in by_id[scan_id].paths[: MOST_FILES + 1]] for scan_id in several
    }
    found = narrow(named, table, (result.key, result.column), by_id, paths)
    kept: dict[str, list[int]] = {}
    left = {row: set(scan_ids) for row, scan_ids in found.scans.items()}
    for scan_id, rows in result.scans.items():
        if meant := [row for row in rows if row not in left or scan_id in left[row]]:
            kept[scan_id] = meant
    result.scans, result.lost, result.differ = kept, found.lost, found.differ
    result.not_telling = found.unused
    result.told_by += [column for column in found.used if column not in result.told_by]
    parted: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
    for number, group in enumerate(result.groups):
        for row in group:
            if row not in named or found.scans[row]:
                parted[number, tuple(found.scans.get(row, ()))].append(row)
    result.groups = sorted(group for group in parted.values() if len(group) > 1)
    result.of_folders = [[s for s in scan_ids if s in kept] for scan_ids in result.of_folders]


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
