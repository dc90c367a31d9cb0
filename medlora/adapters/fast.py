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

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medlora.adapters.updates import LowRank, updated

Rows = tuple[int, int] | None
THIN = 2.0  # an r-wide product takes about this many times its share of the floating-point operations
# On a GPU its time is that of reading the other factor: as long as one so wide takes, in half and in full precision.
WIDTH_HALF, WIDTH_FULL = 200, 40
LAUNCHES = 5e9  # floating-point operations that a GPU in half precision does in the time of the calls from here


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
    if scales is None and len(pieces) == 1 and pieces[0][0] is None:
        a, b = factors
        torch.addmm(weight.flatten(1), b, a.flatten(1), alpha=pieces[0][1], out=out.flatten(1))
        return out.to(dtype)
    if scales is None:
        out.copy_(weight)
    else:
        torch.mul(weight, scales, out=out)
    for (rows, scale), a, b in zip(pieces, factors[::2], factors[1::2], strict=True):
        out.flatten(1)[slice(*(rows or (None,)))].addmm_(b, a.flatten(1), alpha=scale)
    return out.to(dtype)


def _kept(full: Tensor, factors: Sequence[Tensor], scales: Any) -> Tensor | None:
    """W' for the backward pass, where full fine-tuning too keeps a copy of it: in half precision on a GPU."""
    return full if full.is_cuda and full.dtype is not factors[0].dtype and scales is None else None


def _compute_dtype(x: Tensor, factors: Sequence[Tensor]) -> torch.dtype:
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return factors[0].dtype


def _low_rank_is_cheaper(cuda: bool, dtype: torch.dtype, positions: int, columns: int, rows: int, rank: int) -> bool:
    width = THIN * rank
    if cuda:
        width = max(width, WIDTH_FULL if dtype is torch.float32 else WIDTH_HALF)
    return width * positions * 2 * (columns + rows) < positions * columns * rows + rank * 2 * columns * rows


def _leave_to_autograd(module: Any, x: Tensor, positions: int) -> bool:
    """Whether the stock layer with the updated weight is faster: on a GPU under autocast, but for wide layers.

    There one more product costs less than the calls from Python that spare it, and the copy of W' in half precision is
    kept by full fine-tuning too.
    """
    if not (x.is_cuda and torch.is_autocast_enabled("cuda")):
        return False
    weight, update = module._parameters["weight"], module._modules["updates"]["weight"][0]
    if weight.dtype is torch.int8 or not update.A.requires_grad:
        return False
    rows, columns = weight.shape[0], weight[0].numel()
    if 2 * positions * rows * columns < LAUNCHES:
        return True
    dtype = torch.get_autocast_dtype("cuda")
    return not _low_rank_is_cheaper(True, dtype, positions, columns, rows, update.rank)


def _thin(a: Tensor, x: Tensor) -> Tensor:
    """a (r, in) times x (in, T) or (N, in, T): the r-wide side first, which BLAS libraries do several times faster."""
    return a @ x if x.dim() == 2 else a.expand(x.shape[0], *a.shape).bmm(x)


def _over(g: Tensor, x: Tensor) -> Tensor:
    """The sum over positions (and batch) of g (m, T) or (N, m, T) times x (n, T) or (N, n, T): (m, n)."""
    return g @ x.T if x.dim() == 2 else g.bmm(x.mT).sum(0)


