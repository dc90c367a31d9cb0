"""Batch norms under an adapter: which there are, what they keep, and the frozen ones.

A frozen batch norm is a scaling, so its backward pass needs neither its input nor sums over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medlora.adapters.fast import records


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norms that keep statistics, by path."""
    kind = nn.modules.batchnorm._BatchNorm
    return {p: m for p, m in model.named_modules() if isinstance(m, kind) and m.running_mean is not None}


def statistics(norms: dict[str, nn.Module]) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """The buffers of batch norms: path, module, name, tensor."""
    for path, norm in norms.items():
        yield from ((path, norm, name, buffer) for name, buffer in norm._buffers.items() if buffer is not None)


#: Rectifiers that are taken with the batch norm before them, and where they cut off.
RECTIFIERS: dict[Any, float] = {nn.ReLU: float("inf"), nn.ReLU6: 6.0}


def rectified(y: Tensor, top: float | None) -> Tensor:
    """``y`` clamped to [0, top], in place; as it is where ``top`` is None."""
    if top is None:
        return y
    return y.clamp_(0, top) if top < float("inf") else y.relu_()


def rectified_backward(grad: Tensor, y: Tensor, top: float) -> Tensor:
    """The gradient before a rectifier whose output was ``y``."""
    if top < float("inf"):
        passed: Tensor = torch.ops.aten.hardtanh_backward(grad, y, 0, top)
        return passed
    return torch.ops.aten.threshold_backward(grad, y, 0)


class _FrozenNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Any, bias: Any, eps: float, top: Any) -> Tensor:
        """Batch norm by its running statistics, then clamped to [0, top] unless ``top`` is None."""
        y = F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        ctx.top = top
        y = rectified(y, top)
        ctx.save_for_backward(scale, *([] if top is None else [y]))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        scale, *y = ctx.saved_tensors
        scale = scale.to(grad.dtype).view(-1, *[1] * (grad.dim() - 2))
        if ctx.top is None:
            return grad * scale, None, None, None, None, None, None
        return rectified_backward(grad, y[0], ctx.top).mul_(scale), None, None, None, None, None, None


def norm_forward(module: Any, x: Tensor) -> Tensor:
    """A frozen batch norm; x (N, C, *space). timm's ``BatchNormAct2d`` also drops (identity here) and activates."""
    act: Any = getattr(module, "act", None)
    top = RECTIFIERS.get(type(act))
    weight, bias = module.weight, module.bias
    trained = any(p is not None and p.requires_grad for p in (weight, bias))
    if trained or not (records() and x.requires_grad):
        y = F.batch_norm(x, module.running_mean, module.running_var, weight, bias, False, 0.0, module.eps)
        return y if act is None else act(y)
    y = _FrozenNorm.apply(x, module.running_mean, module.running_var, weight, bias, module.eps, top)
    return y if act is None or top is not None else act(y)


def frozen_forward_for(module: nn.Module) -> Callable[..., Tensor] | None:
    """The fast forward of a frozen batch norm, or None where its class computes more than is known here."""
    kind = type(module)
    plain = kind.forward is nn.modules.batchnorm._BatchNorm.forward and not hasattr(module, "act")
    timm = (kind.__module__, kind.__name__) == ("timm.layers.norm_act", "BatchNormAct2d")
    if timm and not isinstance(getattr(module, "drop", None), nn.Identity):
        return None
    return norm_forward if (plain or timm) and "forward" not in vars(module) else None
