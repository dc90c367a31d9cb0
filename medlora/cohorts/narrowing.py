"""Which of the scans that a row's key leads to the row means: by its other columns, a date, a side, the name of a file.

A table joined by patient may hold a row for each visit; one joined by accession number, a row for each breast.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from medlora.cohorts.headings import KEYS, columns_of
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.cohorts.paths import without_extension
from medlora.cohorts.selection import FRONTAL, LATERAL

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

TELLING: dict[str, tuple[str, ...]] = {
    "file": KEYS["file"],
    "part": (
        *KEYS["series"], *KEYS["study"], "studyid", "seriesid", "session", "sessionid", "ses", "visit", "visitid",
        "timepoint",
    ),
    "date": ("studydate", "examdate", "scandate", "imagingdate", "acquisitiondate", "visitdate", "date", "検査日"),
    "side": ("laterality", "side", "imagelaterality"),
    "view": ("viewposition", "view", "projection"),
}  # fmt: skip
"""Headings (as those of `headings.KEYS`) by what their cells say of a scan; the order in which they are asked."""

_ENOUGH = 0.8  # of the patients, studies or folders that must have a row that fits before a column is believed
_YEAR_FIRST = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})(?:[ T].*)?|(\d\d)(\d\d)(?:\.0)?)")
_DAY_OR_MONTH_FIRST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?:[ T].*)?")


@dataclass
class Narrowed:
    """What came of it.

    Attributes:
        scans: row → the scans that it means.
        lost: heading → rows whose cell fits none of their scans, of a column that fits the others'.
        used: headings that told scans apart.
    """

    scans: dict[int, list[str]]
    lost: dict[str, list[int]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)


def narrow(
    named: Mapping[int, Sequence[str]],
    table: LabelTable,
    keys: Sequence[str],
    scans: Mapping[str, ScanFiles],
    paths: Mapping[str, Sequence[str]],
    all_rows: bool,
) -> Narrowed:
    """The scans of each row that its other columns fit.

    A column is believed where it fits a scan of most patients (or studies, or folders, by the key); then a row that it
    does not fit is about a scan that is not there.

    Args:
        named: row → the scans that its key leads to.
        table: the labels.
        keys: headings that the rows were joined by.
        scans: by scan_id.
        paths: scan_id → its files, relative to the archive, with forward slashes.
        all_rows: ask all rows, not only those that share a scan or lead to several.
    """
    found = Narrowed({row: list(scan_ids) for row, scan_ids in named.items()})
    for kind, names in TELLING.items():
        for column in columns_of(table, names):
            if column not in keys:
                _narrow_by(found, table, column, _fits(kind, table, column, scans, paths), all_rows)
    return found


def _narrow_by(
    found: Narrowed, table: LabelTable, column: str, fits: Callable[[str, str], bool], all_rows: bool
) -> None:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, scan_ids in found.scans.items():
        for scan_id in scan_ids:
            rows_of[scan_id].append(row)
    cells = {row: cell for row in found.scans if not is_missing(cell := table.cell(row, column))}
    asked = [
        row
        for row in cells
        if found.scans[row] and (all_rows or len(found.scans[row]) > 1 or len(rows_of[found.scans[row][0]]) > 1)
    ]
    fitting = {row: [scan_id for scan_id in found.scans[row] if fits(cells[row], scan_id)] for row in asked}
    met: dict[tuple[str, ...], bool] = defaultdict(bool)  # scans of one identifier → whether a row fits one of them
    for row in asked:
        met[tuple(found.scans[row])] |= bool(fitting[row])
    if sum(met.values()) < max(1, _ENOUGH * len(met)):
        return
    if any(len(fitting[row]) < len(found.scans[row]) for row in asked):
        found.used.append(column)
    lost = sorted(row for row in asked if not fitting[row])
    if lost:
        found.lost[column] = lost
    found.scans |= fitting


def _fits(
    kind: str, table: LabelTable, column: str, scans: Mapping[str, ScanFiles], paths: Mapping[str, Sequence[str]]
) -> Callable[[str, str], bool]:
    """Whether a cell of the column fits a scan."""
    if kind == "date":
        orders = _orders(list(table.frame[column]))
        return lambda cell, scan_id: scans[scan_id].identity.study_date[:8] in _dates(cell, orders)
    if kind == "side":
        return lambda cell, scan_id: (
            cell.strip().upper()[:1] == _header(scans[scan_id], "ImageLaterality", "Laterality")
        )
    if kind == "view":
        return lambda cell, scan_id: _is_view(cell.strip().upper(), _header(scans[scan_id], "ViewPosition"))
    if kind == "file":
        return lambda cell, scan_id: any(_names(cell, path) for path in paths[scan_id])
    return lambda cell, scan_id: any(_is_part(cell, path) for path in paths[scan_id])


def _is_view(asked: str, view: str) -> bool:
    return view in {"FRONTAL": FRONTAL, "LATERAL": LATERAL}.get(asked, {asked})


def _header(scan: ScanFiles, *words: str) -> str:
    return next((value for word in words if (value := str(scan.header.get(word, "")).strip().upper())), "")


def _names(cell: str, path: str) -> bool:
    """Whether the cell names the file, with or without its extension, with or without folders."""
    name = PurePosixPath(cell.strip().replace("\\", "/")).name.casefold()
    file = PurePosixPath(path).name.casefold()
    return name in (file, without_extension(file)) or (
        bool(name) and without_extension(name) == without_extension(file)
    )


def _is_part(cell: str, path: str) -> bool:
    """Whether a folder of the path, or the file without its extension, is called so: "2", or "ses-2" and "s2"."""
    cell = cell.strip().casefold()
    names = [*(part.casefold() for part in PurePosixPath(path).parts[:-1]), without_extension(path.casefold())]
    names[-1] = PurePosixPath(names[-1]).name
    return any(name in (cell, f"ses-{cell}", f"s{cell}") for name in names)


def _orders(cells: Sequence[str]) -> tuple[bool, bool]:
    """Whether days, and whether months, may come first in the column's dates: where no cell says otherwise, either."""
    found = [match.groups() for cell in cells if (match := _DAY_OR_MONTH_FIRST.fullmatch(str(cell).strip()))]
    day_first = any(int(first) > 12 or mark == "." for first, mark, _, _ in found)
    month_first = any(int(second) > 12 for _, _, second, _ in found)
    return not month_first, not day_first


def _dates(cell: str, orders: tuple[bool, bool]) -> set[str]:
    """What the cell may mean, as DICOM writes a date (YYYYMMDD)."""
    cell = cell.strip()
    if known := _YEAR_FIRST.fullmatch(cell):
        year, _, month, day, *closely = known.groups()
        month, day = (month, day) if month else closely
        return {f"{year}{int(month):02d}{int(day):02d}"}
    match = _DAY_OR_MONTH_FIRST.fullmatch(cell)
    if match is None:
        return set()
    first, _, second, year = match.groups()
    pairs = [(second, first)] * orders[0] + [(first, second)] * orders[1]
    return {f"{year}{int(month):02d}{int(day):02d}" for month, day in pairs}
