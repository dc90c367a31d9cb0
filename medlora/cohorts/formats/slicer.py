"""Markups of 3D Slicer: .mrk.json, and .fcsv of earlier versions.

A markups file says in which coordinate system it is written (``coordinateSystem``: LPS or RAS; version 5 writes LPS)
and gives millimetres. It does not say which scan it was drawn on: its name does, which is the Series Instance UID, the
Study Instance UID, the accession number, the Patient ID or the path of the scan in the archive, whichever the archive
knows: ``1.2.840….mrk.json``, ``PAT001.mrk.json``.

A control point is a place; its label without the number that Slicer adds ("malignant-2") is the class. Where a file has
the same name twice, the numbers are none that Slicer added, and belong to the class. A line is a place too, its middle,
with its length as diameter; an ROI is, with its centre and its longest side. Sources: the schema
Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json of Slicer's source
and the page "Markups" of Slicer's user guide.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medlora.cohorts.formats.made import Record, content, named, table
from medlora.cohorts.labels import LabelTable
from medlora.errors import MedloraError
from medlora.progress import say

_NUMBER = re.compile(r"-\d+$")
_ENDING = re.compile(r"(\.mrk)?\.json$|\.fcsv$", re.IGNORECASE)
_KEYS = ("series", "study", "accession", "patient", "file")
_SYSTEMS = {"LPS": "lps", "1": "lps", "RAS": "ras", "0": "ras"}
_TO_LPS = {"lps": np.ones(3), "ras": np.array([-1.0, -1.0, 1.0])}


def read(path: Path, files: Sequence[Path]) -> LabelTable:
    """The table of some markups files, in LPS millimetres.

    Raises:
        MedloraError: a file does not say its coordinate system, is damaged, or holds a markup that is no place.
    """
    records = []
    for file, name, item in named(path, files):
        key = _ENDING.sub("", file.relative_to(path).as_posix() if file != path else file.name)
        data = content(file, name).decode("utf-8-sig", errors="replace")
        for record in _of_json(data, key, name) if data.lstrip().startswith("{") else _of_fcsv(data, key, name):
            record.item = item + record.item
            records.append(record)
    _without_numbers(records)
    return table(path, files, records, format="3D Slicer markups", system="lps", keys=_KEYS)


def _of_json(text: str, key: str, name: str) -> Iterator[Record]:
    try:
        markups = json.loads(text)["markups"]
        for number, markup in enumerate(markups, 1):
            yield from _of_markup(markup, key, f"{name} markup {number}", f"markup {number}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, MedloraError):
            raise
        raise MedloraError(f"{name} does not follow the schema of markups ({error!r})", "save it again") from None


def _of_markup(markup: dict[str, Any], key: str, name: str, item: str) -> Iterator[Record]:
    unit = markup.get("coordinateUnits", "mm")
    if "mm" not in ([unit] if isinstance(unit, str) else unit):
        raise MedloraError(f"{name}: its unit is not mm", "save it in millimetres")
    signs = _TO_LPS[_system(markup.get("coordinateSystem"), name)]
    if markup["type"] == "ROI":
        centre = signs * _three(markup["center"])
        label = str(markup.get("name", "")) or _first_label(markup)
        yield Record(key, label, centre, float(_three(markup["size"]).max()), item)
        return
    points = [point for point in markup["controlPoints"] if point.get("positionStatus", "defined") == "defined"]
    if markup["type"] == "Line":
        ends = [signs * _three(point["position"]) for point in points]
        labels = {str(point.get("label", "")).strip() for point in points}
        if len(labels) > 1:  # the two ends have numbers of Slicer's
            labels = {_NUMBER.sub("", label) for label in labels}
        if len(ends) != 2 or len(labels) != 1:
            raise MedloraError(f"{name}: a line needs two points with one name")
        yield Record(key, labels.pop(), (ends[0] + ends[1]) / 2, float(np.linalg.norm(ends[0] - ends[1])), item)
    elif markup["type"] == "Fiducial":
        for number, point in enumerate(points, 1):
            more = {"description": str(point.get("description", ""))}
            label = str(point.get("label", ""))
            yield Record(key, label, signs * _three(point["position"]), item=f"{item}, point {number}", more=more)
    else:
        raise MedloraError(f"{name}: a markup of type {str(markup['type'])[:40]!r} is no place", "remove it")


def _of_fcsv(text: str, key: str, name: str) -> Iterator[Record]:
    """Points of an .fcsv: lines of comments with the coordinate system and the columns, then a line for each point."""
    said = dict(re.findall(r"^#\s*(CoordinateSystem|columns)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
    signs = _TO_LPS[_system(said.get("CoordinateSystem"), name)]
    columns = said.get("columns", "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID").split(",")
    for number, cells in enumerate(csv.reader(line for line in text.splitlines() if not line.startswith("#")), 1):
        point = dict(zip(columns, cells, strict=False))
        try:
            centre = signs * _three([float(point[axis]) for axis in "xyz"])
            label = point["label"]
        except (KeyError, ValueError):
            raise MedloraError(f"{name} point {number} cannot be read", "save the file again") from None
        more = {"description": point.get("desc", "")}
        yield Record(key, label, centre, item=f"point {number}", more=more)


def _system(said: object, name: str) -> str:
    if str(said).upper() not in _SYSTEMS:
        raise MedloraError(
            f"{name} does not say whether its coordinates are LPS or RAS; a wrong guess would mirror each point",
            "save it again with a recent version of 3D Slicer",
        )
    return _SYSTEMS[str(said).upper()]


def _three(values: Sequence[float]) -> np.ndarray:
    point = np.asarray(values, float)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise ValueError("a position is three finite numbers")
    return point


def _without_numbers(records: Sequence[Record]) -> None:
    """Take off the numbers that Slicer adds, which are each there once in a file."""
    for record in records:
        record.label = record.label.strip()
    numbered = Counter((record.key, record.label) for record in records if _NUMBER.search(record.label))
    if numbered and max(numbered.values()) == 1:
        for record in records:
            record.label = _NUMBER.sub("", record.label)
        say(f"{len(numbered)} names of places were read without the number at their end, which 3D Slicer adds")


def _first_label(markup: dict[str, Any]) -> str:
    return next((str(point.get("label", "")) for point in markup.get("controlPoints", [])), "")
