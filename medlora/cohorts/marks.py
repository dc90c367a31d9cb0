"""Columns of findings in a table of labels: 1 present, 0 absent, −1 uncertain, empty unknown, as CheXpert has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from medlora.cohorts.labelling import NOTHING, SEPARATOR
from medlora.cohorts.labels import LabelTable, is_missing
from medlora.errors import MedloraError

PRESENT, ABSENT, UNCERTAIN, UNKNOWN = "1", "0", "-1", ""
TAKEN_AS = {"unknown": UNKNOWN, "absent": ABSENT, "present": PRESENT}
"""What an uncertain finding may be taken as: U-Ignore, U-Zeroes and U-Ones of Irvin et al. 2019 (arXiv 1901.07031)."""
USUAL = "unknown"
_NUMBERS = {1.0: PRESENT, 0.0: ABSENT, -1.0: UNCERTAIN}
_WORDS = {"true": PRESENT, "false": ABSENT}  # as pandas writes what it calls dummies


def finding_columns(table: LabelTable, asked: str | Sequence[str] | None) -> list[str] | None:
    """The columns of findings that are asked for, or None where one column of classes is.

    Args:
        table: the labels.
        asked: a heading, headings separated by commas, or a list of headings.

    Raises:
        MedloraError: a heading is not there, is named twice, or cannot be the name of a finding.
    """
    if asked is None or (isinstance(asked, str) and ("," not in asked or asked in table.frame.columns)):
        return None
    names = [name.strip() for name in asked.split(",")] if isinstance(asked, str) else list(asked)
    columns = [table.column(name, "--label-column") for name in names if name]
    twice = [name for name, n in Counter(columns).items() if n > 1]
    if twice or not columns:
        raise MedloraError(
            f"--label-column names {repr(twice[0]) + ' twice' if twice else 'no column'}", "name each finding once"
        )
    for name in columns:
        if SEPARATOR in name or name == NOTHING:
            raise MedloraError(
                f"{table.path.name}: {name!r} cannot be the name of a finding: answers join findings by {SEPARATOR!r}, "
                f"and {NOTHING!r} says that there is none",
                "rename the column",
            )
    return columns


def read_rule(uncertain: str | None) -> str:
    """What uncertain findings are taken as, by the word of `TAKEN_AS`.

    Raises:
        MedloraError: it is no such word.
    """
    word = USUAL if uncertain is None else uncertain
    if word not in TAKEN_AS:
        raise MedloraError(f"--uncertain {word!r} is no choice", f"choose one of: {', '.join(TAKEN_AS)}")
    return word


def with_marks(table: LabelTable, columns: Sequence[str]) -> LabelTable:
    """``table`` with each cell of ``columns`` as one of the four marks.

    Raises:
        MedloraError: a cell is none of them; its row and column are named.
    """
    frame = table.frame.copy()
    for column in columns:
        frame[column] = [_mark(table, int(row), column, str(cell)) for row, cell in frame[column].items()]
    return replace(table, frame=frame)


def _mark(table: LabelTable, row: int, column: str, cell: str) -> str:
    if is_missing(cell):
        return UNKNOWN
    if cell.casefold() in _WORDS:
        return _WORDS[cell.casefold()]
    try:
        number = float(cell.replace("−", "-").replace(",", "."))
    except ValueError:
        number = None
    if number in _NUMBERS:
        return _NUMBERS[number]
    said = "text" if number is None else repr(cell)  # text in the wrong column may be a name, and is not repeated
    raise MedloraError(
        f"{table.path.name} row {row}, column {column!r}: {said} is no mark of a finding",
        "write 1 (present), 0 (absent), -1 (uncertain) or nothing (unknown); a column of classes is named alone",
    )


def resolved(marks: Mapping[str, str], rule: str) -> dict[str, int | None]:
    """Finding → 1 present, 0 absent, None unknown, with uncertain ones as ``rule`` says."""
    taken = {name: TAKEN_AS[rule] if mark == UNCERTAIN else mark for name, mark in marks.items()}
    return {name: int(mark) if mark else None for name, mark in taken.items()}


def uncertain_in(cases: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """Finding → how often it is uncertain; those that never are, too."""
    counts: Counter[str] = Counter()
    for marks in cases:
        counts.update({name: int(mark == UNCERTAIN) for name, mark in marks.items()})
    return dict(counts)


def sentence(info: Mapping[str, object] | None) -> str | None:
    """What was made of uncertain findings, where there were any; ``info`` as ``cohort.json`` has it."""
    counts = info.get("uncertain") if info else None
    some = [f"{name} {n}" for name, n in counts.items() if n] if isinstance(counts, Mapping) else []
    if not info or not some:
        return None
    rule = info["uncertain_as"]
    masked = ", so that nothing is trained or judged on them" if rule == "unknown" else ""
    return f"uncertain findings were taken as {rule}{masked}: {', '.join(some)}"
