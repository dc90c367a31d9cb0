"""Which other column of a table may tell the scans, where those that are known by their headings tell none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from medlora.cohorts.headings import is_personal
from medlora.cohorts.identifiers import match_identifiers
from medlora.cohorts.joined import NAMES, key_option
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.cohorts.paths import ends_of, without_extension

_NUMBERS = ("accession", "patient")
"""Kinds of key that may be numbers, which spreadsheets change."""


def suggestion(table: LabelTable, known: Mapping[str, Set[str]], tried: Set[tuple[str, str]]) -> str:
    """A column whose cells the archive knows, as the end of what an error advises; empty where there is none.

    Args:
        table: the labels.
        known: kind of key → the archive's identifiers, or paths.
        tried: kinds and headings that led to nothing.
    """
    whole, ends = _as_rows_name_them(known["file"])
    met = {}
    for column in table.frame.columns:
        cells = {cell for cell in table.frame[column] if not is_missing(cell)}
        if is_personal(column) and all(map(str.isdecimal, cells)):
            continue  # ages, which people may be numbered by as well
        for kind in known:
            if (kind, column) in tried or not known[kind]:
                continue
            if kind == "file":
                met[kind, column] = sum(_is_named(cell, whole, ends) for cell in cells)
            elif kind in _NUMBERS and 2 * len(cells) > len(table.frame):  # grades have zeros lost by chance
                met[kind, column] = len(match_identifiers(cells, known[kind]).to)
            else:
                met[kind, column] = len(known[kind] & cells)
    kind, column = max(met, key=lambda pair: met[pair], default=("", ""))
    if met.get((kind, column), 0) < max(3, len(table.frame) / 4):  # as of classes, which folders are named by, too
        return ""
    what = "the name of a file or folder" if kind == "file" else f"a {NAMES[kind]}"
    return f"; what the column {column!r} holds is {what} of the archive: {key_option(kind, column)}"


def _as_rows_name_them(paths: Iterable[str]) -> tuple[set[str], set[str]]:
    """Files (with and without extension) and folders by their paths, and by the ends of these; in lower case."""
    whole = set()
    for path in map(str.casefold, paths):
        whole |= {path, without_extension(path)}
        while path := path.rpartition("/")[0]:
            whole.add(path)
    return whole, {end for path in whole for end in ends_of(path)}


def _is_named(cell: str, whole: Set[str], ends: Set[str]) -> bool:
    """Whether a path is the end of one of the archive, or ends in one, as the join takes it."""
    path = cell.casefold().replace("\\", "/").rstrip("/")
    return path in ends or any(end in whole for end in ends_of(path))
