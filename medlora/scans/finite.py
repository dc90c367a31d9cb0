"""Voxels that are no finite number: said, and, for a network, replaced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medlora.scans.codes import Code, Issue
from medlora.scans.scan import Scan


def not_finite(array: NDArray[np.float32]) -> list[Issue]:
    """The issue, where an array (x, y, z[, channel]) holds NaN, infinity, or what is too large for float32."""
    with np.errstate(invalid="ignore"):
        total = np.sum(array, dtype=np.float64)  # one pass and no copy, as nearly all arrays need
    if np.isfinite(total):
        return []
    count = sum(int(np.count_nonzero(~np.isfinite(array[:, :, z]))) for z in range(array.shape[2]))
    return [Issue(Code.NonFiniteValues, f"{count} of {array.size}")]


def made_finite(scan: Scan) -> Scan:
    """The scan with its lowest finite value, or 0 where there is none, in place of each that is not; else itself."""
    if not any(issue.code is Code.NonFiniteValues for issue in scan.issues):
        return scan
    finite = np.isfinite(scan.array)
    lowest = scan.array.min(where=finite, initial=np.inf)
    return replace(scan, array=np.where(finite, scan.array, np.float32(lowest if np.isfinite(lowest) else 0)))
