"""Attaching a method to a model: plan, check, apply; a failure leaves the model untouched."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medlora.adapters.adapter import Adapter, Owned, Site, adapter_of
from medlora.adapters.derive import stored
from medlora.adapters.head import chosen_head
from medlora.adapters.methods import SSF, BitFit, DoRA, Full, LoRA, LoRAFA, Method, NormTuning, Probe
from medlora.adapters.proof import probe
from medlora.adapters.targets import Target, check_names, select, setting
from medlora.adapters.updates import LowRank, Scale, ScaleShift, WeightDecomposed
from medlora.errors import MedloraError

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
)


def attach(
    model: nn.Module,
    method: Method,
    example: Any = None,
    train_head: bool | str | Sequence[str] = True,
    batchnorm: str | None = None,
) -> Adapter:
    """Attach ``method`` to ``model``: everything is frozen but the update and the head.

    Args:
        model: any module; for timm models the head and the probe's input are known.
        method: e.g. ``LoRA(rank=8)``.
        example: an input of the model (a tensor, or a tuple of arguments) for the proof that the forward pass reads
            every target. Without it the input comes from ``model.pretrained_cfg``; where there is neither, no proof
            is made and ``Adapter.proved`` stays False.
        train_head: True for the classifier that the model names, the path of another, or False.
        batchnorm: "frozen" (statistics stay as they are, after ``model.train()`` too) or "adapt" (they follow the
            data and are saved with the adapter). Frozen by default, but for :class:`Full`.

    Raises:
        MedloraError: the model has an adapter already, a target matches nothing, or the forward pass does not read it.
    """
    head = chosen_head(model, train_head if isinstance(train_head, (bool, str)) else tuple(train_head))
    targets = _targets(model, method, head) if isinstance(method, (LoRA, SSF)) else []
    adapter = plan(model, method, targets, head, batchnorm)
    adapter._activate()
    try:
        probe(adapter, example)
    except BaseException:
        adapter.detach()
        raise
    if adapter.silent:
        warnings.warn(
            f"{len(adapter.silent)} targets have no gradient at the probe input, as behind a gain that starts at zero: "
            f"{', '.join(t.path for t in adapter.silent[:5])}{' …' if len(adapter.silent) > 5 else ''}",
            stacklevel=2,
        )
    return adapter


def plan(
    model: nn.Module, method: Method, targets: list[Target], head: tuple[str, ...], batchnorm: str | None
) -> Adapter:
    """The adapter, complete but not yet active; the model is untouched."""
    if adapter_of(model) is not None:
        raise MedloraError(
            f"{type(model).__name__} has an adapter already",
            "detach it first: adapter.detach(), or copy the model before",
        )
    if batchnorm is None:
        batchnorm = "adapt" if isinstance(method, Full) else "frozen"
    if batchnorm not in ("frozen", "adapt"):
        raise MedloraError(f"batchnorm={batchnorm!r} is unknown", 'use "frozen" or "adapt"')
    if isinstance(method, Probe) and not head:
        raise MedloraError("a linear probe trains the head, and there is none", "give train_head=True or its path")
    if isinstance(method, Full) and any(p.dtype is torch.int8 for p in model.parameters()):
        raise MedloraError("a base held as int8 cannot be trained in full", "use a low-rank method, or the float model")
    modules = dict(model.named_modules())
    updates = _updates(modules, method, targets)
    norms = [
        p for p, m in modules.items() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    frozen = set(norms) if batchnorm == "frozen" else set()
    sites = [Site(p, m, updates.get(p), p in frozen) for p, m in modules.items() if p in updates or p in frozen]
    owned = [
        Owned(f"{path}.{name}" if path else name, module, name, tensor, _copy(tensor, trained))
        for path, module, name, tensor, trained in _owned(modules, method, head, set(norms) - frozen)
    ]
    return Adapter(model, method, targets, head, batchnorm, sites, owned)


def _targets(model: nn.Module, method: LoRA | SSF, head: tuple[str, ...]) -> list[Target]:
    wanted: Any = method.targets
    if isinstance(method, SSF) and wanted == "auto":
        from medlora.adapters.roles import weights

        wanted = list(dict.fromkeys(w.path for w in weights(model, head) if w.role != "position"))
    targets = select(model, head, wanted, method.last)
    if isinstance(method, (DoRA, SSF)) and any(t.part for t in targets):
        raise MedloraError(f"{method.name} works on whole weights, not on a part of a fused one", "use attention")
    if isinstance(method, LoRA):
        check_names(method.rank_for, targets)
        check_names(method.alpha_for, targets)
    return targets


def _updates(modules: dict[str, nn.Module], method: Method, targets: list[Target]) -> dict[str, nn.ModuleDict]:
    """New updates by module path and parameter name."""
    chains: dict[str, dict[str, nn.ModuleList]] = {}
    for target in targets:
        module = modules[target.path]
        weight: Tensor = stored(module, target.name)
        names = chains.setdefault(target.path, {})
        if isinstance(method, LoRA):
            rank = setting(target, method.rank, method.rank_for)
            scale = method.scale(rank, setting(target, method.alpha, method.alpha_for))
            if isinstance(method, DoRA):
                update: nn.Module = WeightDecomposed(weight, rank, scale, method.dropout)
            else:
                train_a = not isinstance(method, LoRAFA)
                update = LowRank(weight, rank, scale, target.rows, target.part, method.dropout, train_a)
            names.setdefault(target.name, nn.ModuleList()).append(update)
        else:
            gamma = Scale(weight, dim=1 if getattr(module, "transposed", False) and module.groups == 1 else 0)
            names[target.name] = nn.ModuleList([gamma])
            bias = module._parameters.get("bias")
            if bias is not None and target.name == "weight" and bias.numel() == gamma.gamma.numel():
                names["bias"] = nn.ModuleList([ScaleShift(bias, gamma)])
    if isinstance(method, SSF) and method.targets == "auto" and method.last is None:
        for path, module in modules.items():
            if isinstance(module, NORMS) and module.weight is not None:
                gamma = Scale(module.weight)
                chains[path] = {"weight": nn.ModuleList([gamma])}
                if module.bias is not None:
                    chains[path]["bias"] = nn.ModuleList([ScaleShift(module.bias, gamma)])
    dicts = {path: nn.ModuleDict(names) for path, names in chains.items()}
    for path, chain in dicts.items():
        chain.train(modules[path].training)
    return dicts


def _owned(
    modules: dict[str, nn.Module], method: Method, head: tuple[str, ...], adapting: set[str]
) -> list[tuple[str, nn.Module, str, Tensor, bool]]:
    """Tensors that the adapter has of its own, and whether they are trained."""
    found: list[tuple[str, nn.Module, str, Tensor, bool]] = []
    for path, module in modules.items():
        in_head = any(path == h or path.startswith(h + ".") for h in head)
        for name, parameter in module._parameters.items():
            trained = (
                in_head
                or isinstance(method, Full)
                or (isinstance(method, BitFit) and (name == "bias" or name.endswith("_bias")))
                or (isinstance(method, NormTuning) and isinstance(module, NORMS))
            )
            # PEFT saves a batch norm whole or not at all
            if parameter is not None and (trained or (path in adapting and isinstance(method, LoRA))):
                found.append((path, module, name, parameter, trained))
        if path in adapting:
            found += [(path, module, n, b, False) for n, b in module._buffers.items() if b is not None]
    return found


def _copy(tensor: Tensor, trained: bool) -> Tensor:
    copy = tensor.detach().clone()
    if not isinstance(tensor, nn.Parameter):
        return copy
    return nn.Parameter(copy, requires_grad=trained and tensor.is_floating_point())
