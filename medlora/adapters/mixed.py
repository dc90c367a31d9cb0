"""A batch whose samples belong to different adapters: each module runs once for all of them, or once per adapter.

A stock linear layer or convolution with low-rank updates runs once, with the frozen weight, and adds each sample's own
s·B·(A·x). Any other module that an adapter changes (a norm, the head, a grouped convolution) runs its own forward once
for the samples of each adapter, with that adapter's tensors. Samples may repeat along the first dimension, all of one
together, as where a window attention folds its windows into the batch; that they do is shown before the first run, not
assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medlora.adapters.derive import plain_class, rederive, stored
from medlora.adapters.fast import is_product
from medlora.adapters.updates import LowRank
from medlora.errors import MedloraError


class Share(nn.Module):
    """What one module needs to serve several adapters in one call; stands in the place of its updates.

    Args:
        path: the module's path, for messages.
        groups: the samples of each adapter with the tensors that it puts in the place of the module's own, by name.
        factors: A (batch, r, in, *kernel) and B (batch, out, r) of every sample where the module needs no more.
    """

    def __init__(
        self, path: str, groups: Sequence[tuple[list[int], dict[str, Tensor]]], factors: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__()
        self.path, self.groups, self.factors = path, groups, factors
        self.batch = sum(len(samples) for samples, _ in groups)
        self.current: Mapping[str, Tensor] | None = None

    def __getitem__(self, name: str) -> tuple[Callable[[Tensor], Tensor]]:
        """The chain of one update that reads as the tensor of the adapter whose turn it is."""
        if self.current is None:
            raise MedloraError(
                f"the model reads {self.path}.{name} without calling that module: its samples cannot be told apart",
                "run the samples of each adapter on their own: bank.use(name)",
            )
        tensor = self.current[name]
        return (lambda _: tensor,)

    def repeats(self, x: Tensor) -> int:
        """How many rows of ``x`` belong to each sample."""
        repeats, rest = divmod(x.shape[0], self.batch) if x.dim() else (0, 1)
        if rest or not repeats:
            raise MedloraError(
                f"{self.path} gets {tuple(x.shape)}, no multiple of {self.batch} samples along the first dimension",
                "run the samples of each adapter on their own: bank.use(name)",
            )
        return repeats


def shared_forward(module: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The forward of a module that serves several adapters in one call; x (batch · repeats, …)."""
    share: Share = module._modules["updates"]
    repeats = share.repeats(x)
    if share.factors is not None and (repeats == 1 or share.factors[0].dim() == 3):
        return _low_rank(module, share, x)
    forward: Any = plain_class(module).forward  # type: ignore[attr-defined]
    parts, order = [], []
    try:
        for samples, tensors in share.groups:
            rows = [i * repeats + j for i in samples for j in range(repeats)]
            share.current = tensors
            parts.append(forward(module, *(_pick(t, rows, x.shape[0]) for t in (x, *args)), **_picked(kwargs, rows)))
            order += rows
    finally:
        share.current = None
    return _join(parts, order)


def _low_rank(module: Any, share: Share, x: Tensor) -> Tensor:
    """The frozen layer on all samples, and each sample's own s·B·(A·x) added to it."""
    weight, bias = stored(module, "weight"), module._parameters["bias"]
    linear = isinstance(module, nn.Linear)
    y = F.linear(x, weight, bias) if linear else module._conv_forward(x, weight, bias)
    a, b = (factor.to(y.dtype) for factor in share.factors)  # type: ignore[union-attr]
    x = x.to(y.dtype)
    if linear:
        h = a @ x.reshape(share.batch, -1, x.shape[-1]).mT
        return y.reshape(share.batch, -1, y.shape[-1]).baddbmm_(h.mT, b.mT).view(y.shape)
    geometry = (module.stride, module.padding, module.dilation)
    if is_product(weight, geometry):
        h = a.flatten(2) @ x.flatten(2)
    else:  # each sample's A as one group of a grouped convolution
        one = x.reshape(1, -1, *x.shape[2:])
        h = torch.convolution(one, a.flatten(0, 1), None, *geometry, False, [0] * len(module.stride), share.batch)
        h = h.view(share.batch, a.shape[1], -1)
    return y.flatten(2).baddbmm_(b, h).view(y.shape)


