"""Native pixels that are longer than the header says: padding, or pixels of another size (PS3.5 8.1.1).

One byte makes the element even. More is against the standard: some writers fill up blocks of their own, with bytes of
one value. Bytes that differ are pixels. The header then gives too few columns, rows or frames, and with too few columns
each row would be sheared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medlora.scans.decode import Cells

# A picture that is sheared differs more from row to row. In one of noise it is a matter of chance with which number of
# columns it differs less, but not by as much as this.
_SHEARED = 0.93


def surplus(cells: Cells, needed: int, length: int, read: Callable[[int, int], bytes], order: str = "<") -> str:
    """What pixels say that are longer than their header does; empty where it is padding.

    Args:
        cells: as the header describes them.
        needed: bytes that they take.
        length: bytes that there are.
        read: of a first byte and a number, the bytes of the pixels.
        order: of bytes in a word.
    """
    more = length - needed
    if more <= 1:
        return ""
    if more >= needed // cells.frames:
        return f"pixels of more frames than the {cells.frames} that it says"
    if more == cells.frames > 1 and cells.bits == 8 and cells.rows * cells.columns * cells.samples % 2:
        return "each frame is padded to an even length, not the pixels as a whole"
    if len(set(read(needed, more))) > 1:
        return f"pixels of {more} bytes more than it says"
    columns = _columns(cells, more, read, order)
    return f"pixels of {columns} columns, not the {cells.columns} that it says" if columns != cells.columns else ""


def _columns(cells: Cells, more: int, read: Callable[[int, int], bytes], order: str) -> int:
    """How many the first frame has: those that it says, or as many more as all bytes give, where that is smoother."""
    if cells.samples != 1 or cells.bits not in (8, 16):
        return cells.columns
    size = cells.bits // 8
    wider, rest = divmod(more, cells.frames * cells.rows * size)
    if rest or not wider:
        return cells.columns
    wider += cells.columns
    first = read(0, cells.rows * wider * size)  # or less, of a file that ends early
    stored = np.frombuffer(first, f"{order}u{size}", count=len(first) // size)
    sheared = _differences(stored, wider) < _SHEARED * _differences(stored, cells.columns)
    return wider if sheared else cells.columns


def _differences(stored: np.ndarray, columns: int) -> float:
    """Between pixels and those below them, on average."""
    rows = stored[: len(stored) // columns * columns].reshape(-1, columns)
    # Signed cells wrap round to the same small differences.
    return float(np.abs(np.diff(rows, axis=0).view(f"i{rows.itemsize}").astype(float)).mean()) if len(rows) > 1 else 0.0
