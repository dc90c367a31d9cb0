"""Training steps of stock layers with a low-rank update: one product forward, low-rank gradients backward.

Forward the layer runs once, with the updated weight W' = W + s·B·A, by the same kernel as the frozen layer (so a new
update is the exact identity). Backward the gradient of the input takes one product with W', which is formed again
rather than kept; the gradients of A and B come from r-wide products and never need that of W:

    dB = s · dYᵀ·(x·Aᵀ),   dA = s · (dY·B)ᵀ·x

or, where that is cheaper (few positions), from dW = dYᵀ·x projected. Only x is kept, and not even x where A is frozen:
then x·Aᵀ is. RunLoRA (Cherniuk et al. 2023, arXiv 2312.03415) chooses the order of products by their cost in this
manner.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medlora.adapters.updates import LowRank, updated

Rows = tuple[int, int] | None
THIN = 2.0  # an r-wide product takes about this many times its share of the floating-point operations


class _Scratch(threading.local):
    """One buffer per thread and dtype for the updated weight: on a CPU, fresh memory costs more than the update."""

    def __init__(self) -> None:
        self.buffers: dict[torch.dtype, Tensor] = {}

    def like(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        buffer = self.buffers.get(dtype)
        if buffer is None or buffer.numel() < weight.numel():
            buffer = self.buffers[dtype] = weight.new_empty(weight.numel(), dtype=dtype)
        return buffer[: weight.numel()]


_scratch = _Scratch()


def free_scratch() -> None:
    """Give back this thread's buffers, which have the size of the largest weight updated so far."""
    _scratch.buffers.clear()


def _updated(weight: Tensor, scales: Any, pieces: Any, factors: Sequence[Tensor], dtype: Any) -> Tensor:
    """W' in ``dtype``; it may lie in the scratch buffer, so it is good until the next call."""
    plain = type(weight) in (Tensor, nn.Parameter) and weight.device.type == "cpu"
    if not plain or torch.is_grad_enabled() or torch.compiler.is_compiling():
        if scales is not None:
            weight = weight * scales
        for (rows, scale), a, b in zip(pieces, factors[::2], factors[1::2], strict=True):
            weight = updated(weight, rows, scale, a, b)
        return weight.to(dtype)
    out = _scratch.like(weight, factors[0].dtype).view(weight.shape)
    if scales is None:
        out.copy_(weight)
    else:
        torch.mul(weight, scales, out=out)
    for (rows, scale), a, b in zip(pieces, factors[::2], factors[1::2], strict=True):
        out.flatten(1)[slice(*(rows or (None,)))].addmm_(b, a.flatten(1), alpha=scale)
    return out.to(dtype)


def _compute_dtype(x: Tensor, factors: Sequence[Tensor]) -> torch.dtype:
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return factors[0].dtype


def _low_rank_is_cheaper(positions: int, columns: int, rows: int, rank: int) -> bool:
    return THIN * positions * rank * 2 * (columns + rows) < positions * columns * rows + rank * 2 * columns * rows


def _thin(a: Tensor, x: Tensor) -> Tensor:
    """a (r, in) times x (in, T) or (N, in, T): the r-wide side first, which BLAS libraries do several times faster."""
    return a @ x if x.dim() == 2 else a.expand(x.shape[0], *a.shape).bmm(x)


def _over(g: Tensor, x: Tensor) -> Tensor:
    """The sum over positions (and batch) of g (m, T) or (N, m, T) times x (n, T) or (N, n, T): (m, n)."""
    return g @ x.T if x.dim() == 2 else g.bmm(x.mT).sum(0)


