"""The cohort folder: what others may rely on, and the one place with identifiers (``private/``)."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from medlora import files
from medlora.cohorts.labelling import is_finding
from medlora.errors import MedloraError

FORMAT = "medlora cohort"
VERSION = 1
CHECKED = ("cohort.csv", "excluded.csv", "private/linkage.csv", "private/excluded.csv", "private/salt")
"""Files whose SHA-256 ``cohort.json`` records."""
OURS = frozenset({"cohort.csv", "excluded.csv", "check.html", "cohort.json", "private"})
TEXT = ("case_id", "scan_id", "patient", "site", "label", "split")
PLACE = ("x", "y", "z", "diameter")
FIXED = (*TEXT, *PLACE)
"""Columns of ``cohort.csv`` that are no acquisition columns; nor are findings, nor those that begin with `KEPT`."""
KEPT = "label_"
"""Begins the names of columns that annotations bring beside the label, such as the number of readers."""
LINKAGE = ("scan_id", "path", "size", "series_uid", "study_uid", "patient_id")
"""Columns of ``private/linkage.csv``; ``path`` is relative to the archive."""


@dataclass(frozen=True)
class Private:
    """What identifies patients: the content of ``private/``.

    Attributes:
        linkage: one row per file of a scan of the cohort (`LINKAGE`).
        excluded: one row per file that was left out: its ``path`` and the ``row`` of ``excluded.csv``, as a
            spreadsheet numbers it, that says why.
        salt: of the patients' hashes.
    """

    linkage: pd.DataFrame = field(repr=False)
    excluded: pd.DataFrame = field(repr=False)
    salt: bytes = field(repr=False)

    @cached_property
    def rows(self) -> dict[str, Any]:
        """Where the files of each scan are in ``linkage``: positions of its rows, an array of int by scan_id."""
        return {str(scan_id): rows for scan_id, rows in self.linkage.groupby("scan_id", sort=False).indices.items()}


@dataclass(frozen=True)
class Contents:
    """What a cohort folder holds.

    Attributes:
        table: one row per case, as ``cohort.csv``.
        excluded: what was left out and why, as ``excluded.csv``.
        info: ``cohort.json`` without the checksums.
        private: identifiers.
    """

    table: pd.DataFrame
    excluded: pd.DataFrame
    info: dict[str, Any]
    private: Private


def is_acquisition(column: str) -> bool:
    """Whether a column of ``cohort.csv`` says how the image was made."""
    return column not in FIXED and not column.startswith(KEPT) and not is_finding(column)


def new_salt() -> bytes:
    """A salt for a new cohort."""
    return secrets.token_bytes(32)


def patient_hash(salt: bytes, patient: str) -> str:
    """The name under which a patient appears: 16 hex digits of a keyed hash (HMAC-SHA256, RFC 2104)."""
    return hmac.new(salt, patient.encode(), hashlib.sha256).hexdigest()[:16]


def is_cohort(folder: str | os.PathLike[str]) -> bool:
    """Whether ``folder`` is, or claims to be, a cohort folder."""
    try:
        return json.loads((Path(folder) / "cohort.json").read_bytes()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def may_write(
    folder: str | os.PathLike[str], overwrite: bool = False, inputs: Iterable[str | os.PathLike[str]] = ()
) -> bool:
    """Whether what is in ``folder`` may be replaced; raises where the cohort must not be written there at all.

    Worth asking before a long check, not only after it.

    Args:
        folder: where the cohort shall be.
        overwrite: replace whatever is there.
        inputs: the archive and the labels, which must not lie inside.

    Raises:
        MedloraError: ``folder`` holds an input, or, where ``overwrite`` is not given, something else than a cohort.
    """
    folder = Path(folder)
    for path in inputs:
        if Path(path).resolve().is_relative_to(folder.resolve()):
            raise MedloraError(
                f"{folder} holds what the cohort is made from ({path}), and would be written over",
                "choose another -o/--output",
            )
    if not is_cohort(folder):
        if not overwrite:
            files.refuse_existing(folder, "the cohort")
        return overwrite
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OURS and not path.name.startswith("."))
    if foreign and not overwrite:
        raise MedloraError(
            f"{folder} is an earlier cohort, but also holds {', '.join(foreign[:3])}, which updating would remove",
            "move that elsewhere, choose another -o/--output, or add --overwrite",
        )
    return True


def refuse_another(
    folder: str | os.PathLike[str], archive: str | os.PathLike[str], labels: str | os.PathLike[str] | None
) -> None:
    """Raise where ``folder`` is the cohort of another archive, or of another file of labels.

    To check again after the labels were corrected or scans were added updates a cohort; this would replace it.
    """
    if not is_cohort(folder):
        return
    earlier = json.loads((Path(folder) / "cohort.json").read_bytes())
    for what, now in (("archive", archive), ("labels", labels)):
        before = earlier.get(what)
        if before is not None and (now is None or Path(before).resolve() != Path(now).resolve()):
            raise MedloraError(
                f"{folder} is the cohort of other {what} ({before}), and would be replaced",
                "choose another -o/--output, or add --overwrite",
            )


def write(
    folder: str | os.PathLike[str],
    contents: Contents,
    page: str,
    keep_index: Callable[[Path], None] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a cohort folder, whole or not at all. An earlier cohort folder without other files is replaced.

    Args:
        folder: where.
        contents: what.
        page: ``check.html``.
        keep_index: writes the archive's index to the path it is given.
        overwrite: replace whatever is there.

    Raises:
        MedloraError: ``folder`` holds something else and ``overwrite`` is not given, or cannot be written.
    """
    folder = Path(folder)
    overwrite = may_write(folder, overwrite)
    with files.new_folder(folder, "the cohort", overwrite=overwrite) as partial:
        private = partial / "private"
        private.mkdir(mode=0o700)
        private.chmod(0o700)
        if keep_index is not None:
            keep_index(private / "index.sqlite")
        contents.table.to_csv(partial / "cohort.csv", index=False, lineterminator="\n")
        contents.excluded.to_csv(partial / "excluded.csv", index=False, lineterminator="\n")
        for name, frame in (("linkage", contents.private.linkage), ("excluded", contents.private.excluded)):
            frame.to_csv(private / f"{name}.csv", index=False, lineterminator="\n", errors="surrogateescape")
        (private / "salt").write_text(contents.private.salt.hex() + "\n", encoding="ascii")
        (partial / "check.html").write_text(page, encoding="utf-8", newline="\n")
        checksums = {name: _digest(partial / name) for name in CHECKED}
        files.write_json(
            partial / "cohort.json",
            {"format": FORMAT, "version": VERSION, **contents.info, "sha256": checksums},
        )


