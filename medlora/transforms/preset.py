"""What all presets share: how a scan, or a place in it, becomes the tensor that a backbone reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from monai.transforms import Compose

    from medlora.scans import Scan
    from medlora.transforms.steps import Step


Centre = tuple[float, float, float]
"""Of a place in a scan: RAS+ millimetres."""


@dataclass(frozen=True)
class Preset:
    """Preparation for one kind of scan: deterministic first, then random augmentation, then normalisation.

    Args:
        size: side of the square image, in pixels.
        mean, std: of the backbone's pretraining, one figure for each of its input channels.
        augment: strength of the random augmentation; 0 switches it off, 1 is the preset's own.

    Attributes:
        name: as adapters record it.
        modalities: DICOM's Modality values that it reads.
        places: whether it reads places in scans, not whole scans.
        flat: whether its scans are single images, of which several fit into memory.
        channels: of the prepared image: 1, which every channel of the backbone then sees, or one for each of them.
        channel_names: what each channel shows, a word each.
        same_places: whether a pixel is the same place of the patient in all channels.

    Raises:
        MedloraError: the backbone has another number of channels.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: float = 1.0

    name: ClassVar[str]
    modalities: ClassVar[frozenset[str]]
    places: ClassVar[bool] = False
    flat: ClassVar[bool] = False
    channels: ClassVar[int] = 1
    channel_names: ClassVar[tuple[str, ...]] = ("image",)
    same_places: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.channels not in (1, len(self.mean)):
            raise MedloraError(
                f"the preset {self.name} gives {self.channels} channels, but the backbone reads {len(self.mean)}",
                "choose a backbone with as many input channels",
            )

    def check(self, scan: Scan, centre: Centre | None = None) -> None:
        """Raise where this preset was not made for ``scan``, or for a place in it.

        Raises:
            MedloraError: the scan is of another modality; or a place is given where whole scans are read, or none where
                places are. The scan_id is named.
        """
        if self.places != (centre is not None):
            reads, give = ("places in scans", "with") if self.places else ("whole scans", "without")
            raise MedloraError(
                f"the preset {self.name} reads {reads}, and the case of scan {scan.scan_id} is none",
                f"give labels or cases {give} columns x, y and z, or choose another preset",
            )
        if scan.modality not in self.modalities:
            raise MedloraError(
                f"scan {scan.scan_id} has modality {scan.modality or 'unknown'}; the preset {self.name} reads "
                f"{', '.join(sorted(filter(None, self.modalities)))}",
                "leave such scans out of the cohort, or use another preset"
                if scan.modality
                else "where its file has no room to say one, declare it with --modality",
            )

    def steps(self, scan: Scan, centre: Centre | None = None) -> Iterator[Step]:
        """The deterministic preparation step by step, from the scan as read to what :meth:`preparation` gives.

        The centre is given where the preset reads places, and None where it reads whole scans.
        """
        raise NotImplementedError

    def preparation(self) -> Callable[[Scan, Centre | None], torch.Tensor]:
        """All :meth:`steps`: scan, centre → float32 tensor (channels, size, size), intensities 0…1, rows first."""
        import torch

        from medlora.scans.finite import made_finite

        def prepare(scan: Scan, centre: Centre | None = None) -> torch.Tensor:
            image = None
            for step in self.steps(made_finite(scan), centre):  # earlier steps may be large, and are let go
                image = step.data
            assert isinstance(image, torch.Tensor)
            return image

        return prepare

    def augmentation(self) -> Compose:
        """Random transforms of a prepared tensor (channels, size, size), of the same shape and about the same range."""
        raise NotImplementedError

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (N, channels, size, size) → backbone input (N, len(mean), size, size).

        Each channel of the backbone has its own mean and standard deviation; where the preset gives a single one, all
        see the same grey image. On a CPU the channels of a pixel lie side by side in memory (``torch.channels_last``),
        for which its convolution kernels are faster.
        """
        import torch

        shape = (1, len(self.mean), 1, 1)
        mean = torch.tensor(self.mean, dtype=images.dtype, device=images.device).view(shape)
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device).view(shape)
        inputs = (images - mean) / std
        return inputs.contiguous(memory_format=torch.channels_last) if inputs.device.type == "cpu" else inputs

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are written into an adapter."""
        values = asdict(self)
        return {"preset": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}
