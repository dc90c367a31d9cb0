"""What was left out of a cohort, and why."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from medlora.cohorts.joining import relative


class Excluded:
    """What was left out and why."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, list[str]]] = []

    def add(self, scan_id: str, code: str, reason: str, paths: Iterable[str | Path]) -> None:
        """One scan (or, without ``scan_id``, some files) with its reason, which names no identifier."""
        self._rows.append((scan_id, code, reason, sorted(map(str, paths))))

    @property
    def paths(self) -> list[Path]:
        """All files that were left out."""
        return [Path(path) for *_, paths in self._rows for path in paths]

    def frames(self, archive: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """``excluded.csv`` and ``private/excluded.csv``, sorted, so that the order of reading does not show."""
        rows = sorted(self._rows)
        table = pd.DataFrame(
            [(scan_id, code, reason, len(paths)) for scan_id, code, reason, paths in rows],
            columns=["scan_id", "code", "reason", "files"],
        )
        files = [(str(row), relative(path, archive)) for row, (*_, paths) in enumerate(rows, 2) for path in paths]
        return table, pd.DataFrame(files, columns=["row", "path"], dtype=str)
