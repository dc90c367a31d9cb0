"""Attaching a method to a model: plan, check, apply; a failure leaves the model untouched."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medlora.adapters.adapter import Adapter, Site, Substitute, adapter_of, norms
from medlora.adapters.derive import is_adapted
from medlora.adapters.head import chosen_head
from medlora.adapters.methods import LoRA, Method
from medlora.adapters.proof import probe
from medlora.adapters.targets import Target
from medlora.errors import MedloraError


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
            every target. Without it the input comes from ``model.pretrained_cfg``; where there is neither, or the
            weights are on the meta device, no proof is made and ``Adapter.proved`` stays False.
        train_head: True for the classifier that the model names, the path of another, or False.
        batchnorm: "frozen" (statistics stay as they are, after ``model.train()`` too) or "adapt" (they follow the
            data and are saved with the adapter). Frozen by default, but for :class:`Full`.

    Raises:
        MedloraError: the model has an adapter already, a target matches nothing, the forward pass does not read it, or
            nothing would be trained.
    """
    if not isinstance(method, Method):
        raise MedloraError(f"{method!r} is no method to adapt a model", "pass one, as in attach(model, LoRA(rank=8))")
    head = chosen_head(model, train_head if isinstance(train_head, (bool, str)) else tuple(train_head))
    adapter = plan(model, method, method.find(model, head), head, batchnorm)
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
    """The adapter, complete but not yet active; the model is untouched.

    Raises:
        MedloraError: the model or a part of it has an adapter already, or nothing would be trained.
    """
    _check(model)
    if batchnorm is None:
        batchnorm = method.batchnorm
    if batchnorm not in ("frozen", "adapt"):
        raise MedloraError(f"batchnorm={batchnorm!r} is unknown", 'use "frozen" or "adapt"')
    modules = dict(model.named_modules())
    updates = {path: _chains(modules[path], chains) for path, chains in method.updates(modules, targets).items()}
    frozen = norms(model).keys() if batchnorm == "frozen" else set()
    adapting = norms(model).keys() - frozen
    sites = [Site(p, m, updates.get(p), p in frozen) for p, m in modules.items() if p in updates or p in frozen]
    copies: dict[int, Tensor] = {}  # tied parameters stay tied
    owned = [
        Substitute(path, module, name, tensor, copies.setdefault(id(tensor), _copy(tensor, trained)))
        for path, module, name, tensor, trained in _owned(modules, method, head, adapting)
    ]
    adapter = Adapter(model, method, targets, head, batchnorm, sites, owned)
    if not any(True for _ in adapter.parameters()):
        raise MedloraError(
            f"the method {method.name!r} would train nothing of this {type(model).__name__}, and there is no head",
            "give train_head=True or the path of the head, or take another method",
        )
    return adapter


def _check(model: nn.Module) -> None:
    """Raise where nothing can be attached to ``model``."""
    for path, module in model.named_modules():
        if adapter_of(module) is not None or is_adapted(module):
            raise MedloraError(
                f"{path or type(model).__name__} has an adapter already",
                "detach it first: adapter.detach(), or copy the model before",
            )
    tensors = dict(model.named_parameters())
    if unknown := next((name for name, p in tensors.items() if nn.parameter.is_lazy(p)), None):
        raise MedloraError(f"{unknown} has no shape yet", "run the model once on an input, then attach")
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in tensors.values()):
        raise MedloraError("in inference mode nothing can be trained", "build the model and attach outside of it")


def _chains(module: nn.Module, updates: dict[str, list[nn.Module]]) -> nn.ModuleDict:
    if hasattr(module, "updates"):
        raise MedloraError(
            f"a {type(module).__name__} has an attribute called updates, which an adapted module needs itself",
            "rename it, or leave the module out of targets=",
        )
    chains = nn.ModuleDict({name: nn.ModuleList(chain) for name, chain in updates.items()})
    return chains.train(module.training)


def _owned(
    modules: dict[str, nn.Module], method: Method, head: tuple[str, ...], adapting: set[str]
) -> Iterator[tuple[str, nn.Module, str, Tensor, bool]]:
    """Tensors that the adapter has of its own, and whether they are trained."""
    for path, module in modules.items():
        in_head = any(path == h or path.startswith(h + ".") for h in head)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            trained = in_head or method.trains(module, name)
            # PEFT saves a batch norm whole or not at all
            if trained or (path in adapting and isinstance(method, LoRA)):
                yield path, module, name, parameter, trained
        if path in adapting:
            yield from ((path, module, n, b, False) for n, b in module._buffers.items() if b is not None)


def _copy(tensor: Tensor, trained: bool) -> Tensor:
    copy = tensor.detach().clone()
    if not isinstance(tensor, nn.Parameter):
        return copy
    return nn.Parameter(copy, requires_grad=trained and tensor.is_floating_point())
