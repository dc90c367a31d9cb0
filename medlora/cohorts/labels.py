"""A table of labels, and how its headings and cells are understood."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass

from medlora.errors import MedloraError
from medlora.tables import Table, read_table

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null", "#value!", "#ref!"})
"""Cells that mean "no value" (compared in lower case): what spreadsheets, pandas, R and SQL write for it."""


@dataclass(frozen=True)
class LabelTable(Table):
    """A table of labels."""

    def cell(self, row: int, column: str) -> str:
        """The text of one cell."""
        return str(self.frame.at[row, column])

    def column(self, name: str, option: str) -> str:
        """The heading that ``name`` means: exactly, or else without regard to case and punctuation.

        Raises:
            MedloraError: no heading, or more than one, is meant by ``name``; ``option`` names who asked.
        """
        if name in self.frame.columns:
            return name
        alike = [heading for heading in self.frame.columns if plain(heading) == plain(name)]
        if len(alike) == 1:
            return alike[0]
        raise MedloraError(
            f"{self.path.name} has {'several columns like' if alike else 'no column'} {name!r} ({option})",
            f"its columns are: {', '.join(map(repr, self.frame.columns))}",
        )


def plain(heading: str) -> str:
    """``heading`` in lower case, letters and digits only: ``"Patient ID"`` and ``patient_id`` are the same."""
    text = unicodedata.normalize("NFKC", heading).casefold()
    return "".join(character for character in text if character.isalnum())


def is_missing(cell: str) -> bool:
    """Whether a cell stands for "no value"."""
    return cell.casefold() in MISSING


def read_labels(path: str | os.PathLike[str]) -> LabelTable:
    """Read a table of labels; see `read_table`."""
    table = read_table(path, "labels")
    return LabelTable(table.path, table.frame, table.encoding, table.delimiter)
