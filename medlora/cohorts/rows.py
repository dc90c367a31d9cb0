"""What the table of labels says about each scan, once its rows are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medlora.cohorts import headings
from medlora.cohorts.joining import Join
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.cohorts.splits import split_name
from medlora.errors import MedloraError


@dataclass
class Rows:
    """What the table of labels says about each scan: scan_id → cell."""

    label: dict[str, str] = field(default_factory=dict)
    site: dict[str, str] = field(default_factory=dict)
    split: dict[str, str] = field(default_factory=dict)
    patient: dict[str, str] = field(default_factory=dict)


def read_rows(
    table: LabelTable,
    joined: Join,
    asked: dict[str, Any],
    *,
    label_column: str | None,
    site: str | None,
    split_column: str | None,
) -> tuple[Rows, dict[str, Any]]:
    """The cells about each scan, and the options with the columns that they turned out to mean.

    Args:
        table: the labels.
        joined: which rows are about which scan.
        asked: the options so far.
        label_column: heading of the labels, or None.
        site: heading of the sites, ``=NAME``, or None.
        split_column: heading of the splits, or None.

    Raises:
        MedloraError: a column is not there or not clear, or rows about one case are repeated or disagree.
    """
    keys = headings.key_columns(table)
    columns: dict[str, str] = {}
    if split_column:
        columns["split"] = table.column(split_column, "--split-column")
    if site is None:
        found = headings.site_column(table)
        if found:
            columns["site"] = found
    elif not site.startswith("="):
        columns["site"] = table.column(site, "--site")
    if "patient" in keys:
        columns["patient"] = keys["patient"]
    if label_column:
        columns["label"] = table.column(label_column, "--label-column")
    else:
        columns["label"] = headings.label_column(table, {*keys.values(), joined.column, *columns.values()})
    _no_repeated_rows(table, joined, columns["label"])
    rows = Rows()
    for what, column in columns.items():
        cells: dict[str, str] = getattr(rows, what)
        for scan_id, numbers in joined.scans.items():
            cell = _one_cell(table, joined, numbers, column, what)
            if cell:
                cells[scan_id] = cell
    if split_column:
        _check_splits(table, columns["split"])
        rows.split = {scan_id: split_name(cell) or "" for scan_id, cell in rows.split.items()}
    if site and site.startswith("="):
        rows.site = dict.fromkeys(joined.scans, site[1:])
    named = {f"{what}_column": columns.get(what) for what in ("label", "site", "patient", "split")}
    return rows, {**asked, "key": joined.key, "key_column": joined.column, **named}


def _no_repeated_rows(table: LabelTable, joined: Join, label: str) -> None:
    for numbers in joined.groups:
        if joined.key == "patient":
            continue  # a row per visit is usual; rows that disagree are found below
        labels = {table.frame.at[row, label] for row in numbers}
        if len(labels) == 1:
            raise MedloraError(
                f"{table.path.name}: rows {_list(numbers)} are about the same case (column {joined.column!r})",
                "keep one of these rows",
            )


def _one_cell(table: LabelTable, joined: Join, numbers: Sequence[int], column: str, what: str) -> str:
    """The cell that the rows about one scan share; "" where all are missing."""
    cells = {row: cell for row in numbers if not is_missing(cell := table.frame.at[row, column])}
    if len(set(cells.values())) <= 1:
        return next(iter(cells.values()), "")
    first, *others = cells
    other = next(row for row in others if cells[row] != cells[first])
    if joined.key == "patient" and what == "label":
        raise MedloraError(
            f"{table.path.name}: rows {first} and {other} give one patient two labels (column {column!r}), and rows "
            "are joined by patient, so it is not known which scan has which",
            "add a column that tells the scans apart (file, series_uid, study_uid or accession_number)",
        )
    raise MedloraError(
        f"{table.path.name}: rows {first} and {other} are about the same scan, but their {column!r} differs",
        "correct one of the rows, or remove it",
    )


def _check_splits(table: LabelTable, column: str) -> None:
    for row, cell in table.frame[column].items():
        if not is_missing(cell) and split_name(cell) is None:
            raise MedloraError(
                f"{table.path.name} row {row}: the split {cell!r} (column {column!r}) is not known",
                "use train, tune (or val, validation) and test",
            )


def _list(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return f"{shown} and {len(numbers) - 5} more" if len(numbers) > 5 else shown
