"""The presets for pulmonary nodules: a place in a chest CT, seen in three slices or three orthogonal planes."""

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

    from monai.data import MetaTensor
    from monai.transforms import Compose, Transform

    from medlora.scans import Scan

# Unit vectors in RAS+: of each plane the direction from row to row, and that from column to column.
_PLANES = {
    "axial": ((0, -1, 0), (-1, 0, 0)),
    "coronal": ((0, 0, -1), (-1, 0, 0)),
    "sagittal": ((0, 0, -1), (0, -1, 0)),
}


@dataclass(frozen=True)
class Nodule(Preset):
    """A nodule on CT: three images through or near its centre, each a channel.

    Every image shows the same length in the patient, ``extent``, whatever the voxels of its series: a nodule's size
    carries meaning. HU are windowed to ``window``, which holds lung, ground glass and soft tissue; calcium is cut off
    at its upper end. Beyond the edge of the scan its last voxels are repeated.

    The default extent was chosen by measurement (scripts/nodule_preset.py), LoRA on the default backbone at 112 pixels
    over five patient-disjoint folds of phantom nodules (scanners A and B), with three planes: mean AUC 0.841 with
    64 mm, 0.894 with 48, 0.902 with 36, 0.904 with 32 and 0.914 with 24. Margin and density are told by small details.
    A nodule of more than 24 mm fills the image; where its surroundings matter, show more (``data.extent`` of a
    training).

    Augmentation mirrors what lies about the nodule: whether it is malignant does not depend on the side of the patient
    that it is seen from. Anatomy further away, whose side matters, lies outside of the image. Sizes change by 5 % at
    most.

    Args:
        extent: side of the images in the patient, mm.
        window: HU that become 0 and 1.
    """

    extent: float = 24.0
    window: tuple[float, float] = (-1000.0, 400.0)

    modalities: ClassVar[frozenset[str]] = frozenset({"CT"})
    places: ClassVar[bool] = True
    channels: ClassVar[int] = 3

    @property
    def spacing(self) -> float:
        """Millimetres per pixel of the prepared image."""
        return self.extent / self.size

    def cuts(self, centre: Centre) -> tuple[str, str, list[np.ndarray]]:
        """The name of the step that cuts the images from the block, what it does, and the affine of each image."""
        raise NotImplementedError

    def mirroring(self) -> list[Transform]:
        """Random transforms that mirror the images as if the patient were mirrored."""
        raise NotImplementedError

    def steps(self, scan: Scan, centre: Centre | None = None) -> Iterator[Step]:
        """As read, the block about the centre (RAS+ mm), its three images in HU, the window."""
        import torch
        from monai.transforms import Compose, EnsureType, ScaleIntensityRange, SpatialResample

        block = self.block(scan, centre)
        assert centre is not None
        yield as_read(scan)
        x, y, z = (float(length) for length in np.linalg.norm(block.affine.numpy()[:3, :3], axis=0))
        yield Step(
            "block",
            "The voxels about the centre that the images are cut from.",
            torch.as_tensor(block).transpose(1, 2),
            (y, x, z),
            "HU",
        )
        name, what, affines = self.cuts(centre)
        resample = SpatialResample(mode="bilinear", padding_mode="border", align_corners=False, dtype=np.float64)
        images = torch.cat(
            [
                torch.as_tensor(
                    resample(block, dst_affine=torch.as_tensor(affine), spatial_size=(self.size, self.size, 1))
                )[..., 0]
                for affine in affines
            ]
        ).float()
        spacing = (self.spacing, self.spacing)
        yield Step(name, what, images, spacing, "HU")
        window = Compose([ScaleIntensityRange(*self.window, 0.0, 1.0, clip=True), EnsureType(track_meta=False)])
        low, high = self.window
        yield Step("window", f"{low:.0f} HU become 0, {high:.0f} HU become 1.", window(images), spacing, "0…1")

    def block(self, scan: Scan, centre: Centre | None) -> MetaTensor:
        """The voxels about ``centre`` that the images are cut from, (1, x, y, z), with their affine.

        Raises:
            MedloraError: the scan is no CT volume, or the centre is not given or lies outside of it.
        """
        import torch
        from monai.data import MetaTensor
        from monai.transforms import SpatialCrop

        from medlora.transforms.slabs import volume_of

        self.check(scan, centre)
        even = volume_of(scan)
        shape = np.array(even.array.shape)
        inverse = np.linalg.inv(even.affine)
        middle = inverse[:3, :3] @ np.asarray(centre) + inverse[:3, 3]
        if not ((middle >= -0.5) & (middle <= shape - 0.5)).all():
            raise MedloraError(
                f"a centre lies outside of its scan {scan.scan_id}",
                "check the coordinates, and the system that they are in",
            )
        # All that a sphere around the image's corners touches, so that the block serves however the slices are tilted.
        half = 0.5 * math.sqrt(2) * self.extent * np.linalg.norm(inverse[:3, :3], axis=1) + 1
        low = np.clip(np.floor(middle - half), 0, shape - 2).astype(int)
        high = np.clip(np.ceil(middle + half) + 1, low + 2, shape).astype(int)
        volume = MetaTensor(torch.as_tensor(even.array)[None], affine=torch.as_tensor(even.affine))
        block = SpatialCrop(roi_start=low.tolist(), roi_end=high.tolist())(volume)
        assert isinstance(block, MetaTensor)
        return block

    def _plane(self, centre: Centre, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> np.ndarray:
        """The affine from (row, column, 0) of the plane through ``centre`` to RAS+ mm, 4 × 4."""
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = np.multiply(rows, self.spacing), np.multiply(columns, self.spacing)
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1]) / self.spacing**2
        affine[:3, 3] = np.asarray(centre) - affine[:3, :2].sum(axis=1) * (self.size - 1) / 2
        return affine

    def augmentation(self) -> Compose:
        """Mirrored; rotation to ±20°, scale ±5 %, shift ±2 mm; blur or noise as of other kernels and doses."""
        from monai.transforms import (
            Compose,
            EnsureType,
            RandAffine,
            RandGaussianNoise,
            RandGaussianSmooth,
            RandScaleIntensity,
        )

        if self.augment <= 0:
            return Compose([])
        strength = self.augment
        smooth = (0.1, 0.1 + 0.9 * strength / self.spacing)  # pixels: up to about 1 mm
        return Compose(
            [
                *self.mirroring(),
                RandAffine(
                    prob=0.9,
                    rotate_range=math.radians(20) * strength,
                    scale_range=(0.05 * strength, 0.05 * strength),
                    translate_range=2.0 * strength / self.spacing,
                    mode="bilinear",
                    padding_mode="border",
                ),
                RandGaussianSmooth(prob=0.25, sigma_x=smooth, sigma_y=smooth),
                RandScaleIntensity(prob=0.3, factors=0.08 * strength),
                RandGaussianNoise(prob=0.4, std=0.03 * strength),  # 0.03 are 42 HU
                EnsureType(track_meta=False),  # a MetaTensor would slow every operation of the network
            ]
        )


