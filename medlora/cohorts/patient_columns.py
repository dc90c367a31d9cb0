"""Which columns of a table say whom a row is about: for the join, and to keep each patient in one split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from medlora.cohorts.headings import all_key_columns
from medlora.cohorts.identifiers import match_identifiers
from medlora.cohorts.labels import LabelTable, is_missing

_FEWEST, _MOST = 10, 50  # people, and rows of one of them, by which a second column tells people and not sites


@dataclass(frozen=True)
class PatientColumns:
    """Headings of a table's patients.

    Attributes:
        named: that is held against the Patient IDs of the archive; None where there is none.
        people: of the splits: where ``named`` numbers images or visits of people whom another column names, that one.
        unused: others that seem to name patients.
        asked: whether the user said which.
    """

    named: str | None = None
    people: str | None = None
    unused: tuple[str, ...] = ()
    asked: bool = False

    def notes(self) -> list[str]:
        """What is to be said of them."""
        others = [column for column in (self.named, *self.unused) if column not in (None, self.people)]
        if not others or self.asked:
            return []
        return [
            f"of the columns of patients {self.people!r} tells who is in one split, and not "
            f"{' or '.join(map(repr, others))}; --patient-column takes another"
        ]


def patient_columns(
    table: LabelTable, known: Iterable[str], asked: str | None, key: str | None = None
) -> PatientColumns:
    """The columns of patients.

    Args:
        table: the labels.
        known: the Patient IDs of the archive.
        asked: the heading that the user gives.
        key: that by which rows were joined by patient, if they were.

    Raises:
        MedloraError: there is no column ``asked``.
    """
    columns = all_key_columns(table).get("patient", [])
    cells = {column: [cell for cell in table.frame[column] if not is_missing(cell)] for column in columns}
    named = key
    if named is None and len(columns) > 1:
        known = list(known)
        named = max(columns, key=lambda column: len(match_identifiers(cells[column], known).to))
    named = named or next(iter(columns), None)
    if asked is not None:
        asked = table.column(asked, "--patient-column")
        return PatientColumns(named, asked, asked=True)  # its numbers need not be those of the archive
    if named is None:
        return PatientColumns()
    people = named
    for column in columns:
        if _are_people_of(table, column, people):
            people = column
    unused = [column for column in columns if column not in (named, people) and not _nested(table, people, column)]
    return PatientColumns(named, people, tuple(unused))


def _are_people_of(table: LabelTable, column: str, images: str) -> bool:
    """Whether ``column`` tells the people of what ``images`` numbers, in every row."""
    told = [is_missing(other) for one, other in zip(table.frame[images], table.frame[column], strict=True) if one]
    people = Counter(cell for cell in table.frame[column] if not is_missing(cell))
    enough = len(people) >= _FEWEST and max(people.values()) <= _MOST
    return enough and not any(told) and _nested(table, images, column) and len(people) < _count(table.frame[images])


def _nested(table: LabelTable, fine: str, coarse: str) -> bool:
    """Whether the rows of each value of ``fine`` have one value of ``coarse``."""
    pairs = {
        (one, other)
        for one, other in zip(table.frame[fine], table.frame[coarse], strict=True)
        if not is_missing(one) and not is_missing(other)
    }
    return bool(pairs) and len(pairs) == len({one for one, _ in pairs})


def _count(cells: Collection[str]) -> int:
    return len({cell for cell in cells if not is_missing(cell)})
