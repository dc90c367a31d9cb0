"""Deterministically prepared images, decoded once per run and kept on disk while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from medlora.progress import track
from medlora.training.cases import prepared

if TYPE_CHECKING:
    from medlora.scans import Scan
    from medlora.training.cases import Where
    from medlora.transforms import Preset


class PreparedImages(Dataset):
    """Prepared images in a memory-mapped file, in the order of ``cases``.

    Args:
        file: where the images are kept, float32 (N, channels, size, size); written here, deleted by the caller.
        cases: what each image is made from.
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
        cases: Sequence[Where],
        read: Callable[[str], Scan],
        preset: Preset,
        labels: np.ndarray,
        what: str,
    ) -> None:
        self.labels = torch.tensor(labels, dtype=torch.long)
        with file.open("wb") as out:  # written plainly: a full disk under a memory map would kill the process
            for image in track(prepared(cases, read, preset), what, len(cases)):
                out.write(image.numpy().tobytes())
        shape = (len(cases), preset.channels, preset.size, preset.size)
        self.images = np.memmap(file, dtype=np.float32, mode="r", shape=shape)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        image = torch.from_numpy(np.array(self.images[index]))
        return image, self.labels[index], index
