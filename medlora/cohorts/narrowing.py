"""Which of the scans that a row's key leads to the row means: by its other columns, a date, a side, the name of a file.

A table joined by patient may hold a row for each visit; one joined by accession number, a row for each breast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from medlora.cohorts.criteria import FRONTAL, LATERAL
from medlora.cohorts.dates import are_serials, dates_of, orders_of
from medlora.cohorts.headings import KEYS, columns_of
from medlora.cohorts.labels import LabelTable, is_missing, plain
from medlora.cohorts.paths import without_extension
from medlora.cohorts.visits import Numbering, numbered
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

Values = frozenset[str]

TELLING: dict[str, tuple[str, ...]] = {
    "date": (
        "studydate", "dateofstudy", "studydatetime", "examdate", "dateofexam", "examinationdate", "dateofexamination",
        "scandate", "dateofscan", "imagingdate", "imagedate", "acquisitiondate", "acquisitiondatetime", "acqdate",
        "seriesdate", "visitdate", "dateofvisit", "untersuchungsdatum", "aufnahmedatum", "studiendatum", "dateexamen",
        "datedexamen", "datedelexamen", "fechaestudio", "fechadeestudio", "fechadelestudio", "fechaexamen",
        "fechadeexamen", "fechadelexamen", "検査日", "撮影日", "date", "datum", "fecha",
    ),
    "side": ("laterality", "imagelaterality", "side"),
    "view": ("viewposition", "view", "projection"),
    "file": KEYS["file"],
    "part": ("session", "sessionid", "ses", "visit", "visitid", "timepoint", "study", "studyid"),
}  # fmt: skip
"""Headings (as those of `headings.KEYS`) by what their cells say of a scan; the order in which they are asked."""

_OF_A_STUDY = ("side", "view", "file")  # what tells scans of one study apart
_OF_A_VISIT = {  # what tells studies of one patient apart; in words what cells are not, scans do not say, rows have not
    "date": ("a date that is understood", "these scans say no date", "a scan of its date"),
    "part": ("a name of a visit", "these scans lie in no folders of visits", "a scan in a folder of that name"),
}
_SERIALS = "numbers by which a spreadsheet keeps dates (as 43845): format the column as dates and export it again"
_ENOUGH = 0.8  # of the patients, studies or folders that must have a row that fits before a column is believed
MOST_FILES = 4  # of a scan that one file's name can mean
_DOUBTFUL = ["several"]  # instead of scans: a cell that may mean one or another
_SIDES = {"l": "L", "left": "L", "links": "L", "左": "L", "r": "R", "right": "R", "rechts": "R", "右": "R"}
_FOLDERS = {"ses": ("", "ses", "session"), "stu": ("", "s", "study"), "vis": ("", "v", "visit", "ses"),
            "tim": ("", "tp", "timepoint", "ses")}  # fmt: skip


@dataclass
class Narrowed:
    """What came of it.

    Attributes:
        scans: row → the scans that it means.
        lost: heading → rows whose cell fits none of their scans, of a column that fits the others'.
        used: headings that told scans apart.
        differ: heading of dates → rows that keep their only scan, though theirs is another date than most others'.
        unused: a sentence for each column of dates or visits that did not tell apart studies that rows are about.
    """

    scans: dict[int, list[str]]
    lost: dict[str, list[int]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    differ: dict[str, list[int]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


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

    Raises:
        MedloraError: the table numbers visits otherwise than the archive's folders do.
    """
    found = Narrowed({row: list(scan_ids) for row, scan_ids in named.items()})
    asked: dict[str, tuple[str, _Reader]] = {}

    def study_of(scan_id: str) -> str:
        return scans[scan_id].identity.study_uid or scan_id

    for kind in _OF_A_STUDY if key[0] in ("accession", "study") else TELLING:
        doubts: list[MedloraError] = []
        tried: dict[str, _Reader] = {}
        for column in columns_of(table, TELLING[kind]):
            if column == key[1] or _is_status(table, column):
                continue
            tried[column] = reader = _reader(kind, table, column, scans, paths)
            believed = _narrow_by(found, table, column, reader, doubts)
            if kind == "date":
                _say_others(found, table, column, reader, believed)
            if believed:
                tried = {column: reader}
                break
        else:
            if doubts:
                raise doubts[0]
        if kind in _OF_A_VISIT:
            asked |= {column: (kind, reader) for column, reader in tried.items()}
    for column, (kind, reader) in asked.items():
        if line := _unused(found, table, column, _OF_A_VISIT[kind], reader, study_of):
            found.unused.append(line)
    return found


