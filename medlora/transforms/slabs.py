"""A volume as one picture: slabs side by side, in reading order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.transforms import Transform

from medlora.errors import MedloraError

if TYPE_CHECKING:
    import numpy as np

    from medlora.scans import Scan


def volume_of(scan: Scan) -> Scan:
    """The scan with even steps from slice to slice.

    Raises:
        MedloraError: it is no volume of one channel, or its slices do not lie on a straight line.
    """
    if scan.array.ndim != 3 or min(scan.array.shape) < 2:
        raise MedloraError(
            f"scan {scan.scan_id} is no volume (its shape is {' × '.join(map(str, scan.array.shape))})",
            "choose the series that holds the slices",
        )
    return scan.evenly_spaced()


def montage(slabs: torch.Tensor, across: int, size: int) -> torch.Tensor:
    """Slabs (C, h, w, across²) → one image (C, size, size): the first at the top left, then by rows; the rest is 0."""
    channels, height, width, count = slabs.shape
    assert count == across**2
    grid = slabs.permute(0, 3, 1, 2).reshape(channels, across, across, height, width).transpose(2, 3)
    image = slabs.new_zeros(channels, size, size)
    image[:, : across * height, : across * width] = grid.reshape(channels, across * height, across * width)
    return image


class ToTiles(Transform):
    """A montage (C, size, size) → (C · across², h, w): so a 2-D transform treats every slab alike.

    Args:
        across: slabs in a row, and rows.
    """

    def __init__(self, across: int) -> None:
        self.across = across

    def __call__(self, image: np.ndarray | torch.Tensor) -> torch.Tensor:
        """(C, size, size) → (C · across², size // across, size // across)."""
        whole = torch.as_tensor(image)
        tile = whole.shape[-1] // self.across
        part = whole[:, : self.across * tile, : self.across * tile]
        grid = part.reshape(len(part), self.across, tile, self.across, tile).transpose(2, 3)
        return grid.reshape(-1, tile, tile)


class FromTiles(Transform):
    """The reverse of :class:`ToTiles`.

    Args:
        across: slabs in a row, and rows.
        size: side of the montage.
    """

    def __init__(self, across: int, size: int) -> None:
        self.across, self.size = across, size

    def __call__(self, tiles: np.ndarray | torch.Tensor) -> torch.Tensor:
        """(C · across², h, w) → (C, size, size)."""
        every = torch.as_tensor(tiles)
        slabs = every.reshape(-1, self.across**2, *every.shape[1:]).permute(0, 2, 3, 1)
        return montage(slabs, self.across, self.size)
