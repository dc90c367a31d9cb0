"""Records of an annotation format → the table that the rest of the room reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from medlora.cohorts.labels import LabelTable
from medlora.errors import MedloraError

MOST_BYTES = 256 << 20  # of a text or XML file of labels


@dataclass
class Record:
    """One annotation.

    Attributes:
        key: what names its scan.
        label: its class; empty where ``reason`` says why it gives no case.
        centre: in the format's coordinate system; None where it has none.
        diameter: millimetres; NaN where not known.
        item: what it is in its file, for messages; never an identifier.
        reason: why it gives no case; empty where it does.
        more: further columns.
    """

    key: str
    label: str
    centre: Sequence[float] | None
    diameter: float = float("nan")
    item: str = ""
    reason: str = ""
    more: Mapping[str, object] = field(default_factory=dict)


def table(
    path: Path,
    files: Sequence[Path],
    records: Sequence[Record],
    *,
    format: str,
    system: str,
    keys: Sequence[str],
    modality: str | None = None,
) -> LabelTable:
    """The table of ``records``: columns scan, label, x, y, z, diameter_mm, and what the records hold more.

    Args:
        path: what the user gave.
        files: what was read.
        records: a row each; rows are numbered from 1.
        format: name of the format.
        system: of the centres.
        keys: kinds of key (see `medlora.cohorts.headings.KEYS`) that the column scan may be, in order.
        modality: see `LabelTable`.

    Raises:
        MedloraError: there is none, or a number is not finite.
    """
    if not records:
        raise MedloraError(f"{path} was read as {format}, but holds no annotation", "check that it is the right one")
    more = list(dict.fromkeys(name for record in records for name in record.more))
    rows = []
    for number, record in enumerate(records, 1):
        centre = ("", "", "") if record.centre is None or record.reason else record.centre
        if not all(isinstance(value, str) or np.isfinite(value) for value in centre):
            raise MedloraError(f"{path}, {record.item or number}: the centre is not three finite numbers")
        size = "" if not np.isfinite(record.diameter) else repr(float(record.diameter))
        cells = [cell if isinstance(cell, str) else repr(float(cell)) for cell in centre]
        rows.append(
            [record.key, "" if record.reason else record.label, *cells, size]
            + [str(record.more.get(name, "")) for name in more]
        )
    index = pd.Index(range(1, len(rows) + 1), name="row")
    frame = pd.DataFrame(rows, columns=["scan", "label", "x", "y", "z", "diameter_mm", *more], index=index, dtype=str)
    return LabelTable(
        path, frame, "", "", format=format, system=system, modality=modality, keys=dict.fromkeys(keys, "scan"),
        items={number: record.item for number, record in enumerate(records, 1) if record.item},
        reasons={number: record.reason for number, record in enumerate(records, 1) if record.reason},
        kept=tuple(more), files=tuple(files),
    )  # fmt: skip


def named(path: Path, files: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """Each file, how an error calls it, and how the cohort does: below a folder by its number, never by its name.

    Args:
        path: what the user gave: a file, or the folder that holds the files.
        files: sorted by path.
    """
    for number, file in enumerate(files, 1):
        if file == path:
            yield file, str(path), ""
        else:
            item = f"file {number} of {len(files)} by path"
            yield file, f"{path}, {item},", f"{item}, "


def content(path: Path, name: str) -> bytes:
    """The bytes of a file of labels, which is called ``name`` in messages.

    Raises:
        MedloraError: it is larger than any such file is, or cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise MedloraError(f"{name} is larger than {MOST_BYTES >> 20} MiB", "check that it holds annotations")
        return path.read_bytes()
    except OSError as error:
        raise MedloraError(f"cannot read {name}: {error.strerror or type(error).__name__}") from None
