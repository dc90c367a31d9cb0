"""Which other column of a table may tell the scans, where those that are known by their headings tell none."""

from __future__ import annotations

from collections.abc import Mapping, Set

from medlora.cohorts.joined import NAMES
from medlora.cohorts.labels import LabelTable
from medlora.cohorts.paths import without_extension


def suggestion(table: LabelTable, known: Mapping[str, Set[str]], tried: Set[tuple[str, str]]) -> str:
    """A column whose cells the archive knows, as the end of what an error advises; empty where there is none.

    Args:
        table: the labels.
        known: kind of key → the archive's identifiers, or paths.
        tried: kinds and headings that led to nothing.
    """
    parts = {part for path in known["file"] for part in without_extension(path).split("/")}
    names = {**known, "file": known["file"] | parts}
    met = {
        (kind, column): len(names[kind] & set(table.frame[column]))
        for kind in names
        for column in table.frame.columns
        if (kind, column) not in tried
    }
    kind, column = max(met, key=lambda pair: met[pair], default=("", ""))
    if met.get((kind, column), 0) < max(3, len(table.frame) / 4):  # as of classes, which folders are named by, too
        return ""
    what = "the name of a file or folder" if kind == "file" else f"a {NAMES[kind]}"
    return f"; what the column {column!r} holds is {what} of the archive: --key {kind}={column}"
