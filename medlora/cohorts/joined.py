"""What came of joining a table of labels to an archive, and how it is said."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

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


ZEROS_LOST = (
    "a number that lacks the leading zeros of files or folders of the archive, as spreadsheets take them away (1 for "
    "001): format the column as text and write the names in full"
)
SHORTENED = "a number that a spreadsheet has shortened (as 1.23E+09, or to 15 digits): export the column as text"


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
        shortened: the rows without a scan whose identifier is a number that a spreadsheet has shortened.
        zeros_lost: the rows without a scan whose file or folder is a number that seems to lack leading zeros.
        elsewhere: the rows among them whose path names another folder than the archive.
        left_out: rows about files that could not be taken as a scan.
        copies: scan_id → rows among them about files that are copies of the scan's, where it has rows of its own.
        of_others: rows whose accession number, or end of a path, is that of another patient's scan, as the table's
            patient column says.
        repaired: how an identifier had to be read → rows.
        contradicting: rows whose patient has scans elsewhere in the archive than where a path or UID leads.
        contradicted: whether that is so of most rows, and of looser keys than those.
        of_folders: scan_ids of each folder of several scans that rows name.
        folder_rows: the rows that name a folder.
        groups: rows of the same identifier, and of the same scans (more than one).
        told_by: other headings by which scans of one identifier were told apart.
        lost: heading of those → rows whose cell fits no scan of theirs.
        differ: heading of dates → rows that keep their only scan, though its date is another.
        patient: heading of the table's patients: of several, the one that names most of the archive's.
        passed: keys further up in the order that led to no scan.
        rivals: other columns of the same kind, by which no more rows match.
        notes: what else is to be said about the table, one sentence each.
        not_telling: a sentence for each column of dates or visits that did not tell apart scans that rows are about.
        better: a key further down in the order that would have matched more rows.
    """

    key: str
    column: str
    rows: int
    scans: dict[str, list[int]] = field(default_factory=dict)
    unmatched: list[int] = field(default_factory=list)
    ambiguous: list[int] = field(default_factory=list)
    shortened: list[int] = field(default_factory=list)
    zeros_lost: list[int] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    copies: dict[str, list[int]] = field(default_factory=dict)
    of_others: list[int] = field(default_factory=list)
    repaired: dict[str, list[int]] = field(default_factory=dict)
    contradicting: list[int] = field(default_factory=list)
    contradicted: bool = False
    of_folders: list[list[str]] = field(default_factory=list)
    folder_rows: set[int] = field(default_factory=set)
    groups: list[list[int]] = field(default_factory=list)
    told_by: list[str] = field(default_factory=list)
    lost: dict[str, list[int]] = field(default_factory=dict)
    differ: dict[str, list[int]] = field(default_factory=dict)
    patient: str | None = None
    passed: list[Join] = field(default_factory=list)
    rivals: list[Join] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_telling: list[str] = field(default_factory=list)
    better: Join | None = None

    @property
    def matched(self) -> int:
        """How many rows are about a scan of the archive."""
        return len({row for rows in self.scans.values() for row in rows})

    @property
    def whole_study(self) -> bool:
        """Whether a row is about a study or patient, not one scan."""
        return self.key not in ONE_SCAN

    def apart(self, other: Join) -> list[int]:
        """The rows that another column leads to other scans than this one does."""
        ours, theirs = self.scans_of_rows, other.scans_of_rows
        return [row for row in ours if row in theirs and ours[row] != theirs[row]]

    @property
    def scans_of_rows(self) -> dict[int, set[str]]:
        """Row → the scans that it is about."""
        found: dict[int, set[str]] = defaultdict(set)
        for scan_id, rows in self.scans.items():
            for row in rows:
                found[row].add(scan_id)
        return dict(found)

    def messages(self) -> list[str]:
        """One sentence each: what matched, what did not, what had to be repaired."""
        name = NAMES[self.key]
        columns = " and ".join(map(repr, (self.column, *self.told_by)))
        lines = [
            f"{self.matched} of {self.rows} rows matched {len(self.scans)} scans by {name} "
            f"(column{'s' if self.told_by else ''} {columns})"
        ]
        lines += [
            f"the column {other.column!r} ({NAMES[other.key]}) was not used: "
            + ("its values may mean several scans" if other.ambiguous else "it names none of the scans")
            for other in self.passed
            if other.column not in self.told_by
        ]
        lines += [
            f"the column {other.column!r} ({NAMES[other.key]}) was not used: it leads {_rows(rows)} to other scans"
            for other in self.rivals
            if (rows := self.apart(other))
        ]
        if self.unmatched:
            why = " (its value may mean several)" if self.unmatched[0] in self.ambiguous else ""
            if self.elsewhere:
                why = f"; the paths of {_rows(self.elsewhere)} name another folder than the archive"
            if self.zeros_lost:
                why = f"; {_rows(self.zeros_lost)} hold {ZEROS_LOST}"
            if self.shortened:
                why = f"; {_rows(self.shortened)} hold {SHORTENED}"
            lines.append(
                f"{_rows(self.unmatched)} matched no scan: {_named(self.unmatched)}, column {self.column!r}{why}"
            )
        lines += [
            f"{_rows(rows)} matched no scan, since their {column!r} is that of none: {_named(rows)}"
            for column, rows in self.lost.items()
        ]
        lines += [
            f"{_rows(rows)} matched the only scan there is, though its date is not that of {column!r}: {_named(rows)}"
            for column, rows in self.differ.items()
        ]
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
        return [*lines, *self.notes, *self.not_telling]


def key_option(kind: str, column: str) -> str:
    """What to type for a key, as it can be pasted into a shell."""
    return f"--key {shlex.quote(f'{kind}={column}')}"


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
