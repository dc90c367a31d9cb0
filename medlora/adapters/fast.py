"""Training steps of stock layers with a low-rank update: one product forward, low-rank gradients backward.

Forward the layer runs once, with the updated weight W' = W + s·B·A, by the same kernel as the frozen layer (so a new
update is the exact identity). Backward the gradient of the input takes one product with W', which is formed again
rather than kept; the gradients of A and B come from r-wide products and never need that of W:

    dB = s · dYᵀ·(x·Aᵀ),   dA = s · (dY·B)ᵀ·x

or, where that is cheaper (few rows of x), from dW = dYᵀ·x projected. Only x is kept, and not even x where A is frozen:
then x·Aᵀ is. RunLoRA (Cherniuk et al. 2023, arXiv 2312.03415) chooses orders of products by their cost in this manner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medlora.adapters.updates import LowRank, updated

Rows = tuple[int, int] | None
THIN = 2.0  # an r-wide product costs about this many times its share of floating-point operations


def _updated(weight: Tensor, pieces: Sequence[tuple[Rows, float]], factors: Sequence[Tensor]) -> Tensor:
    for (rows, scale), a, b in zip(pieces, factors[::2], factors[1::2], strict=True):
        weight = updated(weight, rows, scale, a, b)
    return weight


def _compute_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return weight.dtype


def _low_rank_is_cheaper(positions: int, columns: int, rows: int, rank: int) -> bool:
    return THIN * positions * rank * 2 * (columns + rows) < positions * columns * rows + rank * 2 * columns * rows


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pieces: Any, *factors: Tensor) -> Tensor:
        dtype = _compute_dtype(x, weight)
        x = x.to(dtype)
        ctx.pieces, ctx.dtype = pieces, dtype
        ctx.thin = not any(a.requires_grad for a in factors[::2])
        kept = [x @ a.to(dtype).T for a in factors[::2]] if ctx.thin else [x]
        ctx.save_for_backward(weight, *factors, *kept)
        return F.linear(x, _updated(weight, pieces, factors).to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, *saved = ctx.saved_tensors
        count = 2 * len(ctx.pieces)
        factors, kept = saved[:count], saved[count:]
        dx = None
        if ctx.needs_input_grad[0]:
            dx = grad @ _updated(weight, ctx.pieces, factors).to(ctx.dtype)
        flat = grad.reshape(-1, grad.shape[-1])
        flats = [k.reshape(-1, k.shape[-1]) for k in kept]
        grads: list[Tensor | None] = []
        for i, (rows, scale) in enumerate(ctx.pieces):
            a, b = factors[2 * i], factors[2 * i + 1]
            g = flat if rows is None else flat[:, rows[0] : rows[1]]
            if ctx.thin:
                da, db = None, g.T @ flats[i]
            elif _low_rank_is_cheaper(g.shape[0], a.shape[1], b.shape[0], a.shape[0]):
                da, db = (g @ b.to(ctx.dtype)).T @ flats[0], g.T @ (flats[0] @ a.to(ctx.dtype).T)
            else:
                dw = g.T @ flats[0]
                da, db = b.to(ctx.dtype).T @ dw, dw @ a.to(ctx.dtype).T
            grads += [None if da is None else (scale * da).to(a.dtype), (scale * db).to(b.dtype)]
        return dx, None, flat.sum(0) if ctx.needs_input_grad[2] else None, None, *grads


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any, pieces: Any, *factors: Tensor
    ) -> Tensor:
        dtype = _compute_dtype(x, weight)
        x = x.to(dtype)
        ctx.geometry, ctx.pieces, ctx.dtype = geometry, pieces, dtype
        ctx.thin = not any(a.requires_grad for a in factors[::2])
        kept = [_conv(x, a.to(dtype), None, geometry) for a in factors[::2]] if ctx.thin else [x]
        ctx.shape = x.shape
        ctx.save_for_backward(weight, *factors, *kept)
        bias = None if bias is None else bias.to(dtype)
        return _conv(x, _updated(weight, pieces, factors).to(dtype), bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, *saved = ctx.saved_tensors
        count = 2 * len(ctx.pieces)
        factors, kept = saved[:count], saved[count:]
        dx = None
        if ctx.needs_input_grad[0]:
            x = grad.new_empty(1).expand(ctx.shape) if ctx.thin else kept[0]
            full = _updated(weight, ctx.pieces, factors).to(ctx.dtype)
            dx = _conv_backward(grad, x, full, ctx.geometry, input_gradient=True)
        positions = grad[:, 0].numel()
        grads: list[Tensor | None] = []
        for i, (rows, scale) in enumerate(ctx.pieces):
            a, b = factors[2 * i].to(ctx.dtype), factors[2 * i + 1].to(ctx.dtype)
            g = grad if rows is None else grad[:, rows[0] : rows[1]]
            if ctx.thin:
                da, db = None, _outer(g, kept[i])
            elif _low_rank_is_cheaper(positions, a[0].numel(), b.shape[0], a.shape[0]):
                h = _conv(kept[0], a, None, ctx.geometry)
                u = (b.T @ g.flatten(2)).unflatten(2, g.shape[2:])
                da, db = _conv_backward(u, kept[0], a, ctx.geometry, input_gradient=False), _outer(g, h)
            else:
                like = a.new_empty(1).expand(b.shape[0], *a.shape[1:])
                dw = _conv_backward(g, kept[0], like, ctx.geometry, input_gradient=False).flatten(1)
                da, db = (b.T @ dw).view(a.shape), dw @ a.flatten(1).T
            pair = factors[2 * i : 2 * i + 2]
            grads += [None if da is None else (scale * da).to(pair[0].dtype), (scale * db).to(pair[1].dtype)]
        dbias = grad.sum([0, *range(2, grad.dim())]) if ctx.needs_input_grad[2] else None
        return dx, None, dbias, None, None, *grads


def _outer(g: Tensor, h: Tensor) -> Tensor:
    """Sum over batch and space of g (N, out, …) times h (N, r, …): (out, r)."""
    return (g.flatten(2) @ h.flatten(2).transpose(1, 2)).sum(0)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any) -> Tensor:
    stride, padding, dilation = geometry
    return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), 1)


def _conv_backward(grad: Tensor, x: Tensor, weight: Tensor, geometry: Any, input_gradient: bool) -> Tensor:
    stride, padding, dilation = geometry
    mask = [input_gradient, not input_gradient, False]
    zeros = [0] * len(stride)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, zeros, 1, mask
    )
    return dx if input_gradient else dw


def _pieces(updates: nn.ModuleList) -> tuple[tuple[tuple[Rows, float], ...], list[Tensor]]:
    factors = [factor for update in updates for factor in update.factors()]  # type: ignore[operator]
    return tuple((u.rows, u.scale) for u in updates), factors  # type: ignore[misc]


def linear_forward(module: Any, x: Tensor) -> Tensor:
    """``nn.Linear.forward`` of a module whose weight has low-rank updates; x (..., in)."""
    weight = module._parameters["weight"]
    if not torch.is_grad_enabled() or weight.requires_grad:
        return F.linear(x, module.weight, module.bias)
    pieces, factors = _pieces(module.updates["weight"])
    return _Linear.apply(x, weight, module.bias, pieces, *factors)


def conv_forward(module: Any, x: Tensor) -> Tensor:
    """``nn.ConvNd.forward``, ungrouped and zero-padded, with low-rank updates; x (N, in, *space)."""
    weight = module._parameters["weight"]
    if not torch.is_grad_enabled() or weight.requires_grad or x.dim() != weight.dim():
        return module._conv_forward(x, module.weight, module.bias)
    pieces, factors = _pieces(module.updates["weight"])
    geometry = (module.stride, module.padding, module.dilation)
    return _Conv.apply(x, weight, module.bias, geometry, pieces, *factors)


def forward_for(module: nn.Module, updates: Sequence[nn.Module]) -> Any:
    """The fast forward of ``module``, or None where its own forward with the updated weight has to do."""
    if "forward" in vars(module) or any(type(update) is not LowRank for update in updates):
        return None
    forward = type(module).forward
    if forward is nn.Linear.forward:
        return linear_forward
    plain_conv = forward in (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)
    if plain_conv and isinstance(module, nn.modules.conv._ConvNd):
        stock = type(module)._conv_forward in (nn.Conv1d._conv_forward, nn.Conv2d._conv_forward, nn.Conv3d._conv_forward)
        if stock and module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            return conv_forward
    return None