@dataclass(frozen=True)
class CTNodule(Nodule):
    """A nodule on CT in three axial slices: through its centre, and ``apart`` millimetres below and above.

    Slices were chosen by measurement (scripts/nodule_preset.py, as for the extent of `Nodule`): mean AUC of LoRA 0.922
    with three slices and 0.912 with three orthogonal planes (`CTNodulePlanes`), of a linear probe 0.897, 0.875, and
    0.872 with one slice in three windows.

    Args:
        apart: from slice to slice, mm.
    """

    apart: float = 2.5

    name: ClassVar[str] = "ct-nodule"
    channel_names: ClassVar[tuple[str, ...]] = ("below", "centre", "above")

    def cuts(self, centre: Centre) -> tuple[str, str, list[np.ndarray]]:  # noqa: D102
        heights = (-self.apart, 0.0, self.apart)
        planes = [self._plane((centre[0], centre[1], centre[2] + mm), *_PLANES["axial"]) for mm in heights]
        what = f"Axial slices {self.apart:.4g} mm below, through and above the centre, each {self.extent:.4g} mm wide."
        return "slices", what, planes

    def mirroring(self) -> list[Transform]:  # noqa: D102
        from monai.transforms import RandFlip

        return [RandFlip(prob=0.5, spatial_axis=0), RandFlip(prob=0.5, spatial_axis=1)]


@dataclass(frozen=True)
class CTNodulePlanes(Nodule):
    """A nodule on CT in the axial, coronal and sagittal plane through its centre."""

    name: ClassVar[str] = "ct-nodule-planes"
    channel_names: ClassVar[tuple[str, ...]] = tuple(_PLANES)
    same_places: ClassVar[bool] = False

    def cuts(self, centre: Centre) -> tuple[str, str, list[np.ndarray]]:  # noqa: D102
        planes = [self._plane(centre, *axes) for axes in _PLANES.values()]
        return (
            "planes",
            f"Axial, coronal and sagittal plane through the centre, each {self.extent:.4g} mm wide.",
            planes,
        )

    def mirroring(self) -> list[Transform]:  # noqa: D102
        from medlora.transforms.planes import RandMirrorPlanes

        return [RandMirrorPlanes(prob=0.5)]
