"""The preset for projection radiographs (chest, bone …)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from medlora.errors import MedloraError
from medlora.transforms.preset import Centre, Preset
from medlora.transforms.steps import Step, as_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from monai.transforms import Compose

    from medlora.scans import Scan

# Intensities between these percentiles of an image are spread over 0…1: exposures, detectors and markers differ.
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Radiograph(Preset):
    """Projection radiographs: percentile window, squeezed to a square, small rotations, shifts and contrast changes.

    The image is never flipped: the heart's side, and the side of a finding, carry meaning. It is resized to the square
    without padding, since a padded border would tell scanners and views apart by their aspect ratio.
    """

    name: ClassVar[str] = "radiograph"
    # CR, DX and RG as PS3.3 C.7.3.1.1.1 defines them; OT and the empty word are exported images without a modality.
    modalities: ClassVar[frozenset[str]] = frozenset({"CR", "DX", "RG", "OT", ""})
    flat: ClassVar[bool] = True

    def steps(self, scan: Scan, centre: Centre | None = None) -> Iterator[Step]:
        """As read, window by percentiles, resized."""
        import numpy as np
        import torch
        from monai.transforms import EnsureType, Resize, ScaleIntensityRange

        image = EnsureType(track_meta=False)(self.pixels(scan, centre))
        read = as_read(scan)
        yield read
        # MONAI's own transform by percentiles sorts the whole image twice, which takes most of the preparation.
        bottom, top = np.percentile(np.asarray(image), _PERCENTILES).tolist()
        image = torch.as_tensor(ScaleIntensityRange(bottom, top, 0.0, 1.0, clip=True)(image))
        low, high = _PERCENTILES
        yield Step("window", f"The {low} and {high} percentiles become 0 and 1.", image, read.spacing, "0…1")
        rows, columns = image.shape[1:]
        image = EnsureType(track_meta=False)(Resize((self.size, self.size), mode="area")(image))
        spacing = (
            None
            if read.spacing is None
            else (
                read.spacing[0] * rows / self.size,
                read.spacing[1] * columns / self.size,
            )
        )
        yield Step("resized", f"Squeezed to {self.size} × {self.size} pixels by means of areas.", image, spacing, "0…1")

    def pixels(self, scan: Scan, centre: Centre | None = None) -> np.ndarray:
        """The one image of ``scan`` as (1, rows, columns); colour channels are averaged.

        Raises:
            MedloraError: the scan is no radiograph, has several slices, or holds one single value; or a place is given.
        """
        self.check(scan, centre)
        image = scan.array.mean(axis=-1) if scan.array.ndim == 4 else scan.array
        if image.ndim == 3 and image.shape[2] != 1:
            raise MedloraError(
                f"scan {scan.scan_id} has {image.shape[2]} slices; the preset {self.name} reads single images",
                "leave volumes out of the cohort; or, where the files cannot say that they are CT or MR, say it when "
                "the cohort is made (medlora check --modality CT)",
            )
        image = image.reshape(image.shape[:2]).T
        if not float(image.max()) > float(image.min()):
            raise MedloraError(
                f"scan {scan.scan_id} holds one single value in all its pixels", "leave it out of the cohort"
            )
        return image[None]

    def augmentation(self) -> Compose:
        """Random rotation to ±7°, scale and shift to ±7 %, gamma 0.8 to 1.25, weak noise, at ``augment`` = 1."""
        from monai.transforms import Compose, EnsureType, RandAdjustContrast, RandAffine, RandGaussianNoise

        if self.augment <= 0:
            return Compose([])
        strength = self.augment
        return Compose(
            [
                RandAffine(
                    prob=0.9,
                    rotate_range=math.radians(7) * strength,
                    scale_range=(0.07 * strength, 0.07 * strength),
                    translate_range=0.07 * strength * self.size,
                    mode="bilinear",
                    padding_mode="border",
                    spatial_size=(self.size, self.size),
                    cache_grid=True,
                ),
                RandAdjustContrast(prob=0.5, gamma=(1.25**-strength, 1.25**strength)),
                RandGaussianNoise(prob=0.2, std=0.02 * strength),
                EnsureType(track_meta=False),  # a MetaTensor would slow every operation of the network
            ]
        )
