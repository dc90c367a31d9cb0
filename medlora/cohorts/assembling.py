"""The table of a cohort, from what the labels, the patients, the headers and the pixels say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from medlora.cohorts import folder as cohort_folder
from medlora.cohorts import marks
from medlora.cohorts.labelling import FINDING
from medlora.cohorts.labels import LabelTable
from medlora.cohorts.patients import Patients
from medlora.cohorts.pixels import Pixels
from medlora.cohorts.rows import Case, Rows

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

MOST_PICTURES = 500


def cases_of(scans: Sequence[ScanFiles], rows: Rows) -> list[Case]:
    """The labelled cases in these scans."""
    there = {scan.scan_id for scan in scans}
    return [case for case in rows.cases if case.scan_id in there]


def table_of(
    scans: list[ScanFiles], rows: Rows, patients: Patients, pixels: dict[str, Pixels], table: LabelTable | None
) -> pd.DataFrame:
    """The cohort's table, its patients not yet hashed.

    Args:
        scans: of the cohort.
        rows: their cases; without any, each scan is a case without a label.
        patients: of the scans.
        pixels: scan_id → what was read from them.
        table: the labels.
    """
    by_id = {scan.scan_id: scan for scan in scans}
    cases = cases_of(scans, rows) or [Case(scan_id, "") for scan_id in by_id]
    number: Counter[str] = Counter()
    lines = []
    for case in cases:
        line: dict[str, Any] = {"case_id": case.scan_id, "scan_id": case.scan_id, "patient": patients.key[case.scan_id]}
        line |= {"site": rows.site.get(case.scan_id, ""), "label": case.label, "split": case.split}
        line |= {FINDING + name: value for name, value in marks.resolved(case.marks, rows.uncertain).items()}
        if case.place is not None:
            centre = pixels[case.scan_id].places[number[case.scan_id]].centre
            number[case.scan_id] += 1
            line["case_id"] = f"{case.scan_id}:{number[case.scan_id]}"
            line |= dict(zip(cohort_folder.PLACE, (*centre, case.place.diameter), strict=True))
            if table is not None:
                line |= {cohort_folder.KEPT + name: table.cell(case.place.row, name) for name in table.kept}
        lines.append(line)
    frame = pd.DataFrame(lines).astype({FINDING + name: "Int64" for name in rows.findings})
    if "diameter" in frame and frame["diameter"].isna().all():
        frame = frame.drop(columns="diameter")
    header = pd.DataFrame(
        [{name: _cell(value) for name, value in by_id[case.scan_id].header.items()} for case in cases]
    )
    for position, name in enumerate(("Columns", "Rows", "Slices")):
        header[name] = [pixels[case.scan_id].shape[position] for case in cases]
    header = header.dropna(axis=1, how="all")
    return pd.concat([frame, header[[name for name in header.columns if name not in frame.columns]]], axis=1)


def pictures(rows: Rows, pixels: dict[str, Pixels]) -> dict[str, bytes]:
    """case_id → marked slice, of the first places."""
    number: Counter[str] = Counter()
    found: dict[str, bytes] = {}
    for case in rows.cases:
        if case.place is not None and case.scan_id in pixels:
            number[case.scan_id] += 1
            image = pixels[case.scan_id].places[number[case.scan_id] - 1].picture
            if image and len(found) < MOST_PICTURES:
                found[f"{case.scan_id}:{number[case.scan_id]}"] = image
    return found


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return "\\".join(str(item) for item in value)  # as DICOM writes several values
    return value
