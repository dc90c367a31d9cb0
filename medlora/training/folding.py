"""A convolution and the frozen batch norm behind it as one, in training steps on a CPU.

A frozen batch norm scales and shifts each channel (Ioffe & Szegedy 2015, arXiv 1502.03167), so it may be taken into the
weight before it, low-rank update included:

    s ⊙ (W + c·B·A)·x + t = ((s ⊙ W) + c·(s ⊙ B)·A)·x + t

Then no pass over the activations is left but that of the rectifier. The scaled and the updated weight are kept, which
is what full fine-tuning takes for the gradient and one of the two moments of Adam.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from medlora.adapters.derive import fast_forward
from medlora.adapters.fast import channels_last, conv_forward, conv_gradients, is_product
from medlora.adapters.norms import RECTIFIERS, norm_forward, rectified, rectified_backward


class Fold:
    """The pair of a convolution and a batch norm. What is frozen must stay as it is at the first call.

    Args:
        conv: frozen but for a low-rank update of its whole weight.
        norm: frozen; it is called with the convolution's output, and nothing else is.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module) -> None:
        self.conv, self.norm = conv, norm
        self.act = getattr(norm, "act", None)
        self.top = RECTIFIERS.get(type(self.act))
        self.update = next(iter(_updates(conv)), None)
        self.geometry: Any = (conv.stride, conv.padding, conv.dilation)
        self.uses = 0
        self._made: tuple[Tensor, Tensor, Tensor] | None = None
        self._room: Tensor | None = None

    @torch.no_grad()
    def frozen(self) -> tuple[Tensor, Tensor, Tensor]:
        """s ⊙ W, t and s as a column; formed at the first call."""
        if self._made is None:
            norm: Any = self.norm
            scale = (norm.running_var + norm.eps).rsqrt()
            scale = scale if norm.weight is None else scale * norm.weight
            shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
            weight = self.conv._parameters["weight"]
            assert weight is not None
            if self.conv.bias is not None:
                shift = shift + self.conv.bias * scale
            self._made = weight * scale.view(-1, *[1] * (weight.dim() - 1)), shift, scale[:, None].contiguous()
        return self._made

    def updated(self, a: Tensor, b: Tensor) -> Tensor:
        """(s ⊙ W) + c·b·a, where b is s ⊙ B; good until the next call."""
        weight = self.frozen()[0]
        if self._room is None:
            self._room = torch.empty_like(weight)
        assert self.update is not None
        torch.addmm(weight.flatten(1), b, a.flatten(1), alpha=self.update.scale, out=self._room.flatten(1))
        self.uses += 1
        return self._room

    def forward(self, x: Tensor) -> Tensor:
        """What the convolution, the batch norm and its rectifier make of x (N, C, H, W)."""
        if type(self.conv) is Conv2dSame:
            x = pad_same(x, list(self.conv.kernel_size), list(self.conv.stride), list(self.conv.dilation))
        return _Folded.apply(x, self, *(self.update.factors() if self.update is not None else ()))

    def after(self, y: Tensor) -> Tensor:
        """What is left to be done where the batch norm is called."""
        return y if self.act is None or self.top is not None else self.act(y)


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fold: Fold, *factors: Tensor) -> Tensor:
        weight, shift, scale = fold.frozen()
        ctx.fold, ctx.last = fold, channels_last(x)
        if factors:
            factors = factors[0], factors[1] * scale
            weight = fold.updated(*factors)
        ctx.use = fold.uses
        stride, padding, dilation = fold.geometry
        y = torch.convolution(x, weight, shift, stride, padding, dilation, False, [0, 0], fold.conv.groups)
        y = rectified(y, fold.top)
        ctx.save_for_backward(x, y if fold.top is not None else None, *factors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        fold: Fold = ctx.fold
        x, y, *factors = ctx.saved_tensors
        if y is not None and fold.top is not None:
            grad = rectified_backward(grad, y, fold.top)
        grad = grad.contiguous(memory_format=torch.channels_last if ctx.last else torch.contiguous_format)
        weight, _, scale = fold.frozen()
        stride, padding, dilation = fold.geometry
        dx = None
        if ctx.needs_input_grad[0]:
            if factors:
                assert fold._room is not None
                weight = fold._room if fold.uses == ctx.use else fold.updated(*factors)
            dx, _, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, stride, padding, dilation, False, [0, 0], fold.conv.groups,
                [True, False, False],
            )  # fmt: skip
        if not factors:
            return dx, None
        assert fold.update is not None
        a, b = factors
        flat = is_product(weight, fold.geometry)
        da, db = conv_gradients(x, grad, a, b, fold.update.scale, fold.geometry, ctx.last, flat)
        return dx, None, da, db * scale


def _updates(conv: nn.Module) -> list[Any]:
    held: Any = conv._modules.get("updates")
    return [] if held is None else list(held["weight"])


def fold_for(conv: nn.Module, norm: nn.Module) -> Fold | None:
    """The two as one; None where either computes more than is known here, or more is trained than A and B.

    Args:
        conv: any module.
        norm: another.
    """
    if not isinstance(conv, nn.Conv2d) or fast_forward(norm) is not norm_forward:
        return None
    weight = conv._parameters.get("weight")
    frozen = (weight, conv.bias, norm.weight, norm.bias)
    if weight is None or any(p is not None and (p.requires_grad or p.dtype is not torch.float32) for p in frozen):
        return None
    if updates := _updates(conv):
        update, *more = updates
        known = fast_forward(conv) is conv_forward and not more and update.rows is None and update.A.requires_grad
    else:
        stock = (type(conv).forward, type(conv)._conv_forward) == (nn.Conv2d.forward, nn.Conv2d._conv_forward)
        stock = stock or type(conv) is Conv2dSame
        known = stock and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return Fold(conv, norm) if known and "forward" not in vars(conv) else None
