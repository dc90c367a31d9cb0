"""What the cells of a table's column of dates may mean."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterable

Orders = tuple[bool, bool]

_MONTHS = (
    "january januar janner janvier enero gennaio janeiro januari",
    "february februar feber fevrier febrero febbraio fevereiro februari",
    "march marz maerz mrz mars marzo marco maart",
    "april avril abril aprile",
    "may mai mayo maggio maio mei",
    "june juni juin junio giugno junho",
    "july juli juillet julio luglio julho",
    "august aout agosto augustus",
    "september septembre septiembre settembre setembro",
    "october oktober octobre octubre ottobre outubro",
    "november novembre noviembre novembro",
    "december dezember decembre diciembre dicembre dezembro",
)
"""Names of the months, without accents, in English, German, French, Spanish, Italian, Portuguese and Dutch."""
_SHORTEST = 3  # letters of a month's name that are enough, where they are those of one month alone

_TIME = r"(?:[ T:,].*)?"
_WORD = r"([^\W\d_]+)\.?"
_GAP = r"(?:[-./\s]|(?<=\s)de\s|(?<=\s)of\s)*"
_YEAR_FIRST = re.compile(
    r"(\d{4})(?:[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[ T].*)?|(\d\d)(\d\d)(?:\.0|\d{6}.*)?)", re.ASCII
)
_OTHERS_FIRST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?:[ T].*)?", re.ASCII)
_OF_AN_ERA = re.compile(
    r"(?P<era>令和|平成|昭和|[RHS])[. ]?(?P<year>\d{1,2}|元)(?:(?P<mark>[-./])|年)(?P<month>\d{1,2})"
    r"(?(mark)(?P=mark)|月)(?P<day>\d{1,2})(?(mark)|日)(?:[ T(].*)?",
    re.ASCII,
)
_ERAS = {
    "R": (datetime.date(2019, 5, 1), datetime.date.max),
    "H": (datetime.date(1989, 1, 8), datetime.date(2019, 4, 30)),
    "S": (datetime.date(1926, 12, 25), datetime.date(1989, 1, 7)),
}
"""First and last days of the Japanese eras Reiwa, Heisei and Showa, by their letters."""
_ERA_NAMES = {"令和": "R", "平成": "H", "昭和": "S"}
_SERIALS = (20000, 80000)  # days that a spreadsheet counts from 1900 on, of the years 1954 to 2119
_WEEKDAY = re.compile(r"[^\W\d_]{2,}[.,]+\s*(?=[^\W_])")
_NAMED_MONTH = (
    re.compile(rf"(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th|er)?{_GAP}(?P<word>{_WORD}),?{_GAP}(?P<year>[0-9]{{4}}){_TIME}"),
    re.compile(
        rf"(?P<word>{_WORD}){_GAP}(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?(?:,\s*|[-./\s]+)(?P<year>[0-9]{{4}}){_TIME}"
    ),
    re.compile(rf"(?P<year>[0-9]{{4}}){_GAP}(?P<word>{_WORD}){_GAP}(?P<day>[0-9]{{1,2}}){_TIME}"),
)


def orders_of(cells: Iterable[str]) -> Orders:
    """Whether days, and whether months, may come first in the column's dates: where no cell says otherwise, either."""
    found = [match.groups() for cell in cells if (match := _OTHERS_FIRST.fullmatch(str(cell).strip()))]
    day_first = any(int(first) > 12 or mark == "." for first, mark, _, _ in found)
    month_first = any(int(second) > 12 for _, _, second, _ in found)
    return not month_first, not day_first


def dates_of(cell: str, orders: Orders) -> frozenset[str]:
    """What the cell may mean, as DICOM writes a date (YYYYMMDD); nothing where it is no date that is understood."""
    cell, pairs = cell.strip(), list[tuple[int | str, str]]()
    if known := _YEAR_FIRST.fullmatch(cell):
        year, month, day, *closely = known.groups()
        pairs = [(month or closely[0], day or closely[1])]
    elif other := _OTHERS_FIRST.fullmatch(cell):
        first, _, second, year = other.groups()
        pairs = [(second, first)] * orders[0] + [(first, second)] * orders[1]
    elif era := _OF_AN_ERA.fullmatch(unicodedata.normalize("NFKC", cell)):
        day = _of_era(era)
        return frozenset() if day is None else frozenset((f"{day:%Y%m%d}",))
    else:
        year, pairs = _with_name(cell)
    return frozenset(f"{year}{int(month):02d}{int(day):02d}" for month, day in pairs)


def are_serials(cells: Iterable[str]) -> bool:
    """Whether these may all be numbers by which a spreadsheet keeps dates."""
    wholes = [cell.strip().partition(".")[0] for cell in cells]
    return all(whole.isdecimal() and _SERIALS[0] <= int(whole) <= _SERIALS[1] for whole in wholes)


def _of_era(found: re.Match[str]) -> datetime.date | None:
    """The day of a Japanese era; None where the era has no such day."""
    first, last = _ERAS[_ERA_NAMES.get(found["era"], found["era"])]
    number = 1 if found["year"] == "元" else int(found["year"])
    try:
        day = datetime.date(first.year + number - 1, int(found["month"]), int(found["day"]))
    except ValueError:
        return None
    return day if number > 0 and first <= day <= last else None


def _with_name(cell: str) -> tuple[str, list[tuple[int | str, str]]]:
    """Year, and month and day, of a date that names its month: "May 10, 2020", "10. Mai 2020", "10 de mayo de 2020"."""
    for text in (cell, _WEEKDAY.sub("", cell, count=1)):
        for form in _NAMED_MONTH:
            if (found := form.fullmatch(text)) and (month := _month(found["word"])):
                return found["year"], [(month, found["day"])]
    return "", []


def _month(word: str) -> int | None:
    """The only month that has such a name, or one that begins so."""
    letters = unicodedata.normalize("NFKD", word.rstrip(".").casefold())
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    found = [month for month, names in enumerate(_MONTHS, 1) if any(name.startswith(letters) for name in names.split())]
    return found[0] if len(letters) >= _SHORTEST and len(found) == 1 else None
