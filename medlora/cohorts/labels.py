"""A table of labels, and how its headings and cells are understood."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medlora.encodings import NAMES
from medlora.errors import MedloraError
from medlora.progress import say
from medlora.tables import Table, read_table

_ERRORS = frozenset({"#value!", "#ref!", "#div/0!", "#name?", "#num!", "#null!"})
MISSING = _ERRORS | {"", "na", "n/a", "n.a.", "n.a", "n. a.", "?", "#n/a", "nan", "<na>", "null", "."}
"""Cells that mean "no value", in lower case: what spreadsheets, pandas, R, SAS, SQL and people write for it."""
_PERHAPS_MISSING = frozenset({"-", "--", "–", "—", "unknown", "not available", "n/d", "n.d.", "unbekannt", "不明"})
"""Cells that may mean it, or a class; compared in the same way."""


@dataclass(frozen=True)
class LabelTable(Table):
    """A table of labels: a CSV file, or what `medlora.cohorts.formats` makes of annotations in another format.

    Attributes:
        format: what it was read as.
        system: coordinate system of its centres (see `medlora.cohorts.places.SYSTEMS`), where the format says it.
        modality: DICOM's Modality of the scans, where the format implies it; for files that do not say it themselves.
        keys: kind of key → heading, where the format says it; else headings are told by their names.
        items: row → what the row is in its file ("file 2: ROI 3"), for messages; never an identifier.
        reasons: row → why it gives no case, where the format has a rule that leaves it out.
        kept: headings that the cohort keeps, as ``label_HEADING``.
        files: what it was read from, where that is not ``path`` alone.
    """

    format: str = "CSV"
    system: str | None = None
    modality: str | None = None
    keys: Mapping[str, str] | None = None
    items: Mapping[int, str] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

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

    def name(self, row: int) -> str:
        """How messages call a row."""
        return f"row {row} of the table" + (f" ({self.items[row]})" if row in self.items else "")

    @property
    def digest(self) -> str:
        """SHA-256 over the content of the files it was read from, one after the other."""
        found = hashlib.sha256()
        for path in self.files or (self.path,):
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    found.update(chunk)
        return found.hexdigest()


def plain(heading: str) -> str:
    """``heading`` in lower case, letters and digits only: ``"Patient ID"`` and ``patient_id`` are the same."""
    text = unicodedata.normalize("NFKC", heading).casefold()
    return "".join(character for character in text if character.isalnum())


def is_missing(cell: str) -> bool:
    """Whether a cell stands for "no value"."""
    return cell.casefold() in MISSING


def may_be_missing(cells: Iterable[str]) -> list[str]:
    """Those that may stand for "no value", or for something: "-" does where there is "+", and "none" of diseases."""
    cells = set(cells)
    perhaps = {cell for cell in cells if cell == "None" or cell.casefold() in _PERHAPS_MISSING}
    return sorted(cell for cell in perhaps if "+" not in cells or cell.isalpha())


def read_labels(path: str | os.PathLike[str]) -> LabelTable:
    """Read a table of labels (see `read_table`), and say in which encoding, where only its text tells."""
    table = read_table(path, "labels")
    if table.encoding in NAMES:
        say(f"{table.path.name} was read as {NAMES[table.encoding]}; if its words look wrong, save it as CSV UTF-8")
    return LabelTable(table.path, table.frame, table.encoding, table.delimiter)
