"""How tables and folders number the visits of a patient, and whether both number them alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from medlora.cohorts.identifiers import without_damage
from medlora.cohorts.labels import plain

_DECIMAL = re.compile(r"(\D*)(\d+[.,]\d+)", re.ASCII)
_AT_END = re.compile(r"(.*?)(\d+)", re.ASCII)
_BESIDE = (1, -1)  # how else visits may be counted: from 0 in the table and from 1 in the folders, or the reverse


def numbered(name: str) -> str:
    """``name``, of a visit or a folder, in lower case, letters and digits only, without zeros before its last number.

    "ses-01" and "Ses 1" are the same, and "1.0" and "1"; "1.5" is neither 15 nor 1, and "-1" not 1.
    """
    name = name.strip()
    minus = "-" if re.match(r"[-\u2212]\d", name) else ""
    if decimal := _DECIMAL.fullmatch(name):
        number = without_damage(decimal[2]).replace(",", ".")
        return minus + plain(decimal[1]) + number
    return minus + re.sub(r"0*(\d+)$", r"\1", plain(name))


def shifted(name: str, by: int) -> str:
    """A name of `numbered` with another last number; as it is where it ends in no whole number, or would in none."""
    found = _AT_END.fullmatch(name)
    if found is None or name.startswith("-") or found[1].endswith(".") or int(found[2]) + by < 0:
        return name
    return f"{found[1]}{int(found[2]) + by}"


class Numbering:
    """How far the numbers of a column are those of folders, as they are and counted one higher or lower.

    Args:
        enough: share of the patients that must have a row that fits before a numbering is believed.
    """

    def __init__(self, enough: float) -> None:
        self._enough = enough
        self._asked = self._as_many = 0
        self._met, self._fits = Counter[int](), Counter[int]()
        self._lost: list[int] = []

    def add(
        self, cells: Mapping[int, str], fits: Callable[[str], Sequence[str] | None], studies: Mapping[str, str]
    ) -> None:
        """Take in one patient.

        Args:
            cells: row → what it says of its visit.
            fits: the patient's scans that a cell fits.
            studies: scan → study, of all scans that the patient has.
        """

        def fitting(name: str) -> set[str]:
            return {studies[scan_id] for scan_id in fits(name) or () if scan_id in studies}

        found = {name: fitting(name) for name in map(numbered, cells.values())}
        self._asked += bool(cells)
        for by in (0, *_BESIDE):
            fit = sum(bool(fitting(shifted(name, by))) for name in found)
            self._met[by] += bool(fit)
            self._fits[by] += fit
        lost = {name for name, fit in found.items() if not fit and _AT_END.fullmatch(name)}
        without = set(studies.values()).difference(*found.values())
        self._as_many += bool(lost) and len(lost) == len(without)
        if without:
            self._lost += [row for row, cell in cells.items() if numbered(cell) in lost]

    def doubt(self) -> str | None:
        """What speaks against taking the numbers as they are; None where nothing does.

        Rows without a scan are no reason alone, nor are scans without a row. Where both stand side by side, more rows
        may fit if counted from another number on; or most patients have as many of the ones as of the others.
        """
        if not self._fits[0] or not self._lost:
            return None
        best = max(_BESIDE, key=lambda by: self._fits[by])
        more = self._fits[best] > self._fits[0] and self._met[best] >= max(1, self._enough * self._asked)
        known = self._met[0] >= self._enough * self._asked
        if not more and not (known and self._as_many > max(1, self._asked / 2)):
            return None
        first, count = min(self._lost), len(self._lost)
        why = (
            f"{count} row{' has' if count == 1 else 's have'} a number that no scan of theirs has, while other scans "
            f"of the same patients have a number that no row has; the first is row {first}"
        )
        if not more:
            return why
        table, folders = (0, 1) if best > 0 else (1, 0)
        return (
            f"{why}. Counted one {'higher' if best > 0 else 'lower'}, {self._fits[best]} visits of the table have "
            f"scans instead of {self._fits[0]}, as where the table counts from {table} and the folders from {folders}"
        )
