"""Images that an archive holds more than once: as another scan with the same pixels, or as a file copied whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medlora.cohorts.labels import LabelTable, is_missing

if TYPE_CHECKING:
    import pandas as pd

    from medlora.cohorts.joined import Join
    from medlora.cohorts.pixels import Pixels


@dataclass
class Copies:
    """What the table says of files that are copies of a scan's, and were left out.

    Attributes:
        patients: scan_id → cells of the table's patient column, of the copies.
        conflicts: scan_ids whose copies have another label.
    """

    patients: dict[str, set[str]] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)


def read_copies(table: LabelTable, joined: Join, patient: str | None, told: list[str]) -> Copies:
    """What the rows about copies say.

    Args:
        table: the labels.
        joined: which rows are about which scan, and about copies of it.
        patient: heading of the table's patients, or None.
        told: headings of the label or findings; empty where a row is not about the whole image.
    """
    found = Copies()
    for scan_id, numbers in joined.copies.items():
        if patient is not None:
            found.patients[scan_id] = {cell for row in numbers if not is_missing(cell := table.cell(row, patient))}
        cells = {tuple(table.cell(row, column) for column in told) for row in (*joined.scans[scan_id], *numbers)}
        if len({labels for labels in cells if not all(map(is_missing, labels))}) > 1:
            found.conflicts.add(scan_id)
    return found


def same_images(
    frame: pd.DataFrame, pixels: Mapping[str, Pixels], copies: Copies, hashed: Callable[[str], str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Groups of patients that share an image, and of scans that are the same image.

    Args:
        frame: the cohort's table.
        pixels: of each scan.
        copies: of files.
        hashed: from the cell of a patient to what ``frame`` holds in its place.
    """
    by_digest: dict[str, list[str]] = {}
    for scan_id in frame["scan_id"].unique():
        by_digest.setdefault(pixels[scan_id].digest, []).append(scan_id)
    patient = dict(zip(frame["scan_id"], frame["patient"], strict=True))
    there = set(patient.values())
    groups: list[set[str]] = []
    for group in by_digest.values():
        together = {patient[scan_id] for scan_id in group}
        together |= {hashed(cell) for scan_id in group for cell in copies.patients.get(scan_id, ())} & there
        if len(together) < 2:
            continue
        apart = [other for other in groups if not other & together]
        groups = [*apart, together.union(*(other for other in groups if other & together))]
    scans = [group for group in by_digest.values() if len(group) > 1]
    return sorted(map(sorted, groups)), scans
