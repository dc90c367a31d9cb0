"""What the table of labels says about each scan, once its rows are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from medlora.cohorts import headings, marks
from medlora.cohorts.identifiers import shortened
from medlora.cohorts.joined import NAMES, SHORTENED, Join
from medlora.cohorts.labels import LabelTable, is_missing, may_be_missing
from medlora.cohorts.places import Place, Places
from medlora.cohorts.splits import split_name
from medlora.errors import MedloraError

_ONE_EACH = "where rows are about slices or regions, give one row for each scan, with one label for all of it"


@dataclass(frozen=True)
class Case:
    """One label, or the marks of several findings: of a whole scan, or of a place in it.

    Attributes:
        scan_id: of the scan.
        label: its class; empty where findings are marked.
        split: as the table has it.
        place: in the scan.
        marks: finding → 1, 0, -1 or empty (see `medlora.cohorts.marks`).
    """

    scan_id: str
    label: str
    split: str = ""
    place: Place | None = None
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown_as(self) -> list[str]:
        """What it is an example of: its class, or each finding that is present."""
        return [name for name, mark in self.marks.items() if mark == marks.PRESENT] or [self.label]


@dataclass
class Rows:
    """What the table of labels says: its cases, and about each scan (scan_id → cell) the site and the patient.

    Attributes:
        cases: with a label, or a finding that is known.
        findings: their names, where there are several.
        uncertain: what uncertain findings are taken as.
        unknown: scan_id → why it gives no case, where that is said of its findings.
    """

    cases: list[Case] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    uncertain: str = marks.USUAL
    unknown: dict[str, str] = field(default_factory=dict)
    site: dict[str, str] = field(default_factory=dict)
    patient: dict[str, str] = field(default_factory=dict)

    @property
    def examples(self) -> dict[str, list[str]]:
        """scan_id → what its first case is an example of."""
        return {case.scan_id: case.shown_as for case in reversed(self.cases)}


def read_rows(
    table: LabelTable,
    joined: Join,
    asked: dict[str, Any],
    *,
    label_column: str | Sequence[str] | None,
    site: str | None,
    split_column: str | None,
    places: Places | None,
    uncertain: str | None = None,
) -> tuple[Rows, dict[str, Any]]:
    """The cells about each scan, and the options with the columns that they turned out to mean.

    Args:
        table: the labels.
        joined: which rows are about which scan.
        asked: the options so far.
        label_column: heading of the labels, or None; several headings (a list, or separated by commas) of findings.
        site: heading of the sites, ``=NAME``, or None.
        split_column: heading of the splits, or None.
        places: the centres, where cases are places; a row is then a case of its own.
        uncertain: what uncertain findings are taken as: ``unknown`` (where None), ``absent`` or ``present``.

    Raises:
        MedloraError: a column is not there or not clear, a mark of a finding is none, or rows about one case disagree,
            or seem to be about one by a number that was shortened.
    """
    keys = headings.key_columns(table)
    names = {heading for columns in headings.all_key_columns(table).values() for heading in columns}
    columns: dict[str, str] = {}
    if split_column:
        columns["split"] = table.column(split_column, "--split-column")
    if site is None:
        found = headings.site_column(table)
        if found:
            columns["site"] = found
    elif not site.startswith("="):
        columns["site"] = table.column(site, "--site")
    several = list(keys.values()).count(keys.get("patient", "")) > 1  # a name that may mean anything
    if joined.patient and (asked.get("patient_column") or not several or headings.names_folders(table, joined.patient)):
        columns["patient"] = joined.patient
    findings = marks.finding_columns(table, label_column)
    if uncertain is not None and findings is None:
        raise MedloraError("--uncertain is for findings, and there is one column of labels", "leave it out")
    if findings is not None:
        table = marks.with_marks(table, findings)
    elif isinstance(label_column, str) and label_column:
        columns["label"] = table.column(label_column, "--label-column")
    else:
        taken = {*names, joined.column, *joined.told_by, *columns.values()} | {*(places.columns if places else ())}
        columns["label"] = headings.label_column(table, taken)
    if split_column:
        _check_splits(table, columns["split"])
    rows = Rows(findings=findings or [], uncertain=marks.read_rule(uncertain))
    told = findings or [columns["label"]]
    for scan_id, numbers in sorted(joined.scans.items()):
        for what, cells in (("site", rows.site), ("patient", rows.patient)):
            if what in columns and (cell := _one_cell(table, numbers, columns[what])):
                cells[scan_id] = cell
    if places is not None:
        rows.cases = _cases_of_rows(table, joined, columns, places, rows)
    else:
        _say_repeated_rows(table, joined, told)
        for scan_id, numbers in sorted(joined.scans.items()):
            _labels_agree(table, joined, numbers, told)
            label = [_one_cell(table, numbers, column) for column in told]
            if _tells(rows, label):
                split = _one_cell(table, numbers, columns["split"]) if split_column else ""
                rows.cases.append(_case(rows, scan_id, label, split, None))
            elif findings:
                rows.unknown[scan_id] = _nothing_known(numbers[0], label)
    if findings is None:
        _are_classes(table, columns["label"], rows)
        if doubtful := may_be_missing(case.label for case in rows.cases):
            joined.notes.append(
                f"the column {columns['label']!r} holds {' and '.join(map(repr, doubtful))}, taken as "
                f"{'classes' if len(doubtful) > 1 else 'a class'}; where it means that nothing is known, empty the cell"
            )
    if "site" in columns:
        _are_sites(table, columns["site"], rows, names)
    if site and site.startswith("="):
        rows.site = dict.fromkeys(joined.scans, site[1:])
    named: dict[str, Any] = {f"{what}_column": columns.get(what) for what in ("label", "site", "patient", "split")}
    if findings is not None:
        named["label_column"] = findings
    return rows, {**asked, "key": joined.key, "key_column": joined.column, **named}


def _tells(rows: Rows, cells: Sequence[str]) -> bool:
    """Whether there is a label, or a finding that is known."""
    if not rows.findings:
        return not is_missing(cells[0])
    known = marks.resolved(dict(zip(rows.findings, cells, strict=True)), rows.uncertain)
    return any(value is not None for value in known.values())


def _case(rows: Rows, scan_id: str, cells: Sequence[str], split: str, place: Place | None) -> Case:
    found = dict(zip(rows.findings, cells, strict=True)) if rows.findings else {}
    return Case(scan_id, "" if rows.findings else cells[0], split_name(split) or "", place, found)


def _nothing_known(row: int, cells: Sequence[str]) -> str:
    uncertain = sum(cell == marks.UNCERTAIN for cell in cells)
    return f"row {row} of the table: no finding is known" + (f", {uncertain} uncertain" if uncertain else "")


def _are_classes(table: LabelTable, column: str, rows: Rows) -> None:
    """Refuse a column of names, numbers or remarks before one of its values is shown anywhere."""
    classes, n = len({case.label for case in rows.cases}), len(rows.cases)
    if classes > 2 and (classes == n or classes > max(5, n / 3) or (classes > 20 and classes > n / 4)):
        raise MedloraError(
            f"{table.path.name}: the column {column!r} holds {classes} different values for {n} cases, "
            "so they cannot be classes",
            "name the column of the labels with --label-column",
        )


def _are_sites(table: LabelTable, column: str, rows: Rows, names: Set[str]) -> None:
    """Refuse a column of names or numbers before one of its values gets into the cohort as a site."""
    sites, n = len(set(rows.site.values())), len(rows.site)
    personal = column in names or headings.is_personal(column)
    if personal or (sites > 2 and (sites == n or sites > max(20, n / 2))):
        raise MedloraError(
            f"{table.path.name}: the column {column!r} holds {sites} different values for {n} scans, so they cannot be "
            "sites",
            "name the column of the sites with --site, or give one for all: --site =NAME",
        )


def _cases_of_rows(table: LabelTable, joined: Join, columns: dict[str, str], places: Places, rows: Rows) -> list[Case]:
    """A case for each labelled row of each scan, in the order of their centres, so that the order of rows does not
    matter."""
    cases = []
    for scan_id, numbers in sorted(joined.scans.items()):
        seen: dict[tuple[float, ...], int] = {}
        for row in numbers:
            cells = [table.cell(row, column) for column in rows.findings or [columns["label"]]]
            if not _tells(rows, cells):
                continue
            place = places.of_row.get(row)
            if place is None:
                raise MedloraError(
                    f"{table.path.name} row {row} has a label but no centre",
                    "give the centre, or remove the row",
                )
            if place.centre in seen:
                raise MedloraError(
                    f"{table.path.name}: rows {seen[place.centre]} and {row} give the same centre in the same scan",
                    "keep one of these rows",
                )
            seen[place.centre] = row
            split = table.cell(row, columns["split"]) if "split" in columns else ""
            cases.append(_case(rows, scan_id, cells, split, place))
    return sorted(cases, key=lambda case: (case.scan_id, case.place.centre if case.place else ()))


def _say_repeated_rows(table: LabelTable, joined: Join, told: Sequence[str]) -> None:
    """Say which rows are about one case and agree, as where each box of an image has a row; those that seem so by a
    shortened number are refused."""
    if joined.key == "patient":
        return  # a row per visit is usual
    cut = shortened(table.frame[joined.column])
    alike = []
    for numbers in joined.groups:
        labels = {tuple(table.cell(row, column) for column in told) for row in numbers}
        if len(labels) == 1:  # rows that disagree are found later
            if table.cell(numbers[0], joined.column) in cut:
                raise MedloraError(
                    f"{table.path.name}: rows {_list(numbers)} are about the same case (column {joined.column!r}), or "
                    f"seem so: they hold {SHORTENED}",
                    "export it again",
                )
            alike.append(numbers)
    if alike:
        joined.notes.append(
            f"{len(alike)} value{' of' if len(alike) == 1 else 's of'} the column {joined.column!r} "
            f"{'is' if len(alike) == 1 else 'are'} in several rows, which agree (e.g. rows {_list(alike[0])}); each "
            "counts once"
        )


def _labels_agree(table: LabelTable, joined: Join, numbers: Sequence[int], told: Sequence[str]) -> None:
    """Refuse rows about one patient or study that say different things, one of them nothing, of its scans; and rows
    about the slices of one scan that differ."""
    if not (joined.whole_study or joined.folder_rows.intersection(numbers)):
        several = len({table.cell(row, joined.column) for row in numbers}) > 1
        if len(numbers) > 2 or (several and joined.key == "sop"):
            for column in told:
                _not_of_slices(table, numbers, column)
        return
    of_one = {"patient": "patient", "file": "folder"}.get(joined.key, "study")
    for column in told:
        cells = {row: "" if is_missing(cell := table.cell(row, column)) else cell for row in numbers}
        first, *others = cells
        other = next((row for row in others if cells[row] != cells[first]), None)
        if other is not None:
            what = "two labels" if cells[first] and cells[other] else "a label and none"
            raise MedloraError(
                f"{table.path.name}: rows {first} and {other} give one {of_one} {what} (column {column!r}), and rows "
                f"are joined by {NAMES[joined.key]}, so it is not known which scan has which"
                + "".join(f"; {note}" for note in joined.not_telling),
                "add a column that tells the scans apart (file, series_uid, study_uid, study_date, laterality), or "
                "correct one of the rows, or remove it" + (f"; {_ONE_EACH}" if len(numbers) > 2 else ""),
            )


def _not_of_slices(table: LabelTable, numbers: Sequence[int], column: str) -> None:
    if len({cell for row in numbers if not is_missing(cell := table.cell(row, column))}) > 1:
        raise MedloraError(
            f"{table.path.name}: rows {_list(numbers)} are about the same scan, but their {column!r} differs; a "
            "label is of a whole scan, not of one slice or region",
            _ONE_EACH,
        )


def _one_cell(table: LabelTable, numbers: Sequence[int], column: str) -> str:
    """The cell that the rows about one scan share; "" where all are missing."""
    cells = {row: cell for row in numbers if not is_missing(cell := table.cell(row, column))}
    if len(set(cells.values())) <= 1:
        return next(iter(cells.values()), "")
    first, *others = cells
    other = next(row for row in others if cells[row] != cells[first])
    raise MedloraError(
        f"{table.path.name}: rows {first} and {other} are about the same scan, but their {column!r} differs",
        "correct one of the rows, or remove it",
    )


def _check_splits(table: LabelTable, column: str) -> None:
    for row, cell in table.frame[column].items():
        if not is_missing(cell) and split_name(cell) is None:
            raise MedloraError(
                f"{table.path.name} row {row}: what the column {column!r} holds is not the name of a split",
                "use train, tune (or val, validation) and test",
            )


def _list(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return f"{shown} and {len(numbers) - 5} more" if len(numbers) > 5 else shown
