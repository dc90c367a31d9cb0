"""Which places in new scans are asked about: a table of centres, joined to the scans that were found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlora.cohorts.choosing import choose_for
from medlora.cohorts.joining import join
from medlora.cohorts.labels import read_labels
from medlora.cohorts.places import Place, located, read_places
from medlora.cohorts.selection import Selection
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import Scan, Survey
    from medlora.transforms import Centre


@dataclass(frozen=True)
class Asked:
    """The places of a table.

    Attributes:
        system: that their centres are in.
        of_scan: scan_id → its places, in the order in which ``medlora check`` numbers them.
        unmatched: rows without a centre, or about no scan that was found.
    """

    system: str
    of_scan: dict[str, list[Place]]
    unmatched: list[int]

    def centre(self, place: Place, scan: Scan) -> Centre:
        """The centre of a place in RAS+ millimetres."""
        x, y, z = located(place.centre, self.system, scan.affine)[0]
        return float(x), float(y), float(z)


def read_asked(
    path: str | os.PathLike[str],
    coordinates: str | None,
    survey: Survey,
    roots: Sequence[Path],
    rule: str | None = None,
) -> Asked:
    """Read a table of places (``--cases``).

    Args:
        path: a CSV with a column that names the scan, and the centres.
        coordinates: the system of the centres: ``lps``, ``ras`` or ``voxel``; None where the headings say it.
        survey: the scans that were found.
        roots: the files or folders that they were found in.
        rule: that picks one scan of each study, where rows name studies or patients; the usual one where None.

    Raises:
        MedloraError: the table has no centres or their system is not declared; or no row is about a scan.
    """
    table = read_labels(path)
    places = read_places(table, coordinates)
    if places is None:
        raise MedloraError(
            f"{table.path.name} has no columns with the centres of places", "name them x, y and z (or coordX …)"
        )
    folders = [root if root.is_dir() else root.parent for root in roots]
    archive = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    left_out = [file for item in survey.excluded for file in item.paths]
    joined = join(table, survey.scans, left_out, archive)
    several = joined.whole_study or joined.of_folders
    taken, _, _ = choose_for(survey.scans, joined, Selection.parse(rule) if rule and several else None)
    chosen = {scan.scan_id for scan in taken}
    of_scan: dict[str, list[Place]] = {}
    for scan_id, rows in joined.scans.items():
        if scan_id not in chosen:
            continue
        found = [places.of_row[row] for row in rows if row in places.of_row]
        of_scan[scan_id] = sorted(found, key=lambda place: place.centre)
    answered = {place.row for found in of_scan.values() for place in found}
    return Asked(places.system, of_scan, [row for row in table.frame.index if row not in answered])
