"""Which of the scans that a row's key leads to the row means: by its other columns, a date, a side, the name of a file.

A table joined by patient may hold a row for each visit; one joined by accession number, a row for each breast.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from medlora.cohorts.headings import KEYS, columns_of
from medlora.cohorts.labels import LabelTable, is_missing, plain
from medlora.cohorts.paths import without_extension
from medlora.cohorts.selection import FRONTAL, LATERAL

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

Values = frozenset[str]

TELLING: dict[str, tuple[str, ...]] = {
    "date": ("studydate", "examdate", "scandate", "imagingdate", "acquisitiondate", "visitdate", "date", "検査日"),
    "side": ("laterality", "imagelaterality", "side"),
    "view": ("viewposition", "view", "projection"),
    "file": KEYS["file"],
    "part": ("session", "sessionid", "ses", "visit", "visitid", "timepoint", "study", "studyid"),
}  # fmt: skip
"""Headings (as those of `headings.KEYS`) by what their cells say of a scan; the order in which they are asked."""

_OF_A_STUDY = ("side", "view", "file")  # what tells scans of one study apart
_ENOUGH = 0.8  # of the patients, studies or folders that must have a row that fits before a column is believed
MOST_FILES = 4  # of a scan that one file's name can mean
_DOUBTFUL = ["several"]  # instead of scans: a cell that may mean one or another
_SIDES = {"l": "L", "left": "L", "links": "L", "左": "L", "r": "R", "right": "R", "rechts": "R", "右": "R"}
_FOLDERS = {"ses": ("", "ses", "session"), "stu": ("", "s", "study"), "vis": ("", "v", "visit", "ses"),
            "tim": ("", "tp", "timepoint", "ses")}  # fmt: skip
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEAR_FIRST = re.compile(
    r"(\d{4})(?:[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[ T].*)?|(\d\d)(\d\d)(?:\.0|\d{6}.*)?)", re.ASCII
)
_OTHERS_FIRST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?:[ T].*)?", re.ASCII)
_NAMED_MONTH = re.compile(r"(\d{1,2})[- ]([A-Za-z]{3})[a-z]*[- ](\d{4})", re.ASCII)


@dataclass
class Narrowed:
    """What came of it.

    Attributes:
        scans: row → the scans that it means.
        lost: heading → rows whose cell fits none of their scans, of a column that fits the others'.
        used: headings that told scans apart.
        differ: heading of dates → rows that keep their only scan, though theirs is another date than most others'.
    """

    scans: dict[int, list[str]]
    lost: dict[str, list[int]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    differ: dict[str, list[int]] = field(default_factory=dict)


def narrow(
    named: Mapping[int, Sequence[str]],
    table: LabelTable,
    key: tuple[str, str],
    scans: Mapping[str, ScanFiles],
    paths: Mapping[str, Sequence[str]],
) -> Narrowed:
    """The scans of each row that its other columns fit.

    Asked are rows that lead to several scans or share one. A column is believed where it fits a scan of most patients
    (or studies, or folders, by the key); then a row that it does not fit is about a scan that is not there. A scan
    that does not say its date, side or view fits where no other one does. Of each kind of column one is believed.

    Args:
        named: row → the scans that its key leads to.
        table: the labels.
        key: kind and heading of what the rows were joined by.
        scans: by scan_id.
        paths: scan_id → the first of its files, relative to the archive, with forward slashes.
    """
    found = Narrowed({row: list(scan_ids) for row, scan_ids in named.items()})
    for kind in _OF_A_STUDY if key[0] in ("accession", "study") else TELLING:
        for column in columns_of(table, TELLING[kind]):
            if column == key[1]:
                continue
            reader = _reader(kind, table, column, scans, paths)
            believed = _narrow_by(found, table, column, reader)
            if kind == "date":
                _say_others(found, table, column, reader, believed)
            if believed:
                break
    return found


class _Reader:
    """How a kind of column is held against scans.

    Args:
        asked: what a cell may mean; nothing where it says nothing.
        said: what a scan says; nothing where it does not.
        study: of a scan, where only whole studies may fit.
        single: whether only one scan may fit.
    """

    def __init__(
        self,
        asked: Callable[[str], Values],
        said: Callable[[str], Values],
        study: Callable[[str], str] | None = None,
        single: bool = False,
    ) -> None:
        self.asked, self.said, self.study, self.single = asked, said, study, single

    def among(self, scan_ids: Sequence[str]) -> Callable[[str], list[str] | None]:
        """Of these scans those that a cell fits; None where it says nothing."""
        by_value: dict[str, list[str]] = defaultdict(list)
        silent = []
        # A folder that all lie in, as that of a patient, tells none of them apart.
        shared = frozenset[str]() if self.study is None else frozenset.intersection(*map(self.said, scan_ids))
        for scan_id in scan_ids:
            said = self.said(scan_id) - shared
            for value in said:
                by_value[value].append(scan_id)
            if not said:
                silent.append(scan_id)
        studies: dict[str, set[str]] = defaultdict(set)
        if self.study is not None:
            for scan_id in scan_ids:
                studies[self.study(scan_id)].add(scan_id)

        def fitting(cell: str) -> list[str] | None:
            asked = self.asked(cell)
            if not asked:
                return None
            met = {scan_id for value in asked for scan_id in by_value.get(value, ())}
            if (self.single and len(met) > 1) or any(met & study and not study <= met for study in studies.values()):
                return _DOUBTFUL
            return [scan_id for scan_id in scan_ids if scan_id in met] or silent

        return fitting


def _narrow_by(found: Narrowed, table: LabelTable, column: str, reader: _Reader) -> bool:
    """Narrow by one column, if it is believed; whether it was."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, found_now in found.scans.items():
        groups[tuple(found_now)].append(row)
    fitting: dict[int, list[str]] = {}
    met, asked, told = 0, 0, False
    for scan_ids, rows in groups.items():
        if not scan_ids or (len(scan_ids) == 1 and len(rows) == 1):
            continue
        cells = {row: cell for row in rows if not is_missing(cell := table.cell(row, column))}
        fits = reader.among(scan_ids) if cells else None
        of_rows = {row: fit for row, cell in cells.items() if fits is not None and (fit := fits(cell)) is not None}
        certain = {row: fit for row, fit in of_rows.items() if fit is not _DOUBTFUL}
        asked += bool(of_rows)
        met += len(certain) == len(of_rows) and any(certain.values())
        told = told or any(len(fit) < len(scan_ids) for fit in certain.values())
        fitting |= certain
    if not told or met < max(1, _ENOUGH * asked):
        return False
    found.used.append(column)
    if lost := sorted(row for row, fit in fitting.items() if not fit):
        found.lost[column] = lost
    found.scans |= fitting
    return True


