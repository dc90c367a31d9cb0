"""Proof of effect: one forward and backward pass shows which targets the model's output depends on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.adapters.adapter import Adapter


def probe(adapter: Adapter, example: Any = None) -> None:
    """Set what ``adapter`` says of the proof; modes, statistics and random numbers stay as they are.

    A target that the output depends on, but not at this input, is a warning.

    Raises:
        MedloraError: the forward pass does not read some targets, or fails on the probe input.
    """
    model = adapter.model
    chains = [
        (site.path, name, update)
        for site in adapter._sites
        for name, chain in (site.updates or {}).items()
        for update in chain
    ]
    inputs = _inputs(model, example)
    if inputs is None or not chains or any(p.is_meta for p in model.parameters()):
        return
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)
    watched = [next(p for p in reversed(list(u.parameters(recurse=False))) if p.requires_grad) for _, _, u in chains]
    called: set[str] = set()
    modules = {site.path: site.module for site in adapter._sites if site.updates is not None}
    hooks = [m.register_forward_pre_hook(lambda *_, p=p: called.add(p)) for p, m in modules.items()]
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            model.eval()
            try:
                output = model(*inputs)
            except Exception as error:
                shapes = ", ".join(str(tuple(t.shape)) for t in _tensors(inputs)) or type(inputs[0]).__name__
                raise MedloraError(
                    f"the model does not run on the probe input ({shapes}): {error}",
                    "pass an input that it takes: attach(…, example=x)",
                ) from error
            total = sum(
                ((t.float() * torch.randn_like(t.float())).sum() for t in _tensors(output)), start=torch.zeros(())
            )
            gradients: Any
            if total.requires_grad:
                gradients = torch.autograd.grad(total, watched, allow_unused=True)
            else:
                gradients = (None,) * len(watched)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    bypassed = [f"{path} ({name})" for (path, name, _), g in zip(chains, gradients, strict=True) if g is None]
    if bypassed:
        raise MedloraError(
            f"the forward pass does not read {len(bypassed)} of {len(chains)} targets, so they would train nothing: "
            f"{', '.join(bypassed[:8])}{' …' if len(bypassed) > 8 else ''}",
            "leave them out of targets=, or pass the example= that uses them",
        )
    silent = {path for (path, _, _), g in zip(chains, gradients, strict=True) if g is not None and not g.any()}
    adapter.silent = [t for t in adapter.targets if t.path in silent]
    adapter.read_elsewhere = set(modules) - called
    adapter.proved = True
    if adapter.silent:
        warnings.warn(
            f"{len(adapter.silent)} targets have no gradient at the probe input, as behind a gain that starts at zero: "
            f"{', '.join(t.path for t in adapter.silent[:5])}{' …' if len(adapter.silent) > 5 else ''}",
            stacklevel=3,  # the caller of attach
        )


def _inputs(model: nn.Module, example: Any) -> tuple[Any, ...] | None:
    if example is not None:
        return tuple(example) if isinstance(example, (tuple, list)) else (example,)
    config = getattr(model, "pretrained_cfg", None) or {}
    size = config.get("input_size")
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if not size or like is None or like.is_meta:
        return None
    grid = getattr(getattr(model, "patch_embed", None), "img_size", None)
    first: Any = dict(model.named_modules()).get(config.get("first_conv") or "")
    channels = first.weight.shape[1] if hasattr(first, "in_channels") else size[0]
    generator = torch.Generator(like.device).manual_seed(0)
    return (like.new_zeros((2, channels, *(grid or size[1:]))).normal_(generator=generator),)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
