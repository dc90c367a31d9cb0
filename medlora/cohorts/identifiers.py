"""Matching identifiers that went through a spreadsheet: only where one, and only one, can be meant."""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

DIGITS = 15
"""That a spreadsheet keeps of a number; those behind them become zeros."""

_LONGEST = 64  # characters of a DICOM identifier (PS3.5 6.2)
_SHORTENED = re.compile(r"([+-]?\d)(?:[.,](\d{1,15}))?E\+?(\d{1,9})", re.IGNORECASE)


@dataclass
class Matches:
    """Which identifier of the archive each identifier of a table means.

    Attributes:
        to: table's identifier → archive's identifier.
        repaired: how an identifier had to be read → the table's identifiers so read.
        ambiguous: the table's identifiers that may mean several of the archive's, or share one with another.
    """

    to: dict[str, str] = field(default_factory=dict)
    repaired: dict[str, list[str]] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)


def shortened(values: Iterable[str]) -> set[str]:
    """Those of a column's numbers whose last digits a spreadsheet has lost.

    That is where it wrote them in short (``1.23E+08``), and where it kept 15 digits and made zeros of the others, which
    is seen by all the longer numbers of a column ending so.
    """
    values = set(values)
    long = {value for value in values if value.isdecimal() and len(value.lstrip("0")) > DIGITS}
    cut = {value for value in long if not value.lstrip("0")[DIGITS:].strip("0")}
    return {value for value in values if _SHORTENED.fullmatch(value)} | (cut if cut == long else set())


def keeps_zeros(values: Iterable[str]) -> bool:
    """Whether a column has a number that begins with a zero, so that no spreadsheet has taken them away."""
    return any(value.isdecimal() and value.startswith("0") and value.strip("0") for value in values)


def without_damage(value: str) -> str:
    """``value`` without what spreadsheets add to or take from numbers: ``"00123"`` and ``"123.0"`` are ``"123"``."""
    value = re.sub(r"^(\d+)[.,]0{1,2}$", r"\1", value)  # three are thousands: "1.000"
    return value.lstrip("0") or "0" if value.isdecimal() else value


def match_identifiers(values: Iterable[str], known: Iterable[str]) -> Matches:
    """Match the identifiers of a table to those of an archive.

    First exactly; then those left over without regard to lost leading zeros and an added ``.0``, then to upper and
    lower case, then by the digits that a shortened number (see `shortened`) still shows. A match is only taken when
    neither side has a second candidate; of shortened numbers none is taken where any of them may mean several, since
    then as many may mean one that is not there.

    Args:
        values: the table's identifiers.
        known: the archive's identifiers.
    """
    values, archive = set(values), set(known)
    found = Matches()
    stripped = _by(archive, without_damage)
    zeros_lost, short = not keeps_zeros(values), shortened(values)
    whole = {value for value in values if not (value in short and value.isdecimal())}
    for value in whole & archive:
        # "123" in a table that has lost its leading zeros may as well be the archive's "0123"
        if zeros_lost and value.isdecimal() and len(stripped[without_damage(value)]) > 1:
            found.ambiguous.add(value)
        else:
            found.to[value] = value
    folded = _by(archive, str.casefold)
    numbers = sorted((int(name), name) for name in archive if name.isdecimal() and len(name) <= _LONGEST)
    _take(
        found, "with leading zeros or a trailing .0 disregarded", whole, lambda v: stripped.get(without_damage(v), [])
    )
    _take(found, "with upper and lower case disregarded", whole, lambda v: folded.get(v.casefold(), []))
    shown = Matches(dict(found.to))
    _take(shown, "by the leading digits of a shortened number", short, lambda value: _shown_by(value, numbers))
    if shown.ambiguous:
        found.ambiguous |= short - found.to.keys()
    else:
        found.to |= shown.to
        found.repaired |= shown.repaired
    return found


def _by(names: Iterable[str], canonical: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[canonical(name)].append(name)
    return groups


def _take(found: Matches, how: str, values: set[str], candidates: Callable[[str], list[str]]) -> None:
    claims: dict[str, list[str]] = defaultdict(list)
    for name, value in [(name, value) for value, name in found.to.items()]:
        claims[name].append(value)
    meant = {}
    for value in values - found.to.keys() - found.ambiguous:
        meant[value] = candidates(value)
        for name in meant[value]:
            claims[name].append(value)
    for value, names in meant.items():
        if len(names) == 1 and len(claims[names[0]]) == 1:
            found.to[value] = names[0]
            found.repaired.setdefault(how, []).append(value)
        elif names:
            found.ambiguous.add(value)


def _shown_by(short: str, numbers: list[tuple[int, str]]) -> list[str]:
    """Those of the sorted numbers that round to what the shortened number still shows."""
    if short.isdecimal():  # zeros for the digits that were lost
        step = 10 ** (len(short.lstrip("0")) - DIGITS)
        return _between(numbers, int(short), int(short) + step)
    parts = _SHORTENED.fullmatch(short)
    if parts is None or int(parts.group(3)) > _LONGEST:
        return []
    decimals = parts.group(2) or ""
    shown, scale = int(parts.group(1) + decimals), int(parts.group(3)) - len(decimals)
    if scale < 1:  # all digits are there, and zeros behind the point
        whole, rest = divmod(shown, 10**-scale)
        return [] if rest else _between(numbers, whole, whole + 1)
    low = shown * 10**scale - 5 * 10 ** (scale - 1)  # halves are rounded up
    return _between(numbers, low, low + 10**scale)


def _between(numbers: list[tuple[int, str]], low: int, high: int) -> list[str]:
    start, end = (bisect.bisect_left(numbers, (limit, "")) for limit in (low, high))
    return [name for _, name in numbers[start:end]]