def read(folder: str | os.PathLike[str]) -> Contents:
    """Read a cohort folder and check it against its checksums.

    Raises:
        MedloraError: ``folder`` is no cohort folder, is damaged, or was written by a later version.
    """
    folder = Path(folder)
    again = "make it again with: medlora check ARCHIVE --labels CSV -o COHORT"
    if not is_cohort(folder):
        why = "there is no such folder" if not folder.exists() else "it has no cohort.json that check wrote"
        raise MedloraError(f"{folder} is not a cohort folder: {why}", again)
    info = json.loads((folder / "cohort.json").read_bytes())
    if info.pop("format", None) != FORMAT or info.pop("version", None) != VERSION:
        raise MedloraError(f"{folder} was written by another version of medlora", again)
    checksums = info.pop("sha256", {})
    for name in CHECKED:
        try:
            whole = _digest(folder / name) == checksums.get(name)
        except OSError as error:
            raise MedloraError(
                f"{folder} is not a whole cohort folder: cannot read {name} ({error.strerror})", again
            ) from None
        if not whole:
            raise MedloraError(f"{folder} is damaged or was changed by hand: {name} is not what check wrote", again)
    return Contents(
        table=_read_table(folder / "cohort.csv", TEXT),
        excluded=_read_table(folder / "excluded.csv", ("scan_id", "code", "reason")),
        info=info,
        private=Private(
            linkage=_read_private(folder / "private" / "linkage.csv"),
            excluded=_read_private(folder / "private" / "excluded.csv"),
            salt=bytes.fromhex((folder / "private" / "salt").read_text(encoding="ascii")),
        ),
    )


def _read_private(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")


def _read_table(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """A CSV file of ours: the ``text`` columns as written, an empty cell elsewhere as missing."""
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(
        path,
        dtype={name: str if name in text else "Int64" for name in columns if name in text or is_finding(name)},
        keep_default_na=False,
        na_values={name: [""] for name in columns if name not in text},
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
