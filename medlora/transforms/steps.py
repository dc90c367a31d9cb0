"""What a scan is after each step of its preparation, so that the steps can be shown as they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from medlora.scans import Scan


@dataclass(frozen=True)
class Step:
    """A scan on its way to the backbone.

    Attributes:
        name: of the step, a few words.
        says: what was done, one sentence with its figures.
        data: (channels, rows, columns), or (channels, rows, columns, slices).
        spacing: millimetres along rows' order, columns' order and slices; None where the axes have no one spacing.
        unit: of the values: ``HU``, ``stored values``, ``0…1``, or empty for a mask.
    """

    name: str
    says: str
    data: torch.Tensor | np.ndarray
    spacing: tuple[float, ...] | None
    unit: str


def as_read(scan: Scan) -> Step:
    """The scan itself, as a view: its first axis along columns, its second along rows."""
    array = scan.array if scan.array.ndim == 4 else scan.array[..., None]
    data = array.transpose(3, 1, 0, 2)
    x, y, z = scan.spacing
    flat = data.shape[3] == 1
    return Step(
        "as read",
        "The values of the files in the modality's units, in the order of the files' rows and columns.",
        data[..., 0] if flat else data,
        (y, x) if flat else (y, x, z),
        "HU" if scan.modality == "CT" else "stored values",
    )
