"""Deterministically prepared images, decoded once per run and kept on disk while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from medlora.progress import track

if TYPE_CHECKING:
    from monai.transforms import Compose

    from medlora.scans import Scan
    from medlora.transforms import Preset


class PreparedImages(Dataset):
    """Prepared images in a memory-mapped file, in the order of ``scan_ids``.

    Args:
        file: where the images are kept, float32 (N, 1, size, size); written here, deleted by the caller.
        scan_ids: one for each image.
        read: scan_id → Scan.
        preset: gives the deterministic preparation.
        labels: class index of each image, int64 (N,).
        what: the work, for the progress shown.

    Raises:
        MedloraError: a scan cannot be read or prepared; it is named.
    """

    def __init__(
        self,
        file: Path,
        scan_ids: Sequence[str],
        read: Callable[[str], Scan],
        preset: Preset,
        labels: np.ndarray,
        what: str,
    ) -> None:
        self.labels = torch.tensor(labels, dtype=torch.long)
        self.augmentation: Compose | None = None
        prepare = preset.preparation()
        with file.open("wb") as out:  # written plainly: a full disk under a memory map would kill the process
            for scan_id in track(scan_ids, what):
                out.write(prepare(read(scan_id)).numpy().tobytes())
        shape = (len(scan_ids), 1, preset.size, preset.size)
        self.images = np.memmap(file, dtype=np.float32, mode="r", shape=shape)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        image = torch.from_numpy(np.array(self.images[index]))
        if self.augmentation is not None:
            image = self.augmentation(image)
        return image, self.labels[index], index

    def augmented(self, augmentation: Compose) -> PreparedImages:
        """The same images, each seen through ``augmentation`` whenever it is asked for."""
        import copy

        other = copy.copy(self)
        other.augmentation = augmentation
        return other