def _pick(value: Any, rows: list[int], count: int) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0 or value.shape[0] != count:
        return value
    if rows == list(range(rows[0], rows[-1] + 1)):
        return value[rows[0] : rows[-1] + 1]
    return value[rows]


def _picked(kwargs: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    mask = kwargs.get("key_padding_mask")  # of nn.MultiheadAttention: (batch, positions)
    return kwargs if mask is None else kwargs | {"key_padding_mask": mask[rows]}


def _join(parts: list[Any], order: list[int]) -> Any:
    if isinstance(parts[0], tuple):
        return tuple(_join(list(items), order) for items in zip(*parts, strict=True))
    if parts[0] is None:
        return None
    joined = torch.cat(parts)
    if order == sorted(order):
        return joined
    out = torch.empty_like(joined)
    out[order] = joined
    return out


def stacked(updates: Sequence[Sequence[LowRank]], weight: Tensor) -> tuple[Tensor, Tensor]:
    """A (batch, R, in, *kernel) and B (batch, out, R) of every sample's updates of one weight, filled up with zeros.

    The updates of a sample are those of the slices of the weight (or of all of it); their scales are in B.
    """
    rank = max(sum(u.rank for u in chain) for chain in updates)
    a = weight.new_zeros((len(updates), rank, *weight.shape[1:]))
    b = weight.new_zeros((len(updates), weight.shape[0], rank))
    for sample, chain in enumerate(updates):
        start = 0
        for update in chain:
            stop = start + update.rank
            a[sample, start:stop] = update.A
            b[sample, slice(*(update.rows or (None,))), start:stop] = update.scale * update.B
            start = stop
    return a, b


@contextmanager
def sharing(shares: Sequence[tuple[nn.Module, Share, tuple[str, ...]]]) -> Iterator[None]:
    """Within the block every module serves several adapters; ``shares`` has it, its share and its changed names."""
    try:
        for module, share, names in shares:
            module._modules["updates"] = share
            rederive(module, names, shared_forward)
        yield
    finally:
        for module, _, _ in shares:
            rederive(module)
            module._modules.pop("updates", None)


def prove_apart(model: nn.Module, modules: Mapping[str, nn.Module], x: Tensor) -> None:
    """Show that every module gets each sample's rows together, in order: a changed second sample changes them alone.

    Raises:
        MedloraError: with the path of a module that is not called, or where the samples cannot be told apart.
    """
    other = x[:2].clone()
    generator = torch.Generator(x.device).manual_seed(0)
    other[1] = other[1].flip(-1) + torch.randn(other[1].shape, generator=generator, device=x.device).to(x.dtype)
    calls: list[list[tuple[str, Tensor]]] = []
    for inputs in (x[:2], other):
        calls.append([])
        hooks = [
            m.register_forward_pre_hook(lambda _, args, path=path: calls[-1].append((path, args[0].detach().clone())))
            for path, m in modules.items()
        ]
        try:
            model(inputs)
        finally:
            for hook in hooks:
                hook.remove()
    missing = sorted(modules.keys() - {path for path, _ in calls[0]})
    mixed = []
    for (path, one), (_, two) in zip(*calls, strict=True):
        half, odd = divmod(one.shape[0] if one.dim() else 1, 2)
        slack = 1e-3 * float(one.abs().max())
        first_same = not odd and bool((one[:half] - two[:half]).abs().max() <= slack)
        if not first_same or torch.equal(one[half:], two[half:]):
            mixed.append(path)
    if missing or mixed:
        why = "is not called by the forward pass" if missing else "does not get the samples one after the other"
        raise MedloraError(
            f"{[*missing, *mixed][0]} {why}: this model cannot run a batch of several adapters",
            "run the samples of each adapter on their own: bank.use(name)",
        )
