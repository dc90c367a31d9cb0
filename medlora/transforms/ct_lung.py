"""The preset for whole chest CT: the lungs from apex to base as slabs in one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from medlora.transforms.preset import Centre, Preset
from medlora.transforms.steps import Step, as_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from monai.transforms import Compose

    from medlora.scans import Scan
    from medlora.transforms.lungs import Lungs

_FINE = 2.0  # mm; the volume is sampled no more coarsely before it is averaged
_HU = (-1000.0, 3000.0)  # what lies outside is cut off: padding of the field of view becomes air, metal bone


@dataclass(frozen=True)
class CTLung(Preset):
    """A chest CT as a picture: the lungs cut into ``across``² axial slabs of equal thickness, head first, side by side.

    Backbones read one flat image. Pooling the answers of many slices would show each slice larger, but multiplies the
    work of every epoch by their number, and labels of a scan say nothing of a slice. Slabs show the whole lungs in one
    pass, each level at the same place of the picture in every patient. The price is resolution: a pixel is several
    millimetres wide, so this is for what is spread out or large (emphysema, fibrosis, pneumonia, effusion, masses); for
    a nodule there is the preset ct-nodule. A larger ``size`` shows more.

    Channels: the mean over the slab's thickness in a lung window, its maximum in a wide window (vessels and nodules
    stand out, as in a reader's sliding maximum), and its mean in a mediastinal window (W 400, L 40). All show the same
    places. Each slab shows ``extent`` millimetres about the middle of the body, whatever the voxels, the tilt or the
    order of the slices: the size of a chest is kept across, its height is not. Beyond the scan lies air. How the lungs
    are found: see :func:`medlora.transforms.lungs.find_lungs`.

    Slabs are never mirrored: the heart, the aorta and the lobes tell the sides apart.

    Args:
        extent: side of a slab in the patient, mm.
        across: slabs in a row, and rows.
        lung, wide, mediastinal: HU that become 0 and 1.
    """

    extent: float = 360.0
    across: int = 3
    lung: tuple[float, float] = (-1000.0, 200.0)
    wide: tuple[float, float] = (-1000.0, 400.0)
    mediastinal: tuple[float, float] = (-160.0, 240.0)

    name: ClassVar[str] = "ct-lung"
    modalities: ClassVar[frozenset[str]] = frozenset({"CT"})
    channels: ClassVar[int] = 3
    channel_names: ClassVar[tuple[str, ...]] = ("lung", "maximum", "mediastinum")

    @property
    def tile(self) -> int:
        """Side of a slab in the picture, pixels."""
        return self.size // self.across

    @property
    def spacing(self) -> float:
        """Millimetres per pixel of the prepared image."""
        return self.extent / self.tile

    def steps(self, scan: Scan, centre: Centre | None = None) -> Iterator[Step]:
        """As read, lungs found, slabs in HU, windows, montage; one slab of the volume is resampled at a time.

        Raises:
            MedloraError: the scan is no CT volume, or has no lungs; or a place is given.
        """
        import torch
        from monai.transforms import EnsureType, ScaleIntensityRange

        from medlora.transforms.lungs import find_lungs
        from medlora.transforms.slabs import montage, volume_of

        self.check(scan, centre)
        volume = volume_of(scan)
        yield as_read(scan)
        lungs = find_lungs(volume)
        x, y, z = lungs.spacing
        yield Step(
            "lungs found",
            f"Air within the body, in a copy of at most 4 mm; from {lungs.bottom:.0f} to {lungs.top:.0f} mm along the "
            f"patient ({lungs.top - lungs.bottom:.0f} mm).",
            lungs.mask.transpose(1, 0, 2)[None],
            (y, x, z),
            "",
        )
        slabs = torch.stack([self._slab(volume, lungs, number) for number in range(self.across**2)], dim=-1)
        thickness = (lungs.top - lungs.bottom) / self.across**2
        yield Step(
            "slabs",
            f"{self.across**2} axial slabs of {thickness:.1f} mm from the top of the lungs to their bottom, "
            f"{self.extent:.0f} mm wide, about the middle of the body: mean, maximum and mean again.",
            slabs,
            (self.spacing, self.spacing, thickness),
            "HU",
        )
        windows = [self.lung, self.wide, self.mediastinal]
        scales = [ScaleIntensityRange(*window, 0.0, 1.0, clip=True) for window in windows]
        slabs = torch.stack([torch.as_tensor(scale(channel)) for scale, channel in zip(scales, slabs, strict=True)])
        said = "; ".join(
            f"{name} {low:.0f} to {high:.0f} HU" for name, (low, high) in zip(self.channel_names, windows, strict=True)
        )
        yield Step(
            "windows", f"Each channel in its window: {said}.", slabs, (self.spacing, self.spacing, thickness), "0…1"
        )
        image = EnsureType(track_meta=False)(montage(slabs, self.across, self.size))
        yield Step(
            "montage",
            "The slabs side by side, the highest at the top left; the patient's left is at the right of each.",
            image,
            (self.spacing, self.spacing),
            "0…1",
        )

    def _slab(self, volume: Scan, lungs: Lungs, number: int) -> torch.Tensor:
        """One slab, counted from the head: (3, tile, tile) in HU: mean, maximum, mean."""
        import torch
        from monai.data import MetaTensor
        from monai.transforms import ScaleIntensityRange, SpatialCrop, SpatialResample
        from torch.nn.functional import avg_pool2d

        thickness = (lungs.top - lungs.bottom) / self.across**2
        top = lungs.top - number * thickness
        each = math.ceil(self.spacing / _FINE)  # samples per pixel, along a row and along a column
        side, depth = self.tile * each, math.ceil(thickness / _FINE)
        fine, step = self.spacing / each, thickness / depth
        affine = np.zeros((4, 4))  # (row, column, slice) → RAS+: rows to the back, columns to the left, slices down
        affine[1, 0], affine[0, 1], affine[2, 2], affine[3, 3] = -fine, -fine, -step, 1
        affine[:3, 3] = np.add((*lungs.centre, top), ((side - 1) * fine / 2, (side - 1) * fine / 2, -step / 2))

        shape = np.array(volume.array.shape)
        corners = np.array(np.meshgrid((-0.5, side - 0.5), (-0.5, side - 0.5), (-0.5, depth - 0.5))).reshape(3, -1)
        corners = np.linalg.inv(volume.affine) @ affine @ np.vstack([corners, np.ones(8)])
        low = np.clip(np.floor(corners[:3].min(axis=1)) - 1, 0, shape - 2).astype(int)
        high = np.clip(np.ceil(corners[:3].max(axis=1)) + 2, low + 2, shape).astype(int)
        whole = MetaTensor(torch.as_tensor(volume.array)[None], affine=torch.as_tensor(volume.affine))
        # Air is 0 on the way, so that it is what lies beyond the scan.
        block = ScaleIntensityRange(*_HU, 0.0, _HU[1] - _HU[0], clip=True)(
            SpatialCrop(roi_start=low.tolist(), roi_end=high.tolist())(whole)
        )
        resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=False, dtype=np.float32)
        block = torch.as_tensor(
            resample(block, dst_affine=torch.as_tensor(affine), spatial_size=(side, side, depth))  # type: ignore[arg-type]
        )
        projected = torch.cat([block.mean(dim=-1), block.amax(dim=-1)])
        mean, maximum = avg_pool2d(projected, each) + _HU[0]
        return torch.stack([mean, maximum, mean])

    def augmentation(self) -> Compose:
        """The same for all slabs: rotation to ±7°, scale ±7 %, shift ±5 %; contrast ±10 %, noise as of another dose."""
        from monai.transforms import Compose, EnsureType, RandAffine, RandGaussianNoise, RandScaleIntensity

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
                RandScaleIntensity(prob=0.5, factors=0.1 * strength),
                RandGaussianNoise(prob=0.3, std=0.02 * strength),
                FromTiles(self.across, self.size),
                EnsureType(track_meta=False),  # a MetaTensor would slow every operation of the network
            ]
        )
