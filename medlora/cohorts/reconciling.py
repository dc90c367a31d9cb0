"""Whether the scans that a key leads to are of the patients that the table says, where it says both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medlora.cohorts.identifiers import match_identifiers, without_damage
from medlora.cohorts.joined import Join
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.cohorts.patients import placeholders

if TYPE_CHECKING:
    from medlora.scans import ScanFiles


@dataclass
class Reconciled:
    """Rows by what their cell of a patient says of the scans that another key leads them to.

    Attributes:
        agree: rows that lead to a scan of their patient.
        beside: row and scan, of those, where the scan is another patient's.
        against: rows that lead to scans of other patients alone.
        elsewhere: those of them whose patient has scans in the archive.
        patients: row → how many Patient IDs the scans have that it leads to, without those ``beside``; nothing for
            rows that name a patient of whom there are no scans.
        told: how many rows name a patient, of which the scans say it, too.
    """

    agree: set[int] = field(default_factory=set)
    beside: set[tuple[int, str]] = field(default_factory=set)
    against: set[int] = field(default_factory=set)
    elsewhere: set[int] = field(default_factory=set)
    patients: dict[int, int] = field(default_factory=dict)
    told: int = 0


def reconcile(
    named: Mapping[int, Sequence[str]], table: LabelTable, column: str | None, scans: Sequence[ScanFiles]
) -> Reconciled:
    """Compare the patients of rows and scans.

    Args:
        named: row → scan_ids that a key leads it to.
        table: the labels.
        column: heading of its patients; None where it has none.
        scans: those of the archive.
    """
    id_of = {scan.scan_id: (scan.identity.patient_id or "").strip() for scan in scans}
    nobody = placeholders(id_of.values())
    id_of = {scan_id: name for scan_id, name in id_of.items() if name and name not in nobody}
    cells = {} if column is None else {row: table.cell(row, column) for row in named}
    nobody = placeholders(cells.values())
    cells = {row: cell for row, cell in cells.items() if not (is_missing(cell) or cell in nobody)}
    known = match_identifiers(cells.values(), id_of.values()).to
    plainly = {scan_id: without_damage(name).casefold() for scan_id, name in id_of.items()}
    found = Reconciled()
    for row, scan_ids in named.items():
        others = {scan_id for scan_id in scan_ids if scan_id in id_of}
        own = set()
        if row in cells:
            patient = without_damage(cells[row]).casefold()
            own = {s for s in others if id_of[s] == known.get(cells[row]) or plainly[s] == patient}
            found.told += bool(others)
        others -= own
        if own:
            found.agree.add(row)
            found.beside |= {(row, scan_id) for scan_id in others}
        elif others and row in cells:
            found.against.add(row)
            if cells[row] in known:
                found.elsewhere.add(row)
        if own or row not in found.against - found.elsewhere:
            found.patients[row] = len({plainly[scan_id] for scan_id in own or others})
    return found


def in_other_folders(
    named: Mapping[int, Sequence[str]], table: LabelTable, column: str | None, paths: Mapping[str, str]
) -> set[int]:
    """The rows whose patient is no folder on the way to their scans, though that of more rows is.

    Args:
        named: row → scan_ids that the name of a file alone leads it to.
        table: the labels.
        column: heading of its patients; None where it has none.
        paths: scan_id → a path of it, relative to the archive, with forward slashes.
    """
    inside, outside = set[int](), set[int]()
    for row, scan_ids in named.items():
        cell = "" if column is None else table.cell(row, column)
        if not is_missing(cell):
            folders = {part for scan_id in scan_ids for part in paths[scan_id].split("/")[:-1]}
            fits = without_damage(cell).casefold() in {without_damage(part).casefold() for part in folders}
            (inside if fits else outside).add(row)
    return outside if len(inside) > len(outside) else set()


def hold_against_patients(
    result: Join, loose: Set[int], table: LabelTable, column: str | None, scans: Sequence[ScanFiles]
) -> None:
    """Take no scan of another patient than the table says: hospitals number accessions, and files, each for itself.

    A row that leads to a scan of its patient gives up the others. One that leads to others' alone gives them up where
    more rows agree than do not, since de-identification may have renamed one side; by the end of a path only where its
    patient is elsewhere in the archive. A path written out, and a UID, are believed.

    Args:
        result: of the join, which is changed.
        loose: its rows that may mean another patient's scans, too.
        table: the labels.
        column: heading of its patients; None where it has none.
        scans: those of the archive.
    """
    named = {row: sorted(scan_ids) for row, scan_ids in result.scans_of_rows.items()}
    found = reconcile(named, table, column, scans)
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
    _give_up(result, dropped)


def hold_against_folders(
    result: Join, bare: Set[int], table: LabelTable, column: str | None, paths: Mapping[str, str]
) -> None:
    """Take no file by its name alone from the folder of another patient than the table says.

    Args:
        result: of the join, which is changed.
        bare: its rows that lead to a file by the name alone.
        table: the labels.
        column: heading of its patients; None where it has none.
        paths: scan_id → a path of it, relative to the archive, with forward slashes.
    """
    named = {row: sorted(scan_ids) for row, scan_ids in result.scans_of_rows.items() if row in bare}
    others = in_other_folders(named, table, column, paths)
    _give_up(result, {(row, scan_id) for row in others for scan_id in named[row]})


def _give_up(result: Join, dropped: set[tuple[int, str]]) -> None:
    """Take these scans from these rows, as those of other patients."""
    result.scans = {s: [row for row in rows if (row, s) not in dropped] for s, rows in result.scans.items()}
    result.scans = {scan_id: rows for scan_id, rows in result.scans.items() if rows}
    gone, still = {row for row, _ in dropped}, result.scans_of_rows.keys()
    result.of_others += gone
    result.unmatched += gone - still
    result.of_folders = [[s for s in scan_ids if s in result.scans] for scan_ids in result.of_folders]
