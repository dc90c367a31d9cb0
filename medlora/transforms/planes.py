"""Mirroring of an axial, a coronal and a sagittal plane, as if the patient were mirrored."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import NdarrayOrTensor
from monai.transforms import RandomizableTransform


class RandMirrorPlanes(RandomizableTransform):
    """Mirror left to right, front to back, and head to feet, each with probability ``prob``.

    The channels are an axial plane (rows to the back, columns to the left), a coronal one (rows to the feet, columns to
    the left) and a sagittal one (rows to the feet, columns to the back), so that each mirroring concerns two of them.

    Args:
        prob: of each mirroring.
    """

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob=1.0)
        self.each = prob

    def randomize(self, data: Any = None) -> None:  # noqa: D102
        super().randomize(None)
        self._mirrored = self.R.random(3) < self.each

    def __call__(self, planes: NdarrayOrTensor, randomize: bool = True) -> torch.Tensor:
        """(3, size, size) → the same, mirrored."""
        if randomize:
            self.randomize()
        axial, coronal, sagittal = torch.as_tensor(planes)
        left, back, feet = self._mirrored
        return torch.stack(
            [
                axial.flip([axis for axis, on in ((0, back), (1, left)) if on]),
                coronal.flip([axis for axis, on in ((0, feet), (1, left)) if on]),
                sagittal.flip([axis for axis, on in ((0, feet), (1, back)) if on]),
            ]
        )