def _gradients(x: Tensor, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """dA (r, in) and dB (out, r) from x ([N,] in, T) and g ([N,] out, T)."""
    positions = x.shape[-1] * (x.shape[0] if x.dim() == 3 else 1)
    if _low_rank_is_cheaper(positions, a.shape[1], b.shape[0], a.shape[0]):
        return _over(_thin(b.T, g), x), _over(_thin(a, x), g).T
    dw = _over(g, x)
    return b.T @ dw, dw @ a.T


def _fresh(y: Tensor) -> Tensor:
    """``y``, no view of another tensor: as output of a function that could not be changed in place, as by a ReLU."""
    return torch.ops.aten._unsafe_view(y, y.shape)


def _scaled(scale: float, pair: tuple[Tensor | None, Tensor], like: Sequence[Tensor]) -> list[Tensor | None]:
    return [None if d is None else (scale * d).view(t.shape).to(t.dtype) for d, t in zip(pair, like, strict=True)]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Any, bias: Any, pieces: Any, *factors: Tensor) -> Tensor:
        ctx.pieces, ctx.dtype = pieces, _compute_dtype(x, factors)
        x = x.to(ctx.dtype)
        ctx.thin = not any(a.requires_grad for a in factors[::2])
        kept = [_thin(a.to(ctx.dtype), x.reshape(-1, x.shape[-1]).T) for a in factors[::2]] if ctx.thin else [x]
        ctx.save_for_backward(weight, scales, *factors, *kept)
        full = _updated(weight, scales, pieces, factors, ctx.dtype)
        return _fresh(F.linear(x, full, None if bias is None else bias.to(ctx.dtype)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, scales, *saved = ctx.saved_tensors
        count = 2 * len(ctx.pieces)
        factors, kept = saved[:count], saved[count:]
        dx = grad @ _updated(weight, scales, ctx.pieces, factors, ctx.dtype) if ctx.needs_input_grad[0] else None
        flat = grad.reshape(-1, grad.shape[-1])
        grads: list[Tensor | None] = []
        for i, (rows, scale) in enumerate(ctx.pieces):
            a, b = factors[2 * i].to(ctx.dtype), factors[2 * i + 1].to(ctx.dtype)
            g = (flat if rows is None else flat[:, rows[0] : rows[1]]).T
            if ctx.thin:
                pair: tuple[Tensor | None, Tensor] = (None, _over(kept[i], g).T)
            else:
                pair = _gradients(kept[0].reshape(-1, kept[0].shape[-1]).T, g, a, b)
            grads += _scaled(scale, pair, factors[2 * i : 2 * i + 2])
        return dx, None, None, flat.sum(0) if ctx.needs_input_grad[3] else None, None, *grads


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scales: Any, bias: Any, geometry: Any, pieces: Any, *factors: Tensor
    ) -> Tensor:
        ctx.geometry, ctx.pieces, ctx.dtype = geometry, pieces, _compute_dtype(x, factors)
        x = x.to(ctx.dtype)
        ctx.thin = not any(a.requires_grad for a in factors[::2])
        ctx.like = x.new_empty(1).expand(x.shape)  # where x is not kept, the backward kernel still asks for its shape
        kept = [_conv(x, a.to(ctx.dtype), None, geometry) for a in factors[::2]] if ctx.thin else [x]
        ctx.save_for_backward(weight, scales, *factors, *kept)
        bias = None if bias is None else bias.to(ctx.dtype)
        return _fresh(_conv(x, _updated(weight, scales, pieces, factors, ctx.dtype), bias, geometry))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, scales, *saved = ctx.saved_tensors
        count = 2 * len(ctx.pieces)
        factors, kept = saved[:count], saved[count:]
        x = ctx.like if ctx.thin else kept[0]
        flat = _is_product(weight, ctx.geometry) and grad.is_contiguous()
        dx = None
        if ctx.needs_input_grad[0]:
            full = _updated(weight, scales, ctx.pieces, factors, ctx.dtype)
            if flat:
                dx = _thin(full.flatten(1).T, grad.flatten(2)).view(x.shape)
            else:
                dx = _conv_backward(grad, x, full, ctx.geometry, input_gradient=True)
        grads: list[Tensor | None] = []
        for i, (rows, scale) in enumerate(ctx.pieces):
            a, b = factors[2 * i].to(ctx.dtype), factors[2 * i + 1].to(ctx.dtype)
            g = grad if rows is None else grad[:, rows[0] : rows[1]]
            if ctx.thin:
                pair: tuple[Tensor | None, Tensor] = (None, _over(kept[i].flatten(2), g.flatten(2)).T)
            elif flat:
                pair = _gradients(x.flatten(2), g.flatten(2), a.flatten(1), b)
            else:
                pair = _conv_gradients(x, g, a, b, ctx.geometry)
            grads += _scaled(scale, pair, factors[2 * i : 2 * i + 2])
        dbias = grad.sum([0, *range(2, grad.dim())]) if ctx.needs_input_grad[3] else None
        return dx, None, None, dbias, None, None, *grads


def _is_product(weight: Tensor, geometry: Any) -> bool:
    """Whether the convolution is a plain matrix product: kernel 1, stride 1, no padding."""
    stride, padding, _ = geometry
    return all(k == 1 for k in weight.shape[2:]) and all(s == 1 for s in stride) and not any(padding)


def _conv_gradients(x: Tensor, g: Tensor, a: Tensor, b: Tensor, geometry: Any) -> tuple[Tensor, Tensor]:
    """dA (r, in, *kernel) and dB (out, r) of a convolution."""
    if _low_rank_is_cheaper(g[:, 0].numel(), a[0].numel(), b.shape[0], a.shape[0]):
        u = _thin(b.T, g.flatten(2)).unflatten(2, g.shape[2:])
        h = _conv(x, a, None, geometry)
        return _conv_backward(u, x, a, geometry, input_gradient=False), _over(h.flatten(2), g.flatten(2)).T
    like = a.new_empty(1).expand(b.shape[0], *a.shape[1:])
    dw = _conv_backward(g, x, like, geometry, input_gradient=False).flatten(1)
    return b.T @ dw, dw @ a.flatten(1).T


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


def _scales(module: Any) -> Tensor | None:
    """The scales of a weight held as int8."""
    return module._buffers["weight_scale"] if module._parameters["weight"].dtype is torch.int8 else None


def records() -> bool:
    """Whether autograd records, and no transform of ``torch.func`` is on, which the functions above do not know."""
    return torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()


def linear_forward(module: Any, x: Tensor) -> Tensor:
    """``nn.Linear.forward`` of a module whose weight has low-rank updates; x (..., in)."""
    weight = module._parameters["weight"]
    if not records() or weight.requires_grad:
        return F.linear(x, module.weight, module.bias)
    pieces, factors = _pieces(module.updates["weight"])
    return _Linear.apply(x, weight, _scales(module), module.bias, pieces, *factors)


def conv_forward(module: Any, x: Tensor) -> Tensor:
    """``nn.ConvNd.forward``, ungrouped and zero-padded, with low-rank updates; x (N, in, *space)."""
    weight = module._parameters["weight"]
    if not records() or weight.requires_grad or x.dim() != weight.dim():
        return module._conv_forward(x, module.weight, module.bias)
    pieces, factors = _pieces(module.updates["weight"])
    geometry = (module.stride, module.padding, module.dilation)
    return _Conv.apply(x, weight, _scales(module), module.bias, geometry, pieces, *factors)


def forward_for(module: nn.Module, updates: Sequence[nn.Module]) -> Callable[..., Tensor] | None:
    """The fast forward of ``module``, or None where its own forward with the updated weight has to do."""
    if "forward" in vars(module) or any(type(update) is not LowRank for update in updates):
        return None
    forward = type(module).forward
    if forward is nn.Linear.forward:
        return linear_forward
    plain_conv = forward in (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)
    if plain_conv and isinstance(module, nn.modules.conv._ConvNd):
        stock = type(module)._conv_forward in (
            nn.Conv1d._conv_forward,
            nn.Conv2d._conv_forward,
            nn.Conv3d._conv_forward,
        )
        if stock and module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            return conv_forward
    return None