def _say_others(found: Narrowed, table: LabelTable, column: str, reader: _Reader, believed: bool) -> None:
    """Note the rows of another date than their only scan, where the column's dates are those of scans otherwise."""
    fits: dict[int, bool] = {}
    for row, scan_ids in found.scans.items():
        asked = reader.asked(table.cell(row, column))
        said = reader.said(scan_ids[0]) if len(scan_ids) == 1 else frozenset()
        if asked and said:
            fits[row] = bool(asked & said)
    others = sorted(row for row, fit in fits.items() if not fit)
    if others and (believed or len(fits) - len(others) >= _ENOUGH * len(fits)):
        found.differ[column] = others


def _reader(
    kind: str, table: LabelTable, column: str, scans: Mapping[str, ScanFiles], paths: Mapping[str, Sequence[str]]
) -> _Reader:
    if kind == "date":
        orders = _orders(table.frame[column])
        return _Reader(lambda cell: _dates(cell, orders), lambda s: _one(scans[s].identity.study_date[:8]))
    if kind == "side":
        return _Reader(
            lambda cell: _one(_SIDES.get(cell.strip().casefold(), "")),
            lambda s: _one(_header(scans[s], "ImageLaterality", "Laterality")),
        )
    if kind == "view":
        return _Reader(_views, lambda s: _one(_header(scans[s], "ViewPosition")))
    if kind == "file":
        return _Reader(_file_asked, lambda s: _files_said(paths[s]), single=True)
    prefixes = _FOLDERS[plain(column)[:3]]
    return _Reader(
        lambda cell: frozenset(f"{prefix}{_number(plain(cell))}" for prefix in prefixes if plain(cell)),
        lambda s: frozenset(_number(plain(part)) for part in PurePosixPath(paths[s][0]).parts[:-1]),
        lambda s: scans[s].identity.study_uid or s,
    )


def _one(value: str) -> Values:
    return frozenset((value,)) if value else frozenset()


def _header(scan: ScanFiles, *words: str) -> str:
    return next((value for word in words if (value := str(scan.header.get(word, "")).strip().upper())), "")


def _views(cell: str) -> Values:
    """Views, by their group or as DICOM writes them; none of "PA and lateral"."""
    asked = cell.strip().upper()
    if asked in ("FRONTAL", "LATERAL"):
        return FRONTAL if asked == "FRONTAL" else LATERAL
    return _one(asked) if asked.isalpha() or asked in FRONTAL else frozenset()


def _file_asked(cell: str) -> Values:
    name = PurePosixPath(cell.strip().replace("\\", "/")).name.casefold()
    return _one(name if without_extension(name) != name else f"{name}.")


def _files_said(paths: Sequence[str]) -> Values:
    """The names of a scan's files, and those without their extensions, marked by a dot."""
    names = [PurePosixPath(path).name.casefold() for path in paths] if len(paths) <= MOST_FILES else []
    return frozenset(names) | {f"{without_extension(name)}." for name in names}


def _number(name: str) -> str:
    """``name`` without zeros before the number at its end: "ses01" and "ses1" are the same."""
    return re.sub(r"0*(\d+)$", r"\1", name)


def _orders(cells: Iterable[str]) -> tuple[bool, bool]:
    """Whether days, and whether months, may come first in the column's dates: where no cell says otherwise, either."""
    found = [match.groups() for cell in cells if (match := _OTHERS_FIRST.fullmatch(str(cell).strip()))]
    day_first = any(int(first) > 12 or mark == "." for first, mark, _, _ in found)
    month_first = any(int(second) > 12 for _, _, second, _ in found)
    return not month_first, not day_first


def _dates(cell: str, orders: tuple[bool, bool]) -> Values:
    """What the cell may mean, as DICOM writes a date (YYYYMMDD)."""
    cell, pairs = cell.strip(), list[tuple[str, str]]()
    if known := _YEAR_FIRST.fullmatch(cell):
        year, month, day, *closely = known.groups()
        pairs = [(month or closely[0], day or closely[1])]
    elif written := _NAMED_MONTH.fullmatch(cell):
        day, word, year = written.groups()
        pairs = [(str(_MONTHS.index(word.lower()) + 1), day)] if word.lower() in _MONTHS else []
    elif other := _OTHERS_FIRST.fullmatch(cell):
        first, _, second, year = other.groups()
        pairs = [(second, first)] * orders[0] + [(first, second)] * orders[1]
    else:
        return frozenset()
    return frozenset(f"{year}{int(month):02d}{int(day):02d}" for month, day in pairs)
