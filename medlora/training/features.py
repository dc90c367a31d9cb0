"""What the frozen prefix gives for some random views of each training image, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medlora import files
from medlora.progress import say, track
from medlora.training.batches import varied
from medlora.training.engine import CachedPrefix
from medlora.training.prefix import find_prefix

if TYPE_CHECKING:
    from medlora.adapters import Adapter
    from medlora.training.config import Train
    from medlora.training.prepared import PreparedImages
    from medlora.transforms import Preset

_WORTH = 0.3  # part of the network's work that the prefix must hold, for its cache to be worth the disk
_BATCH = 32


def cached_prefix(
    model: torch.nn.Module,
    adapter: Adapter,
    preset: Preset,
    images: PreparedImages,
    settings: Train,
    folder: Path,
    limit_gb: float,
    device: torch.device,
) -> CachedPrefix | None:
    """Cut the network before its first trained weight, and compute what comes before it for each training image.

    Args:
        model: with ``adapter`` attached, on the CPU.
        adapter: names the frozen base in the key of the cache.
        preset: normalisation and augmentation.
        images: the prepared training images.
        settings: of the ``train`` block.
        folder: where caches are kept; a file there is used again only for the same base, cut, images and views.
        limit_gb: what the cache may take of the disk.
        device: where the prefix is computed.

    Returns:
        The cut network with its cache; none where there is no cut, or it is not worth it, which is said.
    """
    if not settings.prefix_views:
        return None
    example = preset.normalise(images[0][0][None])
    prefix = find_prefix(model, example)
    if isinstance(prefix, str):
        if getattr(adapter.method, "last", None) is not None:  # who adapts the last blocks alone expects a saving
            say(f"the whole network is computed in each step: {prefix}")
        return None
    share = _flops(lambda: prefix.features(example)) / _flops(lambda: model(example))
    shape = (len(images), settings.prefix_views, *prefix.shape)
    size = 2 * math.prod(shape)
    if share < _WORTH:
        return None
    if size > limit_gb * 1e9:
        say(
            f"the whole network is computed in each step: keeping what comes before {prefix.cut} would take "
            f"{size / 1e9:.1f} GB, more than data.cache_gb={limit_gb:g} allows"
        )
        return None
    say(
        f"{share:.0%} of the network's work comes before {prefix.cut}, the first that is trained: it is done once for "
        f"{settings.prefix_views} views of each image ({size / 1e6:,.0f} MB in {folder})"
    )
    path = folder / f"{_key(prefix.cut, adapter, preset, images, settings)}.npy"
    if not path.is_file():
        _fill(path, shape, prefix.features, preset, images, settings, model, device)
    return CachedPrefix(prefix, np.load(path, mmap_mode="r", allow_pickle=False))


def _flops(forward: Any) -> int:
    """Multiplications and additions of a forward pass, so that the choice does not depend on how fast a machine is."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()


def _key(cut: str, adapter: Adapter, preset: Preset, images: PreparedImages, settings: Train) -> str:
    from medlora.adapters import fingerprint

    content = hashlib.sha256(np.ascontiguousarray(images.images).data).hexdigest()
    parts = [fingerprint(adapter.model), cut, preset.to_dict(), content, settings.seed, settings.prefix_views]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _fill(
    path: Path,
    shape: tuple[int, ...],
    features: Any,
    preset: Preset,
    images: PreparedImages,
    settings: Train,
    model: torch.nn.Module,
    device: torch.device,
) -> None:
    """Write the cache, whole or not at all: float16, views of an image side by side."""
    augmentation = preset.augmentation()
    model.to(device)
    places = [(index, view) for index in range(shape[0]) for view in range(shape[1])]
    groups = [places[start : start + _BATCH] for start in range(0, len(places), _BATCH)]
    with files.writing(path) as partial, partial.open("wb") as out:
        # Written plainly: on a full disk a write fails with an error, where a memory map would kill the process.
        np.lib.format.write_array_header_1_0(out, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for group in track(groups, "computing the frozen part of the network", every=10):
            views = [varied(augmentation, images[index][0], settings.seed, view, index) for index, view in group]
            part = features(preset.normalise(torch.stack(views)).to(device))
            out.write(part.cpu().numpy().astype("<f2").tobytes())
    model.cpu()
