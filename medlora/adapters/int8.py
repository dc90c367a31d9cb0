"""A frozen base held as int8: a quarter of the memory, the same modules, adapters as on any other base."""

from __future__ import annotations

import torch
from torch import nn

from medlora.adapters.adapter import adapter_of
from medlora.adapters.derive import rederive
from medlora.adapters.head import head_paths
from medlora.adapters.roles import weights
from medlora.errors import MedloraError


@torch.no_grad()
def quantize(model: nn.Module, head: tuple[str, ...] | None = None) -> list[str]:
    """Hold the weights of linear layers, convolutions and attention as int8, in place; the head stays as it is.

    Each row w of a weight (each output channel) becomes round(w / s) with s = max|w| / 127, and is read as s times
    that. Computation stays in the type that the weight had. The base is another one then, with its own fingerprint:
    an adapter belongs either to the float base or to this one.

    Args:
        model: a model without an adapter.
        head: paths of the modules to leave as they are; by default those that the model names as its classifier.

    Returns:
        The paths of the modules whose weights are held as int8.

    Raises:
        MedloraError: the model has an adapter, or a weight is not finite.
    """
    if adapter_of(model) is not None:
        raise MedloraError("the model has an adapter already", "quantize the base first, then attach")
    found = weights(model, head_paths(model) if head is None else head)
    modules = dict(model.named_modules())
    plan = []
    for weight in found:
        tensor = modules[weight.path]._parameters[weight.name]
        if tensor is None or not tensor.is_floating_point():
            continue
        scale = tensor.abs().flatten(1).amax(1) / 127
        if not scale.isfinite().all():
            raise MedloraError(f"{weight.path}.{weight.name} is not finite", "load the weights again")
        scale = scale.view(-1, *[1] * (tensor.dim() - 1))
        rounded = (tensor / scale.where(scale > 0, 1)).round().to(torch.int8)
        plan.append((weight.path, weight.name, rounded, scale))
    held: dict[str, tuple[str, ...]] = {}
    for path, name, rounded, scale in plan:
        modules[path]._parameters[name] = nn.Parameter(rounded, requires_grad=False)
        modules[path].register_buffer(f"{name}_scale", scale)
        held[path] = (*held.get(path, ()), name)
    for path, names in held.items():
        rederive(modules[path], int8=names)
    return list(held)
