"""What all presets share: how a scan becomes the tensor that a backbone reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from monai.transforms import Compose

    from medlora.scans import Scan


@dataclass(frozen=True)
class Preset:
    """Preparation for one kind of scan: deterministic first, then random augmentation, then normalisation.

    Args:
        size: side of the square image, in pixels.
        mean, std: of the backbone's pretraining, one figure for each of its input channels.
        augment: strength of the random augmentation; 0 switches it off, 1 is the preset's own.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: float = 1.0

    name: ClassVar[str]
    modalities: ClassVar[frozenset[str]]

    def check(self, scan: Scan) -> None:
        """Raise where this preset was not made for ``scan``.

        Raises:
            MedloraError: the scan is of another modality or dimension; its scan_id is named.
        """
        if scan.modality not in self.modalities:
            raise MedloraError(
                f"scan {scan.scan_id} has modality {scan.modality or 'unknown'}; the preset {self.name} reads "
                f"{', '.join(sorted(filter(None, self.modalities)))}",
                "leave such scans out of the cohort, or use another preset",
            )

    def preparation(self) -> Callable[[Scan], torch.Tensor]:
        """Deterministic transforms: Scan → float32 tensor (1, size, size), intensities 0…1, rows first."""
        raise NotImplementedError

    def augmentation(self) -> Compose:
        """Random transforms of a prepared tensor (1, size, size), of the same shape and range."""
        raise NotImplementedError

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (N, 1, size, size) → backbone input (N, len(mean), size, size).

        Each channel of the backbone sees the same grey image under its own mean and standard deviation.
        """
        import torch

        shape = (1, len(self.mean), 1, 1)
        mean = torch.tensor(self.mean, dtype=images.dtype, device=images.device).view(shape)
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device).view(shape)
        return (images - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are written into an adapter."""
        values = asdict(self)
        return {"preset": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}