def _is_status(table: LabelTable, column: str) -> bool:
    """Whether a column is the socio-economic status, as in OASIS, and not the session of BIDS."""
    return column.strip() == "SES" and not any(cell.casefold().startswith("ses") for cell in table.frame[column])


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


def _narrow_by(found: Narrowed, table: LabelTable, column: str, reader: _Reader, doubts: list[MedloraError]) -> bool:
    """Narrow by one column, if it is believed; whether it was. Told is why its numbers are not those of folders."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, found_now in found.scans.items():
        groups[tuple(found_now)].append(row)
    fitting: dict[int, list[str]] = {}
    met, asked, told = 0, 0, False
    numbering = Numbering(_ENOUGH)
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
        if fits is not None and reader.study is not None and len(certain) == len(of_rows):
            studies = {scan_id: reader.study(scan_id) for scan_id in scan_ids}
            numbering.add({row: cells[row] for row in certain}, fits, studies)
    if why := numbering.doubt():
        doubts.append(_numbered_otherwise(table, column, why))
        return False
    if not told or met < max(1, _ENOUGH * asked):
        return False
    found.used.append(column)
    if lost := sorted(row for row, fit in fitting.items() if not fit):
        found.lost[column] = lost
    found.scans |= fitting
    return True


def _numbered_otherwise(table: LabelTable, column: str, why: str) -> MedloraError:
    return MedloraError(
        f"{table.path.name}: the visits of the column {column!r} do not seem to be numbered as the archive's folders "
        f"are, so it is not known which scan is of which visit: {why}",
        f"write into {column!r} the numbers of the folders, or add a column that tells the scans apart (file, "
        f"series_uid, study_uid, study_date); without the column {column!r} the rows of a patient must agree",
    )


def _unused(
    found: Narrowed,
    table: LabelTable,
    column: str,
    words: tuple[str, str, str],
    reader: _Reader,
    study_of: Callable[[str], str],
) -> str:
    """That a column did not tell apart several studies that rows are about, and why; empty where that is not so."""
    groups: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
    for row, scan_ids in found.scans.items():
        if len(set(map(study_of, scan_ids))) > 1 and not is_missing(cell := table.cell(row, column)):
            groups[tuple(scan_ids)][row] = cell
    cells = {row: cell for group in groups.values() for row, cell in group.items()}
    if plain(column) in ("study", "studyid") and len(cells) > 1 and len(set(cells.values())) == 1:
        return ""  # the name of a trial
    understood, nothing_said, such_a_scan = words
    rows, unread = list(cells), [row for row, cell in cells.items() if not reader.asked(cell)]
    if unread and (column in found.used or len(unread) == len(rows)):
        rows, why = unread, f"none of their cells is {understood}"
        if words is _OF_A_VISIT["date"] and are_serials(cells[row] for row in unread):
            why += f"; they hold {_SERIALS}"
    elif column in found.used or (fit := _fit(reader, groups)) == len(rows):
        return ""  # as where several studies are of one day
    elif any(reader.said(scan_id) for scan_ids in groups for scan_id in scan_ids):
        why = f"only {fit} of them have {such_a_scan}" if fit else f"none of them has {such_a_scan}"
    else:
        why = nothing_said
    several = f"{len(rows)} row{'s' if len(rows) > 1 else ''}"
    return (
        f"the column {column!r} was not used to tell the scans of {several} apart: {why}; the first is row {min(rows)}"
    )


def _fit(reader: _Reader, groups: Mapping[tuple[str, ...], Mapping[int, str]]) -> int:
    """How many cells, each among the scans that its row leads to, say what one of these says."""
    fit = 0
    for scan_ids, cells in groups.items():
        fits, said = reader.among(scan_ids), frozenset[str]().union(*map(reader.said, scan_ids))
        fit += sum(bool(reader.asked(cell) & said) and fits(cell) is not _DOUBTFUL for cell in cells.values())
    return fit


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
        orders = orders_of(table.frame[column])
        return _Reader(lambda cell: dates_of(cell, orders), lambda s: _one(scans[s].identity.study_date[:8]))
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
        lambda cell: frozenset(f"{prefix}{numbered(cell)}" for prefix in prefixes if plain(cell)),
        lambda s: frozenset(numbered(part) for part in PurePosixPath(paths[s][0]).parts[:-1]),
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
