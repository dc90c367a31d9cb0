"""What every backbone must keep when adapted; used by the tests over families, timm's registry and MONAI's nets."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from medlora.adapters import Adapter, LoRA, attach, load


def wake(model: nn.Module) -> None:
    """Give gains that start at zero (layer scale, last batch norm of a residual) a value, so that gradients flow."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.numel() and not parameter.detach().any() and not name.endswith("bias"):
            parameter.data.copy_(0.2 + 0.1 * torch.rand(parameter.shape, generator=generator))
        elif (parameter.dim() <= 1 and parameter.detach().abs().max() < 1e-3 and not name.endswith("bias")) or (
            "gamma" in name and parameter.detach().abs().max() < 1e-3
        ):
            parameter.data.fill_(0.2)


def settle(model: nn.Module, x: torch.Tensor) -> None:
    """Give batch norms the statistics of ``x``: with those of a fresh model, deep nets answer the same to any image."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
        norm.register_forward_pre_hook(_skip_single)
    with torch.no_grad():
        model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
        norm._forward_pre_hooks.clear()


def _skip_single(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """A channel with one or two values has no variance worth keeping."""
    if inputs[0].numel() <= 2 * inputs[0].shape[1]:
        norm.eval()


def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The model's answer as one flat tensor, whatever its structure."""

    def flat(y: object) -> list[torch.Tensor]:
        if isinstance(y, torch.Tensor):
            return [y.flatten()]
        values = y.values() if isinstance(y, dict) else y
        return [t for item in values for t in flat(item)]  # type: ignore[attr-defined]

    return torch.cat(flat(model(x)))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


def perturb(adapter: Adapter) -> None:
    """Give every B (and the head) a value of the size that training gives it."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, tensor in adapter.named_tensors().items():
            if ".lora_B" in key:
                size = 0.05 / math.sqrt(tensor.shape[1])
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * size)


def check(model: nn.Module, x: torch.Tensor, targets: object, folder: object = None, **options: object) -> Adapter:
    """Every clause of the contract on one model; ``folder`` (a path) adds save and load. The adapter, active."""
    model.eval()
    wake(model)
    keys = list(model.state_dict())
    base = {k: v.clone() for k, v in model.state_dict().items()}
    classes = [type(m) for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        y0 = outputs(model, x)
        frozen = outputs(model.requires_grad_(False), x)  # PyTorch may choose another kernel for it, of other last bits
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    fresh = copy.deepcopy(model) if folder is not None else None

    adapter = attach(model, LoRA(rank=4, targets=targets), example=x, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(outputs(model, x), frozen), "a new adapter is not the identity"
    assert relative(outputs(model, x), y0) <= 1e-4  # with gradients some nets choose other kernels (attention)

    perturb(adapter)
    y = outputs(model, x)
    assert not torch.equal(y, y0), "the adapter has no effect"
    generator = torch.Generator().manual_seed(3)
    (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum().backward()
    dead = [k for k, t in adapter.named_tensors().items() if t.requires_grad and t.grad is None]
    assert not dead, f"no gradient: {dead}"
    zero = [k for k, t in adapter.named_tensors().items() if ".lora_B" in k and not t.grad.any()]  # type: ignore[union-attr]
    assert len(zero) <= 0.5 * len(adapter.targets), f"zero gradients: {zero}"
    adapter.zeros = zero  # type: ignore[attr-defined]
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        y = outputs(model, x)
        adapter.merge()
        merged = relative(outputs(model, x), y)
        assert merged <= 1e-5, f"merged differs from adapted by {merged}"
        adapter.unmerge()
        assert torch.equal(outputs(model, x), y), "unmerge changed the adapted model"
        with adapter.disabled():
            assert torch.equal(outputs(model, x), frozen), "disabled differs from the base"
        if folder is not None:
            adapter.save(folder)  # type: ignore[arg-type]
            load(fresh, folder)  # type: ignore[arg-type]
            assert torch.equal(outputs(fresh, x), y), "the loaded adapter answers differently"  # type: ignore[arg-type]
        adapter.detach()
        assert list(model.state_dict()) == keys
        assert [type(m) for m in model.modules()] == classes
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(torch.equal(v, base[k]) for k, v in model.state_dict().items()), "detach left a changed tensor"
        assert torch.equal(outputs(model, x), y0)
        assert not any("updates" in name for name, _ in model.named_modules())
    return adapter
