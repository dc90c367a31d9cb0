"""Reading a table as hospitals and spreadsheets write it: any usual encoding, delimiter and quoting, cells as text."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medlora.encodings import decode
from medlora.errors import MedloraError

MAX_BYTES = 1 << 30
DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """A table, every cell as stripped text.

    Attributes:
        path: the file it was read from.
        frame: one row per record; the index, named "row", is the row number that a spreadsheet shows (the heading is
            row 1).
        encoding: the encoding it was read with.
        delimiter: the delimiter it was read with.
    """

    path: Path
    frame: pd.DataFrame
    encoding: str
    delimiter: str


def read_table(path: str | os.PathLike[str], what: str) -> Table:
    """Read a CSV file (comma, semicolon, tab or bar; see `medlora.encodings` for the text), packed by gzip or not.

    Args:
        path: the file.
        what: what it holds ("labels"), for messages.

    Raises:
        MedloraError: the file cannot be read, is no table, or one of its rows does not fit its heading.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise MedloraError(f"{path} is {size >> 20} MiB; a table of {what} is at most 1024 MiB")
        data = path.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise MedloraError(f"cannot read the {what} {path}: {reason}", "check the path of the CSV file") from None
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(path, data, what)
    if data[:2] == b"PK" and path.suffix.lower() == ".zip":
        raise MedloraError(f"{path} is a ZIP archive, not a CSV file", "unpack it, and give the CSV file that it holds")
    if data[:4] == b"PK\x03\x04" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise MedloraError(
            f"{path} is a spreadsheet workbook, not a CSV file", "save it as CSV (UTF-8) and use that file"
        )
    text, encoding = decode(data, path.name)
    if _is_json(text):
        raise MedloraError(
            f"{path} is JSON, not a table of {what}", "write a CSV file with a heading and a row for each case"
        )
    told = re.match(r"sep=(.)\r?\n", text)  # a first line that spreadsheets write and understand
    if told:
        text = text[told.end() :]
    delimiter = told.group(1) if told else _delimiter(text)
    return Table(path, _frame(path, text, delimiter), encoding, delimiter)


def _unpacked(path: Path, data: bytes, what: str) -> bytes:
    """The content of a file that gzip has packed."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            found = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise MedloraError(f"{path} is damaged: gzip cannot unpack it", "copy it again") from None
    if len(found) > MAX_BYTES:
        raise MedloraError(f"{path} is more than 1024 MiB unpacked; a table of {what} is at most that")
    return found


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    for whole in (text, text.lstrip().partition("\n")[0]):  # or a record in each line
        try:
            return isinstance(json.loads(whole), (dict, list))
        except (ValueError, RecursionError):
            continue
    return False


def _delimiter(text: str) -> str:
    """The delimiter that cuts the first records into the most columns, equally many in each."""
    head = text[:65536]
    best, columns = ",", 1
    for delimiter in DELIMITERS:
        try:
            records = [record for record in csv.reader(io.StringIO(head), delimiter=delimiter) if record][:20]
        except csv.Error:
            continue
        if not records:
            continue
        width = len(records[0])
        whole = records[:-1] if len(text) > len(head) and len(records) > 1 else records
        if width > columns and sum(len(record) == width for record in whole) > 0.8 * len(whole):
            best, columns = delimiter, width
    return best


def _is_strict(lines: list[str], delimiter: str) -> bool:
    """Whether the quotation marks of a record are closed before a delimiter or the end (RFC 4180, 2.5)."""
    text = re.sub(
        rf'"[ \t]+(?=[{re.escape(delimiter)}\r\n]|$)', '"', "".join(lines)
    )  # blanks behind the mark do no harm
    try:
        return bool(list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)))
    except csv.Error:
        return False


def _plainly(cell: str) -> str:
    """A cell without what keeps a spreadsheet from reading it as a number: ``="00123"``, ``'00123``."""
    return re.sub(r'^="(.*)"$|^\'(?=\d+$)', r"\1", cell)


def _frame(path: Path, text: str, delimiter: str) -> pd.DataFrame:
    rows: list[list[str]] = []
    numbers: list[int] = []
    heading: list[str] | None = None
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=delimiter)
    begins = 0
    try:
        for number, record in enumerate(reader, 1):
            if reader.line_num > begins + 1 and not _is_strict(lines[begins : reader.line_num], delimiter):
                raise MedloraError(
                    f"{path.name} row {number}: a quotation mark is not closed, so the row seems to go on for "
                    f"{reader.line_num - begins} lines",
                    'remove the mark, or double those within a cell (")',
                )
            begins = reader.line_num
            cells = [_plainly(cell.strip().strip("\ufeff\u200b")) for cell in record]
            if not any(cells):
                continue
            if heading is None:
                heading = cells
                continue
            if any(cells[len(heading) :]):
                raise MedloraError(
                    f"{path.name} row {number}: {len(cells)} cells, but the heading has {len(heading)}",
                    f"quote the cell that holds a {delimiter!r}, or complete the heading"
                    if len(heading) > 1
                    else "remove the lines above the row of headings",
                )
            rows.append((cells + [""] * len(heading))[: len(heading)])
            numbers.append(number)
    except csv.Error as error:
        raise MedloraError(f"{path.name} cannot be read as a table: {error}", "give a CSV file") from None
    if heading is None or not rows:
        raise MedloraError(f"{path.name} holds no rows", "give a CSV file with a heading and a row for each case")
    frame = pd.DataFrame(rows, columns=range(len(heading)), index=pd.Index(numbers, name="row"), dtype=str)
    empty = [i for i, name in enumerate(heading) if not name and not frame[i].any()]
    frame = frame.drop(columns=empty)
    frame.columns = pd.Index([heading[i] or f"column {i + 1}" for i in frame.columns])
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise MedloraError(f"{path.name} has the column {twice[0]!r} twice", "rename or remove one of them")
    return frame
