"""The low-rank update: a small module that maps the frozen weight to the one the model computes with.

Any module with ``forward(weight) -> weight`` and ``tensors()``, the tensors of its file by suffix, can stand in its
place (:mod:`medlora.adapters.rescaling` has others); :mod:`medlora.adapters.fast` knows this one by heart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """W ↦ W + scale · B·A, on all rows of W or on a range of them.

    Args:
        weight: the frozen weight (out, in / groups, *kernel); dtype and device are taken from it.
        rank: r.
        scale: factor of B·A.
        rows: (start, stop) of the rows that are updated, as q in a fused qkv; None for all.
        part: name of that range.
        dropout: probability that a column of A is left out of a training step.
        train_a: whether A is trained (not so in LoRA-FA).

    A (r, in / groups, *kernel) is drawn as ``nn.Linear`` and ``nn.Conv2d`` draw their weight; B (rows, r) is zero, so a
    new update changes nothing.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        scale: float,
        rows: tuple[int, int] | None = None,
        part: str | None = None,
        dropout: float = 0.0,
        train_a: bool = True,
    ) -> None:
        super().__init__()
        start, stop = rows or (0, weight.shape[0])
        self.A = nn.Parameter(weight.new_empty((rank, *weight.shape[1:])), requires_grad=train_a)
        self.B = nn.Parameter(weight.new_zeros((stop - start, rank)))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.rank, self.scale, self.rows, self.part, self.dropout = rank, scale, rows, part, dropout

    def factors(self) -> tuple[Tensor, Tensor]:
        """A, with left-out columns zero and the others scaled up in training, and B."""
        if not (self.dropout and self.training):
            return self.A, self.B
        keep = torch.rand_like(self.A[:1]) >= self.dropout
        return self.A * keep / (1 - self.dropout), self.B

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight, shaped as ``weight``."""
        return updated(weight, self.rows, self.scale, *self.factors())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that an adapter's file holds of this update, by the suffix of their key."""
        part = f".{self.part}" if self.part else ""
        yield f"lora_A{part}.weight", self.A
        yield f"lora_B{part}.weight", self.B


def updated(weight: Tensor, rows: tuple[int, int] | None, scale: float, a: Tensor, b: Tensor) -> Tensor:
    """``weight`` + scale · b·a on ``rows``; exactly ``weight`` where b is zero."""
    if rows is None:
        return torch.addmm(weight.flatten(1), b, a.flatten(1), alpha=scale).view(weight.shape)
    start, stop = rows
    middle = updated(weight[start:stop], None, scale, a, b)
    return torch.cat([weight[:start], middle, weight[stop:]])
