"""How the cases of a cohort are labelled: one class each, or several findings, each present, absent or unknown."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd

FINDING = "y_"
"""Begins the names of the columns of findings in ``cohort.csv``: 1 present, 0 absent, empty unknown."""
SEPARATOR = "|"
"""Stands between the findings of a case where they are named in one cell."""
ALL = "all cases"
NOTHING = "none"
"""Stands there where a case has none."""
_WORDS = {"present": 1, "absent": 0}

Question = tuple[np.ndarray, list[str], list[str]]


class Labelling(Protocol):
    """What the columns of labels of a cohort's table say; `labelling` gives the one that fits a table.

    Attributes:
        names: the classes, or the findings.
        columns: of the table, that say it.
        counted: all that a case may count as.
        unit: what `counts` gives, in words; empty where it is cases.
    """

    names: list[str]
    columns: list[str]
    counted: list[str]
    unit: str

    def known(self) -> np.ndarray:
        """Which cases have a label, bool (N,)."""
        ...

    def strata(self) -> list[tuple[str, ...]]:
        """What each case counts as, where every split shall have its share."""
        ...

    def conflict(self, strata: list[tuple[str, ...]]) -> bool:
        """Whether cases of one image that count as these contradict each other."""
        ...

    def groups(self) -> list[tuple[str, pd.DataFrame]]:
        """The cases by all that they may count as, in tables of counts."""
        ...

    def beside(self) -> list[tuple[str, pd.DataFrame]]:
        """The cases that tables and pictures show side by side."""
        ...

    def counts(self) -> list[tuple[str, str]]:
        """How many cases there are of each name, and the name, for a line of text."""
        ...

    def texts(self) -> list[str]:
        """The label of each case in words."""
        ...

    def questions(self) -> list[Question]:
        """What the source of an image must not answer: the cases asked about, bool (N,), their classes, and which of
        these are told."""
        ...


class Classes:
    """One class for each case, in the column ``label``; empty where it has none.

    Args:
        table: of a cohort.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table, self.unit = table, ""
        self.columns = ["label"]
        self.names = self.counted = sorted({label for label in table["label"] if label})

    def known(self) -> np.ndarray:
        """See `Labelling`."""
        return (self.table["label"] != "").to_numpy()

    def strata(self) -> list[tuple[str, ...]]:
        """See `Labelling`."""
        return [(label,) for label in self.table["label"]]

    def conflict(self, strata: list[tuple[str, ...]]) -> bool:
        """See `Labelling`."""
        return len(set(strata) - {(), ("",)}) > 1

    def groups(self) -> list[tuple[str, pd.DataFrame]]:
        """See `Labelling`."""
        return [(str(label), part) for label, part in self.table.groupby("label")]

    def beside(self) -> list[tuple[str, pd.DataFrame]]:
        """See `Labelling`."""
        return self.groups()

    def counts(self) -> list[tuple[str, str]]:
        """See `Labelling`."""
        return [(str(len(part)), label) for label, part in self.groups()]

    def texts(self) -> list[str]:
        """See `Labelling`."""
        return list(self.table["label"])

    def questions(self) -> list[Question]:
        """See `Labelling`."""
        return [(np.ones(len(self.table), dtype=bool), list(self.table["label"]), sorted(set(self.table["label"])))]


class Findings:
    """Several findings for each case, a column ``y_FINDING`` for each: 1 present, 0 absent, missing unknown.

    Args:
        table: of a cohort.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table, self.unit = table, " (present/absent/unknown)"
        self.columns = [name for name in table.columns if is_finding(name)]
        self.names = [name.removeprefix(FINDING) for name in self.columns]
        self.counted = [f"{name} {word}" for name in self.names for word in _WORDS]

    def marks(self) -> np.ndarray:
        """1 present, 0 absent, NaN unknown; float64 (N, findings)."""
        return self.table[self.columns].to_numpy(dtype=np.float64, na_value=np.nan)

    def known(self) -> np.ndarray:
        """See `Labelling`: a finding at least is known."""
        return ~np.isnan(self.marks()).all(axis=1)

    def strata(self) -> list[tuple[str, ...]]:
        """See `Labelling`: every finding that is known, present and absent apart."""
        return [
            tuple(
                f"{name} {word}"
                for name, mark in zip(self.names, row, strict=True)
                for word, value in _WORDS.items()
                if mark == value
            )
            for row in self.marks()
        ]

    def conflict(self, strata: list[tuple[str, ...]]) -> bool:
        """See `Labelling`: a finding is present in one and absent in another."""
        seen = {name for stratum in strata for name in stratum}
        return any(all(f"{name} {word}" in seen for word in _WORDS) for name in self.names)

    def groups(self) -> list[tuple[str, pd.DataFrame]]:
        """See `Labelling`: a case is in one group of each finding."""
        made = []
        for name, marks in zip(self.names, self.marks().T, strict=True):
            parts = {f"{name} {word}": marks == value for word, value in _WORDS.items()}
            parts[f"{name} unknown"] = np.isnan(marks)
            made += [(part, self.table[rows]) for part, rows in parts.items() if rows.any()]
        return made

    def beside(self) -> list[tuple[str, pd.DataFrame]]:
        """See `Labelling`: the cases with each finding, then all."""
        marks = self.marks().T
        present = [(f"{name} present", self.table[row == 1]) for name, row in zip(self.names, marks, strict=True)]
        return [*present, (ALL, self.table)]

    def counts(self) -> list[tuple[str, str]]:
        """See `Labelling`: present, absent and unknown."""
        return [
            (f"{(marks == 1).sum()}/{(marks == 0).sum()}/{np.isnan(marks).sum()}", name)
            for name, marks in zip(self.names, self.marks().T, strict=True)
        ]

    def texts(self) -> list[str]:
        """See `Labelling`: the findings that are present."""
        return [
            SEPARATOR.join(name for name, mark in zip(self.names, row, strict=True) if mark == 1) or NOTHING
            for row in self.marks()
        ]

    def questions(self) -> list[Question]:
        """See `Labelling`: each finding among the cases where it is known."""
        return [
            (~np.isnan(marks), [name if mark == 1 else "" for mark in marks], [name])
            for name, marks in zip(self.names, self.marks().T, strict=True)
        ]


def labelling(table: pd.DataFrame) -> Classes | Findings:
    """How the cases of a cohort's table are labelled."""
    return Findings(table) if any(map(is_finding, table.columns)) else Classes(table)


def is_finding(column: str) -> bool:
    """Whether a column of a cohort's table is that of a finding."""
    return column.startswith(FINDING)
