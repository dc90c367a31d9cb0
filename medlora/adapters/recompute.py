"""LoRA-FA's saving taken one layer further: what the layer before an activation gave is computed again, not kept.

An activation keeps its input for the backward pass. Where that is the output of a linear layer with LoRA-FA, which
keeps nothing of its own input, the layer's input is kept in its place, and the output formed again when the gradient
comes (Chen et al. 2016, arXiv 1604.06174, for one layer). In the MLP of a transformer the output is four times as wide
as the input, and the largest thing that a frozen block keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from medlora.adapters import fast
from medlora.adapters.derive import plain_class
from medlora.adapters.updates import LowRank

_MADE_BY = "_medlora_made_by"  # attribute of a tensor on its way from the layer to the activation


def pairs(modules: Mapping[str, nn.Module], updates: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Paths of linear layers with LoRA-FA that widen their input, each with an activation that may follow it.

    Such is any activation of torch or timm beside the layer that has no parameters, is not random and does not work in
    place. Whether it follows is seen as the model runs.
    """
    for path, chains in updates.items():
        if not _widens(modules[path], chains):
            continue
        parent = path.rpartition(".")[0]
        for name, sibling in modules[parent].named_children():
            if _may_follow(sibling):
                yield path, f"{parent}.{name}" if parent else name


def _widens(module: Any, chains: Any) -> bool:
    chain = list(chains["weight"]) if set(chains) == {"weight"} else []
    thin = all(type(update) is LowRank and not update.A.requires_grad for update in chain)
    if not (chain and thin and fast.forward_for(module, chain) is fast.linear_forward):
        return False
    return module.weight.shape[0] > module.weight.shape[1]


def _may_follow(module: nn.Module) -> bool:
    if not type(module).__module__.rpartition(".")[2].startswith("activation") or isinstance(module, nn.RReLU):
        return False
    bare = not any(True for _ in module.children()) and not module._parameters and not module._buffers
    return bare and not getattr(module, "inplace", False) and "forward" not in vars(module)


def linear_forward(module: Any, x: Tensor) -> Tensor:
    """As :func:`medlora.adapters.fast.linear_forward`; the activation behind learns what its input was made from."""
    y = fast.linear_forward(module, x)
    dropping = module.training and any(update.dropout for update in module._modules["updates"]["weight"])
    if fast.records() and y.requires_grad and not (dropping or torch.compiler.is_compiling()):
        setattr(y, _MADE_BY, (module, x.detach(), x._version))
    return y


def activation_forward(module: Any, x: Tensor) -> Tensor:
    """The module's own forward; where ``x`` comes from :func:`linear_forward`, nothing is kept of it."""
    user: Any = plain_class(module)
    made_by = getattr(x, _MADE_BY, None)
    if made_by is None or not fast.records():
        return user.forward(module, x)
    layer, inputs, version = made_by
    if x._version or inputs._version != version:  # changed in place on the way
        return user.forward(module, x)
    pieces, factors = fast._pieces(layer._modules["updates"]["weight"])
    weight = layer._parameters["weight"]
    y: Tensor = _Activation.apply(
        x, lambda t: user.forward(module, t), inputs, weight, fast._scales(layer), layer.bias, pieces, *factors
    )
    return y


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, act: Any, inputs: Tensor, weight: Tensor, scales: Any, bias: Any, pieces: Any, *f: Tensor
    ) -> Tensor:
        ctx.act, ctx.pieces, ctx.dtype = act, pieces, x.dtype
        ctx.save_for_backward(inputs, weight, scales, bias, *f)
        y: Tensor = act(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        inputs, weight, scales, bias, *factors = ctx.saved_tensors
        full = fast._updated(weight, scales, ctx.pieces, factors, ctx.dtype)
        x = F.linear(inputs.to(ctx.dtype), full, None if bias is None else bias.to(ctx.dtype)).requires_grad_()
        with torch.enable_grad():
            (dx,) = torch.autograd.grad(ctx.act(x), x, grad)
        return dx, *[None] * (6 + len(factors))
