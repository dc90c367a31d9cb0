"""Whether the scans that a key leads to are of the patients that the table says, where it says both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medlora.cohorts.identifiers import match_identifiers, without_damage
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
