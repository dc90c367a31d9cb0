"""Updates that rescale a weight: DoRA's row lengths, SSF's scale and shift."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from medlora.adapters.updates import LowRank


class WeightDecomposed(LowRank):
    """DoRA: the rows of W + scale · B·A, each brought to a trained length.

    The length of the sum is taken as a constant in the backward pass (section 4.3 of arXiv 2402.09353).
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__(weight, rank, scale, dropout=dropout)
        self.magnitude = nn.Parameter(weight.detach().flatten(1).norm(dim=1))

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight, shaped as ``weight``."""
        rows = super().forward(weight).flatten(1)
        norm = rows.detach().norm(dim=1)
        factor = torch.where(norm > 0, self.magnitude / norm.clamp_min(torch.finfo(norm.dtype).tiny), 1.0)
        return (rows * factor[:, None]).view(weight.shape)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """As in :class:`LowRank`, and the lengths."""
        yield from super().tensors()
        yield "lora_magnitude_vector", self.magnitude


class Scale(nn.Module):
    """SSF on a weight: each output channel times γ, one at the start.

    Args:
        weight: the frozen weight.
        dim: the dimension of its output channels.
        groups: of a transposed convolution, where the output channels of each group have input channels of their own.
    """

    def __init__(self, weight: Tensor, dim: int = 0, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        shape = [1] * weight.dim()
        shape[dim] = weight.shape[dim]
        self.gamma = nn.Parameter(weight.new_ones(shape if groups == 1 else (groups, *shape)))

    def forward(self, weight: Tensor) -> Tensor:
        """γ · weight."""
        if self.groups == 1:
            return weight * self.gamma
        return (weight.unflatten(0, (self.groups, -1)) * self.gamma).flatten(0, 1)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensor that an adapter's file holds."""
        yield "ssf_scale", self.gamma


class ScaleShift(nn.Module):
    """SSF on a bias: γ · bias + β, γ being that of the same module's weight."""

    def __init__(self, bias: Tensor, weight: Scale) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros_like(bias))
        self.weight = (weight,)  # a tuple: γ belongs to the weight's update, not to this module

    def forward(self, bias: Tensor) -> Tensor:
        """γ · bias + β, (channels,)."""
        return bias * self.weight[0].gamma.flatten() + self.beta

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensor that an adapter's file holds; γ is the weight's."""
        yield "ssf_shift", self.beta
