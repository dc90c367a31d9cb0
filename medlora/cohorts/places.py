"""Cases that are places: the centres of nodules, in a coordinate system that has been declared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from medlora.cohorts.labels import LabelTable, is_missing, plain
from medlora.errors import MedloraError

SYSTEMS = ("lps", "ras", "voxel")
"""``lps``: millimetres towards the patient's left, posterior, head, as DICOM has them (PS3.3 C.7.6.2.1.1) and ITK;
``ras``: towards right, anterior, head, as NIfTI; ``voxel``: indices into ``Scan.array``, counted from 0."""

LUNA16 = ("coordx", "coordy", "coordz")
"""Headings of the LUNA16 challenge (and LNDb, and what follows them); the coordinates are LPS."""
_HEADINGS = (LUNA16, ("x", "y", "z"), ("xmm", "ymm", "zmm"), ("centerx", "centery", "centerz"))
_DECLARED = {"lps": ("xlps", "ylps", "zlps"), "ras": ("xras", "yras", "zras")}
_GEOMETRY = re.compile("spac|size|dim|shape|resol|origin|orient|direct|extent|fov|thick", re.IGNORECASE)
_DIAMETERS = ("diametermm", "diameter")


@dataclass(frozen=True)
class Place:
    """A centre as the table gives it.

    Attributes:
        row: of the table, as a spreadsheet numbers it.
        centre: in the declared system.
        diameter: in millimetres; NaN where not given.
    """

    row: int
    centre: tuple[float, float, float]
    diameter: float


@dataclass(frozen=True)
class Places:
    """The centres of a table.

    Attributes:
        system: one of `SYSTEMS`.
        columns: the headings that hold them, and the diameter where there is one.
        of_row: row → place.
        items: see `LabelTable`.
    """

    system: str
    columns: tuple[str, ...]
    of_row: Mapping[int, Place]
    items: Mapping[int, str] = field(default_factory=dict)

    def name(self, row: int) -> str:
        """How messages call a row."""
        return f"row {row} of the table" + (f" ({self.items[row]})" if row in self.items else "")


def read_places(table: LabelTable, coordinates: str | None) -> Places | None:
    """The centres that a table holds, or None where it holds none.

    Args:
        table: the labels.
        coordinates: the coordinate system; None where only a known format's is taken.

    Raises:
        MedloraError: there are centres but their system is not declared, or the reverse; or a cell is no number.
    """
    if coordinates is not None and coordinates.casefold() not in SYSTEMS:
        raise MedloraError(f"--coordinates {coordinates!r} is not known", f"use one of {', '.join(SYSTEMS)}")
    if None not in (coordinates, table.system) and str(coordinates).casefold() != table.system:
        raise MedloraError(
            f"--coordinates {coordinates}: {table.path} was read as {table.format}, whose places are {table.system}",
            "leave --coordinates out: the format says it",
        )
    headings = {plain(heading): heading for heading in table.frame.columns}
    declared = next((system for system, names in _DECLARED.items() if all(name in headings for name in names)), None)
    names = next((names for names in _HEADINGS if all(name in headings for name in names)), None)
    if names is None and declared is not None:
        names = _DECLARED[declared]
        if coordinates is not None and coordinates.casefold() != declared:
            raise MedloraError(
                f"--coordinates {coordinates}: the headings of {table.path.name} "
                f"({', '.join(headings[name] for name in names)}) say {declared}",
                "leave --coordinates out, or correct the headings",
            )
        coordinates = declared
    coordinates = coordinates or table.system
    if names is None:
        if coordinates is not None:
            raise MedloraError(
                f"--coordinates {coordinates}: {table.path.name} has no columns x, y and z",
                "name the columns of the centres x, y and z (or coordX, coordY and coordZ)",
            )
        return None
    if coordinates is None and names != LUNA16:
        raise MedloraError(
            f"{table.path.name} has the columns {', '.join(headings[name] for name in names)}, but nothing says in "
            "which coordinate system; a wrong guess would mirror each centre to the other side",
            "declare it: --coordinates lps (DICOM, ITK, LUNA16), ras (NIfTI) or voxel (indices, from 0)",
        )
    columns = [headings[name] for name in names]
    diameter = next((headings[name] for name in _DIAMETERS if name in headings), None)
    found = {}
    for row in table.frame.index:
        cells = [table.cell(row, column) for column in columns]
        if all(is_missing(cell) for cell in cells):
            continue
        x, y, z = (_number(table, row, column) for column in columns)
        size = float("nan")
        if diameter is not None and not is_missing(table.cell(row, diameter)):
            size = _number(table, row, diameter)
        found[row] = Place(row, (x, y, z), size)
    used = (*columns, diameter) if diameter is not None else tuple(columns)
    return Places((coordinates or "lps").casefold(), used, found, table.items)


def unread_centres(table: LabelTable) -> list[str]:
    """Three headings that differ by x, y and z alone, hold numbers, and are none that `read_places` knows."""
    headings = {plain(heading): heading for heading in table.frame.columns}
    known = (*_HEADINGS, *_DECLARED.values())
    if any(all(name in headings for name in names) for names in known):
        return []
    for name in headings:
        for at in (at for at, letter in enumerate(name) if letter == "x"):
            found = [headings.get(f"{name[:at]}{axis}{name[at + 1 :]}") for axis in "xyz"]
            columns = [heading for heading in found if heading is not None]
            if len(columns) == 3 and not _GEOMETRY.search(name) and all(_holds_numbers(table, c) for c in columns):
                return columns
    return []


def _holds_numbers(table: LabelTable, column: str) -> bool:
    cells = [cell for cell in table.frame[column] if not is_missing(cell)]
    return bool(cells) and all(re.fullmatch(r"[+-]?\d+([.,]\d+)?(E[+-]?\d+)?", cell, re.IGNORECASE) for cell in cells)


def _number(table: LabelTable, row: int, column: str) -> float:
    cell = table.cell(row, column)
    try:
        value = float(cell.replace(",", ".") if table.delimiter != "," else cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise MedloraError(
            f"{table.path.name} row {row}: the {column!r} of a centre is missing or not a number",
            "correct the cell, or clear all coordinates of the row",
        )
    return value


def located(centre: Iterable[float], system: str, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A centre in RAS millimetres and as voxel indices.

    Args:
        centre: in ``system``.
        system: one of `SYSTEMS`.
        affine: 4 × 4, of the scan, from voxel indices to RAS millimetres.
    """
    point = np.asarray(list(centre), dtype=float)
    if system == "voxel":
        return affine[:3, :3] @ point + affine[:3, 3], point
    ras = point * (-1, -1, 1) if system == "lps" else point
    return ras, np.linalg.solve(affine[:3, :3], ras - affine[:3, 3])


def is_inside(voxel: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether voxel indices lie in the array: up to half a voxel beyond the centre of its first and last."""
    return bool(((voxel >= -0.5) & (voxel <= np.asarray(shape[:3]) - 0.5)).all())
