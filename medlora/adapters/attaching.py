"""Attaching a method to a model: plan, check, apply; a failure leaves the model untouched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn

from medlora.adapters.adapter import Adapter, Site, Substitute, adapter_of
from medlora.adapters.derive import is_adapted
from medlora.adapters.head import chosen_head, within
from medlora.adapters.methods import LoRA, LoRAFA, Method
from medlora.adapters.norms import norms, statistics
from medlora.adapters.proof import probe
from medlora.adapters.recompute import pairs
from medlora.adapters.sharding import require_whole
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
    head = chosen_head(model, train_head)
    adapter = plan(model, method, method.find(model, head), head, batchnorm)
    adapter._activate()
    try:
        probe(adapter, example)
    except BaseException:
        adapter.detach()
        raise
    return adapter


def plan(
    model: nn.Module, method: Method, targets: list[Target], head: tuple[str, ...], batchnorm: str | None
) -> Adapter:
    """The adapter, complete but not yet active; the model is untouched. Raises what :func:`attach` raises."""
    _check(model)
    batchnorm = method.batchnorm if batchnorm is None else batchnorm
    if batchnorm not in ("frozen", "adapt"):
        raise MedloraError(f"batchnorm={batchnorm!r} is unknown", 'use "frozen" or "adapt"')
    modules = dict(model.named_modules())
    updates = {path: _chains(modules[path], chains) for path, chains in method.updates(modules, targets).items()}
    frozen, adapting = (norms(model), {}) if batchnorm == "frozen" else ({}, norms(model))
    again = set(chain(*pairs(modules, updates))) if isinstance(method, LoRAFA) and method.recompute else set()
    changing = updates.keys() | frozen.keys() | again
    sites = [Site(p, m, updates.get(p), p in frozen, p in again) for p, m in modules.items() if p in changing]
    owned = list(_owned(modules, method, head, adapting))
    owned += [Substitute(p, m, n, b, b.clone()) for p, m, n, b in statistics(adapting)]
    adapter = Adapter(model, method, targets, head, batchnorm, sites, owned)
    if not any(True for _ in adapter.parameters()):
        raise MedloraError(
            f"the method {method.name!r} would train nothing of this {type(model).__name__}, and there is no head",
            "give train_head=True or the path of the head, or take another method",
        )
    return adapter


def _check(model: nn.Module) -> None:
    """Raise where nothing can be attached to ``model``."""
    require_whole(model, "attach to a model")
    for path, module in model.named_modules():
        if adapter_of(module) is not None or is_adapted(module):
            raise MedloraError(
                f"{path or type(model).__name__} has an adapter already",
                "detach it first: adapter.detach(), or copy the model before",
            )
        if name := vars(module).get("_medlora_in_use"):
            raise MedloraError(f"a bank uses its adapter {name!r} in this model", "go back to the base: bank.use(None)")
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
    modules: dict[str, nn.Module], method: Method, head: tuple[str, ...], adapting: dict[str, nn.Module]
) -> Iterator[Substitute]:
    """Copies of what is trained itself, and of norms that follow the data; tied parameters stay tied."""
    copies: dict[int, nn.Parameter] = {}
    for path, module in modules.items():
        in_head = within(path, head)
        for name, p in module._parameters.items():
            trained = p is not None and (in_head or method.trains(module, name))
            # PEFT saves a batch norm whole or not at all
            if p is not None and (trained or (path in adapting and isinstance(method, LoRA))):
                copy = nn.Parameter(p.detach().clone(), trained and p.is_floating_point())
                yield Substitute(path, module, name, p, copies.setdefault(id(p), copy))
