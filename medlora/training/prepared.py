"""Deterministically prepared images: decoded once per run, or once for all runs that share a cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from medlora import files
from medlora._version import __version__
from medlora.progress import track
from medlora.training.reading import prepared

if TYPE_CHECKING:
    from medlora.scans import Scan
    from medlora.training.cases import Where
    from medlora.transforms import Preset


class PreparedImages(Dataset):
    """Prepared images in a memory-mapped file, as :func:`prepare` wrote it.

    Pickled for another process, it takes along the place of the file alone.

    Args:
        file: float32 (N, channels, size, size).
        labels: target of each image: its class, int64 (N,), or its findings, float32 (N, K).
        preset: by which they were prepared.
    """

    def __init__(self, file: Path, labels: torch.Tensor, preset: Preset) -> None:
        self.file, self.labels, self.preset = file, labels, preset
        shape = (len(labels), preset.channels, preset.size, preset.size)
        self.images = np.memmap(file, dtype=np.float32, mode="r", shape=shape)

    def __reduce__(self) -> tuple[type[PreparedImages], tuple[Path, torch.Tensor, Preset]]:
        return type(self), (self.file, self.labels, self.preset)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        image = torch.from_numpy(np.array(self.images[index]))
        return image, self.labels[index], index


def prepare(
    file: Path,
    cases: Sequence[Where],
    read: Callable[[str], Scan],
    preset: Preset,
    labels: np.ndarray,
    what: str,
    cache: ImageCache | None = None,
) -> PreparedImages:
    """Prepare an image for each of ``cases``, in their order.

    Args:
        file: where the images are kept; written here, deleted by the caller.
        cases: what each image is made from.
        read: scan_id → Scan.
        preset: gives the deterministic preparation.
        labels: target of each image: its class, int64 (N,), or its findings, float32 (N, K).
        what: the work, for the progress shown.
        cache: keeps prepared images for later runs.

    Raises:
        MedloraError: a scan cannot be read or prepared; it is named.
    """
    shape = (preset.channels, preset.size, preset.size)
    stored: dict[Where, Path] = {}
    for case in cases:
        if cache and (found := cache.get(case, shape)) is not None:
            stored[case] = found
    missing = [case for case in cases if case not in stored]
    made = track(prepared(missing, read, preset), what, len(missing))
    with file.open("wb") as out:  # written plainly: a full disk under a memory map would kill the process
        for case in cases:
            image = np.load(stored[case], allow_pickle=False) if case in stored else next(made).numpy()
            if cache and case not in stored:
                cache.put(case, image)
            out.write(image.tobytes())
    return PreparedImages(file, torch.tensor(labels), preset)


class ImageCache:
    """A folder of prepared images, one file each, shared by runs, processes and workers.

    A file is written under a temporary name and renamed, so a process that is killed leaves none that is half. Its name
    is a digest of scan, place, preparation, the scan's files as they are now, and medlora's version: what has changed
    is prepared anew.

    Args:
        folder: made where it is missing, readable by its owner alone, since the images are those of patients.
        preset: of the preparation.
        stamp: scan_id → what changes with the scan's files, such as their sizes and modification times.
    """

    def __init__(self, folder: Path, preset: Preset, stamp: Callable[[str], Any]) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(folder, error) from error
        # Augmentation and normalisation come after what is kept here.
        later = ("augment", "mean", "std")
        self.made_by = {name: value for name, value in preset.to_dict().items() if name not in later}
        self.folder, self.stamp = folder, stamp

    def _path(self, case: Where) -> Path:
        parts = [__version__, case.scan_id, case.centre, self.made_by, self.stamp(case.scan_id)]
        return self.folder / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.npy"

    def get(self, case: Where, shape: tuple[int, ...]) -> Path | None:
        """The file of ``case``, or none where there is no whole one."""
        path = self._path(case)
        try:
            image = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return path if image.shape == shape and image.dtype == np.float32 else None

    def put(self, case: Where, image: np.ndarray) -> None:
        """Keep the prepared image of ``case``."""
        with files.writing(self._path(case)) as partial, partial.open("wb") as out:
            np.save(out, image, allow_pickle=False)
