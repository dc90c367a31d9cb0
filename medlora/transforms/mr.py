"""The preset for whole MR series, in the plane in which they were acquired."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from medlora.errors import MedloraError
from medlora.transforms.preset import Centre, Preset
from medlora.transforms.steps import Step, as_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from monai.transforms import Compose

    from medlora.scans import Scan

# Intensities have no unit and differ from scanner to scanner: these percentiles of the series become 0 and 1.
_PERCENTILES = (0.5, 99.5)
_CHUNK = 16  # slices that are made smaller at a time
# By the patient's axis across the slices (left-right, front-back, length): where rows, columns and slices run to, as
# readers hang such images: axial and coronal with the patient's left at the right, sagittal with the front at the left.
_PLANES = (("sagittal", "IPL"), ("coronal", "ILP"), ("axial", "PLI"))


@dataclass(frozen=True)
class MR(Preset):
    """An MR series as a picture: ``across``² groups of neighbouring slices, side by side, in the plane acquired.

    Slices are turned as readers hang them: axial ones seen from the feet, from head to feet; coronal ones from the
    front, from front to back; sagittal ones with the front at the left, from right to left. A series that is as fine in
    all directions is shown in axial planes. The whole field of view is shown, its shape kept (a border of 0 fills the
    square), since it is chosen for the region examined. Pictures of axial and of sagittal series look different: a
    cohort should hold one kind of series.

    Channels: minimum, mean and maximum of each group, so that a lesion is seen whether it is dark or bright in the
    sequence; all show the same places. With fewer slices than groups some are repeated.

    The picture is never mirrored: the sides of brain and body are told apart by what they hold.

    Args:
        across: groups of slices in a row, and rows.
    """

    across: int = 3

    name: ClassVar[str] = "mr"
    modalities: ClassVar[frozenset[str]] = frozenset({"MR"})
    channels: ClassVar[int] = 3
    channel_names: ClassVar[tuple[str, ...]] = ("minimum", "mean", "maximum")

    @property
    def tile(self) -> int:
        """Side of a group of slices in the picture, pixels."""
        return self.size // self.across

    def steps(self, scan: Scan, centre: Centre | None = None) -> Iterator[Step]:
        """As read, made smaller, turned, intensities by percentiles, groups of slices, montage.

        Raises:
            MedloraError: the scan is no MR volume, or holds one single value; or a place is given.
        """
        import torch
        from monai.data import MetaTensor
        from monai.transforms import EnsureType, Orientation, ScaleIntensityRangePercentiles, SpatialPad
        from torch.nn.functional import adaptive_avg_pool3d, adaptive_max_pool3d

        from medlora.transforms.slabs import montage, volume_of

        self.check(scan, centre)
        volume = volume_of(scan)
        yield as_read(scan)
        if not float(volume.array.max()) > float(volume.array.min()):
            raise MedloraError(f"scan {scan.scan_id} holds one single value in all its voxels", "leave it out")
        across = _slice_axis(volume)
        native = np.moveaxis(volume.array, across, 2)
        affine = volume.affine[:, [*(axis for axis in range(3) if axis != across), across, 3]]
        small, affine = self._smaller(native, affine)
        length = int(np.argmax(np.abs(affine[:3, 2]) / np.linalg.norm(affine[:3, 2])))
        plane, codes = _PLANES[length]
        turned = Orientation(axcodes=codes, labels=None)(MetaTensor(small, affine=torch.as_tensor(affine)))
        assert isinstance(turned, MetaTensor)
        spacing = tuple(float(length) for length in np.linalg.norm(turned.affine.numpy()[:3, :3], axis=0))
        yield Step(
            "turned and made smaller",
            f"{plane.capitalize()} slices as readers hang them, by means of areas, the field of view within "
            f"{self.tile} × {self.tile} pixels.",
            turned,
            spacing,
            "stored values",
        )
        scaled = ScaleIntensityRangePercentiles(*_PERCENTILES, 0.0, 1.0, clip=True)(turned)
        padded = torch.as_tensor(SpatialPad((self.tile, self.tile, -1))(torch.as_tensor(scaled))).float()
        low, high = _PERCENTILES
        yield Step(
            "intensities",
            f"The {low} and {high} percentiles of the series become 0 and 1; a border of 0 makes it square.",
            padded,
            spacing,
            "0…1",
        )
        shape = (self.tile, self.tile, self.across**2)
        groups = torch.cat(
            [
                -adaptive_max_pool3d(-padded, shape),
                adaptive_avg_pool3d(padded, shape),
                adaptive_max_pool3d(padded, shape),
            ]
        )
        slices = padded.shape[-1]
        thickness = spacing[2] * slices / self.across**2
        yield Step(
            "groups of slices",
            f"{slices} slices in {self.across**2} groups of neighbours: minimum, mean and maximum of each.",
            groups,
            (*spacing[:2], thickness),
            "0…1",
        )
        image = EnsureType(track_meta=False)(montage(groups, self.across, self.size))
        yield Step("montage", "The groups side by side, the first at the top left.", image, spacing[:2], "0…1")

    def _smaller(self, native: np.ndarray, affine: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Volume (x, y, slices) → (1, w, h, slices), the longer side of its field of view ``tile`` pixels; affine."""
        import torch
        from monai.transforms import Resize

        old = np.array(native.shape[:2])
        lengths = old * np.linalg.norm(affine[:3, :2], axis=0)
        new = np.maximum(1, np.rint(self.tile * lengths / lengths.max())).astype(int)
        resize = Resize(new.tolist(), mode="area")
        small = torch.empty(1, *new.tolist(), native.shape[2])
        for first in range(0, native.shape[2], _CHUNK):
            chunk = np.ascontiguousarray(np.moveaxis(native[:, :, first : first + _CHUNK], 2, 0))
            small[0, :, :, first : first + _CHUNK] = torch.as_tensor(resize(torch.as_tensor(chunk))).permute(1, 2, 0)
        zoom = np.diag([*(old / new), 1.0, 1.0])
        zoom[:2, 3] = (old / new - 1) / 2  # edges stay where they are, centres of voxels do not
        return small, affine @ zoom

    def augmentation(self) -> Compose:
        """The same for all slices: rotation to ±7°, scale ±7 %, shift ±5 %; gamma 0.7 to 1.4, weak noise."""
        from monai.transforms import Compose, EnsureType, RandAdjustContrast, RandAffine, RandGaussianNoise

        from medlora.transforms.slabs import FromTiles, ToTiles

        if self.augment <= 0:
            return Compose([])
        strength = self.augment
        return Compose(
            [
                ToTiles(self.across),
                RandAffine(
                    prob=0.9,
                    rotate_range=math.radians(7) * strength,
                    scale_range=(0.07 * strength, 0.07 * strength),
                    translate_range=0.05 * strength * self.tile,
                    mode="bilinear",
                    padding_mode="zeros",
                ),
                RandAdjustContrast(prob=0.5, gamma=(1.4**-strength, 1.4**strength)),
                RandGaussianNoise(prob=0.3, std=0.02 * strength),
                FromTiles(self.across, self.size),
                EnsureType(track_meta=False),  # a MetaTensor would slow every operation of the network
            ]
        )


def _slice_axis(volume: Scan) -> int:
    """The array's axis from slice to slice: the coarsest by a fifth or more, else the one along the patient."""
    spacing = np.array(volume.spacing)
    coarsest = int(spacing.argmax())
    if spacing[coarsest] >= 1.2 * np.sort(spacing)[1]:
        return coarsest
    return int(np.argmax(np.abs(volume.affine[2, :3]) / spacing))