def _gradients(x: Tensor, g: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """scale · dA (r, in) and scale · dB (out, r) from x ([N,] in, T) and g ([N,] out, T)."""
    positions = x.shape[-1] * (x.shape[0] if x.dim() == 3 else 1)
    if _low_rank_is_cheaper(x.is_cuda, x.dtype, positions, a.shape[1], b.shape[0], a.shape[0]):
        return _over(_thin(_times(b, scale, x).T, g), x), _over(_thin(_times(a, scale, x), x), g).T
    return _projected(_over(g, x), a, b, scale)


def _projected(dw: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """scale · dA and scale · dB from dW (out, in); with ``beta=0`` the first argument only gives the shape."""
    dw = dw.to(a.dtype)
    return torch.addmm(a, b.T, dw, beta=0, alpha=scale), torch.addmm(b, dw, a.T, beta=0, alpha=scale)


def _times(factor: Tensor, scale: float, like: Tensor) -> Tensor:
    return factor.to(like.dtype) * scale


def channels_last(x: Tensor) -> bool:
    """Whether the channels of x (N, C, H, W) lie next to each other in memory, and not the columns."""
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _columns(x: Tensor, last: bool) -> Tensor:
    """x (N, C, *space) as columns of positions: (C, N·T) where channels come ``last`` in memory, else (N, C, T)."""
    return x.movedim(1, 0).flatten(1) if last else x.flatten(2)


def _fresh(y: Tensor) -> Tensor:
    """``y``, no view of another tensor: as output of a function that could not be changed in place, as by a ReLU."""
    return torch.ops.aten._unsafe_view(y, y.shape)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Any, bias: Any, pieces: Any, *factors: Tensor) -> Tensor:
        ctx.pieces, ctx.dtype = pieces, _compute_dtype(x, factors)
        x = x.to(ctx.dtype)
        ctx.thin = not any(a.requires_grad for a in factors[::2])
        kept = [_thin(a.to(ctx.dtype), x.reshape(-1, x.shape[-1]).T) for a in factors[::2]] if ctx.thin else [x]
        full = _updated(weight, scales, pieces, factors, ctx.dtype)
        ctx.save_for_backward(weight, scales, _kept(full, factors, scales), *factors, *kept)
        return _fresh(F.linear(x, full, None if bias is None else bias.to(ctx.dtype)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, scales, full, *saved = ctx.saved_tensors
        count = 2 * len(ctx.pieces)
        factors, kept = saved[:count], saved[count:]
        flat = grad.reshape(-1, grad.shape[-1])  # so that a gradient in strides, too, is one product
        dx = None
        if ctx.needs_input_grad[0]:
            dx = flat @ (_updated(weight, scales, ctx.pieces, factors, ctx.dtype) if full is None else full)
            dx = dx.view(*grad.shape[:-1], dx.shape[-1])
        grads: list[Tensor | None] = []
        for i, (rows, scale) in enumerate(ctx.pieces):
            a, b = factors[2 * i : 2 * i + 2]
            g = (flat if rows is None else flat[:, rows[0] : rows[1]]).T
            if ctx.thin:
                grads += (None, (scale * _over(kept[i], g).T).to(b.dtype))
            else:
                da, db = _gradients(kept[0].reshape(-1, kept[0].shape[-1]).T, g, a, b, scale)
                grads += (da.to(a.dtype), db.to(b.dtype))
        return dx, None, None, flat.sum(0) if ctx.needs_input_grad[3] else None, None, *grads


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scales: Any, bias: Any, geometry: Any, pieces: Any, *factors: Tensor
    ) -> Tensor:
        ctx.geometry, ctx.pieces, ctx.dtype = geometry, pieces, _compute_dtype(x, factors)
        x = x.to(ctx.dtype)
        ctx.thin = not any(a.requires_grad for a in factors[::2])
        ctx.last = channels_last(x)
        ctx.like = x.new_empty(1).expand(x.shape)  # where x is not kept, the backward kernel still asks for its shape
        kept = [_conv(x, a.to(ctx.dtype), None, geometry) for a in factors[::2]] if ctx.thin else [x]
        full = _updated(weight, scales, pieces, factors, ctx.dtype)
        ctx.save_for_backward(weight, scales, _kept(full, factors, scales), *factors, *kept)
        bias = None if bias is None else bias.to(ctx.dtype)
        return _fresh(_conv(x, full, bias, geometry))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, scales, full, *saved = ctx.saved_tensors
        count = 2 * len(ctx.pieces)
        factors, kept = saved[:count], saved[count:]
        x = ctx.like if ctx.thin else kept[0]
        # elsewhere than on a CPU the convolution's own kernels are as fast, and fewer
        flat = is_product(weight, ctx.geometry) and grad.device.type == "cpu"
        if ctx.last:
            grad = grad.contiguous(memory_format=torch.channels_last)
        else:
            flat = flat and grad.is_contiguous()
        dx = None
        if ctx.needs_input_grad[0]:
            if full is None:
                full = _updated(weight, scales, ctx.pieces, factors, ctx.dtype)
            if flat and not ctx.last:  # with channels last the convolution's own kernel is no slower
                dx = _thin(full.flatten(1).T, grad.flatten(2)).view(x.shape)
            else:
                dx = _conv_backward(grad, x, full, ctx.geometry, input_gradient=True)
        grads: list[Tensor | None] = []
        for i, (rows, scale) in enumerate(ctx.pieces):
            a, b = factors[2 * i : 2 * i + 2]
            g = grad if rows is None else grad[:, rows[0] : rows[1]]
            if ctx.thin:
                grads += (None, (scale * _over(_columns(kept[i], ctx.last), _columns(g, ctx.last)).T).to(b.dtype))
                continue
            da, db = conv_gradients(x, g, a, b, scale, ctx.geometry, ctx.last, flat)
            grads += (da.to(a.dtype), db.to(b.dtype))
        dbias = grad.sum([0, *range(2, grad.dim())]) if ctx.needs_input_grad[3] else None
        return dx, None, None, dbias, None, None, *grads


def is_product(weight: Tensor, geometry: Any) -> bool:
    """Whether the convolution is a plain matrix product: kernel 1, stride 1, no padding."""
    stride, padding, _ = geometry
    return all(k == 1 for k in weight.shape[2:]) and all(s == 1 for s in stride) and not any(padding)


def conv_gradients(
    x: Tensor, g: Tensor, a: Tensor, b: Tensor, scale: float, geometry: Any, last: bool, flat: bool
) -> tuple[Tensor, Tensor]:
    """scale · dA (r, in, *kernel) and scale · dB (out, r) of a convolution, ``flat`` where it is a plain product."""
    if flat:
        da, db = _gradients(_columns(x, last), _columns(g, last), a.flatten(1), b, scale)
        return da.view(a.shape), db
    if _low_rank_is_cheaper(x.is_cuda, x.dtype, g[:, 0].numel(), a[0].numel(), b.shape[0], a.shape[0]):
        factor = _times(b, scale, x)
        if last:
            u = (g.permute(0, 2, 3, 1) @ factor).permute(0, 3, 1, 2)
        else:
            u = _thin(factor.T, g.flatten(2)).unflatten(2, g.shape[2:])
        h = _conv(x, _times(a, scale, x), None, geometry)
        da = _conv_backward(u, x, x.new_empty(1).expand(a.shape), geometry, input_gradient=False)
        return da, _over(_columns(h, last), _columns(g, last)).T
    like = x.new_empty(1).expand(b.shape[0], *a.shape[1:])
    dw = _conv_backward(g, x, like, geometry, input_gradient=False)
    da, db = _projected(dw.flatten(1), a.flatten(1), b, scale)
    return da.view(a.shape), db


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
    if _leave_to_autograd(module, x, x.numel() // x.shape[-1]):
        return F.linear(x, module.weight, module.bias)
    pieces, factors = _pieces(module._modules["updates"]["weight"])
    return _Linear.apply(x, weight, _scales(module), module.bias, pieces, *factors)


def conv_forward(module: Any, x: Tensor) -> Tensor:
    """``nn.ConvNd.forward``, ungrouped and zero-padded, with low-rank updates; x (N, in, *space)."""
    weight = module._parameters["weight"]
    if not records() or weight.requires_grad or x.dim() != weight.dim():
        return module._conv_forward(x, module.weight, module.bias)
    if _leave_to_autograd(module, x, x[:, 0].numel() // math.prod(module.stride)):
        return module._conv_forward(x, module.weight, module.bias)
    pieces, factors = _pieces(module._modules["updates"]["weight"])
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
