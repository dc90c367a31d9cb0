"""The memory that training will take, predicted before it begins, and the batch that fits."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medlora.adapters.fast import free_scratch
from medlora.errors import MedloraError
from medlora.training.losses import Loss

if TYPE_CHECKING:
    from medlora.adapters import Adapter
    from medlora.training.config import Train
    from medlora.training.engine import CachedPrefix
    from medlora.transforms import Preset

LARGEST = 64  # what auto chooses at most
_STEPS = 10  # and so that an epoch has as many steps …
_SMALLEST = 8  # … unless the batch would be smaller than this
_MARGIN = 0.8  # part of the free memory that auto fills: libraries need workspace of their own
_TRIED = (2, 4)  # images in the steps that are measured


@dataclass(frozen=True)
class Footprint:
    """Bytes that a process takes for training, beside Python and its libraries.

    Attributes:
        network: parameters and buffers, the adapter's too.
        optimizer: AdamW's two moments, and with several processes the copy of the gradients that they exchange.
        step: what a step takes whatever the batch: gradients, for one.
        image: what each image of the batch takes at the height of a step: itself, activations, their gradients.
    """

    network: int
    optimizer: int
    step: float
    image: float

    def of(self, batch: int) -> int:
        """Bytes at the height of a step of ``batch`` images."""
        return round(self.network + self.optimizer + self.step + self.image * batch)


@dataclass(frozen=True)
class Room:
    """The memory that there is.

    Attributes:
        free: bytes.
        sharing: processes that take from it.
        loaded: whether the network of this process is in it already.
    """

    free: int
    sharing: int = 1
    loaded: bool = False

    def needed(self, footprint: Footprint, batch: int) -> int:
        """Bytes that all sharing processes still ask for, with ``batch`` images shared by them."""
        own = footprint.of(-(-batch // self.sharing))
        return own * self.sharing - (footprint.network if self.loaded else 0)


def predict(
    model: torch.nn.Module, adapter: Adapter, preset: Preset, cached: CachedPrefix | None, settings: Train
) -> Footprint:
    """Measure a step of two and one of four random images, to the byte, and extend the line through them.

    The height of a step is the largest sum of all tensors that live at a time, from the images to the last gradient;
    what libraries take within one operation is not seen. The network is left as it was.

    Args:
        model: with ``adapter`` attached, on the CPU.
        adapter: what is trained.
        preset: of the images.
        cached: where training begins at a cut.
        settings: of the ``train`` block.
    """
    shape = cached.prefix.shape if cached is not None else (preset.channels, preset.size, preset.size)

    def forward(inputs: Tensor) -> Tensor:
        return cached.prefix.suffix(inputs) if cached is not None else model(preset.normalise(inputs))

    if settings.gradient_checkpointing:
        from medlora.training.engine import checkpoint_gradients

        checkpoint_gradients(model)
    autocast = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.bfloat16}.get(settings.precision)
    small, large = (height_of_step(model, adapter, forward, (count, *shape), autocast) for count in _TRIED)
    image = (large - small) / (_TRIED[1] - _TRIED[0])
    trained = sum(_bytes(tensor) for tensor in adapter.parameters())
    return Footprint(
        network=sum(_bytes(tensor) for tensor in [*model.parameters(), *model.buffers()]),
        optimizer=trained * (2 if settings.devices * settings.nodes == 1 else 3),
        step=small - _TRIED[0] * image,
        image=image,
    )


def height_of_step(
    model: torch.nn.Module,
    adapter: Adapter,
    forward: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    autocast: torch.dtype | None = None,
) -> int:
    """Most bytes in tensors made by one forward and backward pass at a time; inputs and gradients counted.

    Args:
        model: left in its modes, with its buffers, without gradients.
        adapter: what gets gradients.
        forward: inputs → logits (N, K).
        shape: of the inputs, (N, …).
        autocast: half precision, if any.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    free_scratch()  # left by another network, it would be counted as this one's
    live = _Live([*model.parameters(), *model.buffers()])
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), live:
            inputs = torch.rand(shape)
            labels = torch.zeros(len(inputs), dtype=torch.long)
            with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                logits = forward(inputs)
                loss = Loss(torch.arange(logits.shape[1]), logits.shape[1], "none", 0.0)(logits, labels)
            loss.backward()
    finally:
        for parameter in adapter.parameters():
            parameter.grad = None
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, mode in modes:
            module.training = mode
    return live.height


class _Live(TorchDispatchMode):
    """Counts the bytes of all storages that operations make while it is on, until they are freed."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.height = 0
        self._places = {tensor.untyped_storage().data_ptr() for tensor in known}

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return output

    def _see(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if not size or place in self._places:
            return
        self._places.add(place)
        self.now += size
        self.height = max(self.height, self.now)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._places.discard(place)
        self.now -= size


def room_on(device: torch.device, settings: Train) -> Room:
    """The memory that is free on ``device`` now."""
    if device.type == "cuda":
        return Room(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return Room(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    import psutil

    free = psutil.virtual_memory().available
    limit, used = (_number_in(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:  # a container's own limit
        free = min(free, max(0, limit - used))
    return Room(free, settings.devices, loaded=True)


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none, or it says "max"
        return None


def batch_that_fits(footprint: Footprint, room: Room, cases: int, processes: int = 1) -> int:
    """The batch size that ``auto`` stands for.

    The largest power of two that fits into four fifths of the free memory, is at most 64, and leaves an epoch ten steps
    (or is 8, where ten steps would need a smaller one).

    Args:
        footprint: of a process.
        room: that there is.
        cases: that are trained on.
        processes: each gets one case at least.

    Raises:
        MedloraError: not even the smallest batch fits.
    """
    most = min(LARGEST, max(_SMALLEST, cases // _STEPS))
    sizes = [2**power for power in range(most.bit_length()) if processes <= 2**power <= most]
    fitting = [size for size in sizes if room.needed(footprint, size) <= _MARGIN * room.free]
    if not fitting:
        raise _too_large(footprint, room, min(sizes, default=processes), None)
    return fitting[-1]


def check(footprint: Footprint, room: Room, batch: int) -> None:
    """Raise where a step of ``batch`` cases does not fit.

    Raises:
        MedloraError: with the largest batch that fits.
    """
    if room.needed(footprint, batch) > room.free:
        fits = [size for size in range(1, batch) if room.needed(footprint, size) <= room.free]
        raise _too_large(footprint, room, batch, fits[-1] if fits else None)


def _too_large(footprint: Footprint, room: Room, batch: int, fits: int | None) -> MedloraError:
    return MedloraError(
        f"training with {batch} cases in a step needs {_gb(room.needed(footprint, batch))} of memory, and "
        f"{_gb(room.free)} are free",
        "close other programs, or adapt a smaller backbone, smaller images (data.image_size) or the last blocks alone "
        "(--last 1/3)" if fits is None else f"--batch-size {fits} fits, with train.accumulate to make up for it",
    )  # fmt: skip


def described(footprint: Footprint, room: Room, batch: int) -> str:
    """The prediction in a line."""
    own = -(-batch // room.sharing)
    each = f"each of {room.sharing} processes: " if room.sharing > 1 else ""
    rest = footprint.optimizer + footprint.step + footprint.image * own
    return (
        f"memory predicted for a step of {batch}: {each}{_gb(footprint.of(own))} (network {_gb(footprint.network)}, "
        f"activations, gradients and optimizer {_gb(rest)}); {_gb(room.free)} are free"
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
