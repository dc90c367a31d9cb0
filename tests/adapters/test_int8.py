"""Adapters on a base held as int8."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from medlora.adapters import Bank, DoRA, Full, LoRA, attach, load, quantize
from medlora.errors import MedloraError

OPTIONS = {
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 2}, 32, ("attention", "mlp")),
    "resnet10t": ({}, 64, ("conv",)),
    "beit_base_patch16_224": ({"img_size": 32, "depth": 1}, 32, ("attention.q", "attention.v", "mlp")),
}


def pair(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """The model held as int8, and a float model with the same weights as they read."""
    torch.manual_seed(0)
    options, size, _ = OPTIONS[name]
    model = timm.create_model(name, num_classes=3, **options).eval()
    whole = copy.deepcopy(model)
    paths = quantize(model)
    for path in paths:
        weight = model.get_submodule(path).weight
        original = whole.get_submodule(path).weight
        step = original.abs().flatten(1).amax(1) / 127
        assert ((weight - original).abs().flatten(1).amax(1) <= 0.51 * step).all()
        original.data.copy_(weight)
    return model, whole, torch.randn(2, 3, size, size)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_adapter_on_int8_trains_as_on_the_float_weights_it_reads(name: str, tmp_path: Path) -> None:
    model, whole, x = pair(name)
    held = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert held < 0.35 * sum(t.numel() * t.element_size() for t in whole.state_dict().values())
    assert torch.equal(model(x), whole(x))
    bare = copy.deepcopy(model)
    method = LoRA(rank=2, targets=OPTIONS[name][2])
    ours, theirs = attach(model, method, example=x), attach(whole, method, example=x)
    for tensor in ours.parameters():
        tensor.data.add_(torch.randn_like(tensor), alpha=0.05)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(model(x), whole(x))
    for net in (model, whole):
        net(x).square().sum().backward()
    for (key, a), b in zip(ours.named_tensors().items(), theirs.named_tensors().values(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6 + 1e-4 * float(b.grad.abs().max()), msg=key)
    y = model(x).detach()
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    assert torch.equal(torch.load(stored, weights_only=False)(x), y)
    assert torch.equal(copy.deepcopy(model)(x), y)
    ours.merge()
    torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-5)
    ours.unmerge()
    assert torch.equal(model(x), y)
    ours.save(tmp_path / "a")
    load(copy.deepcopy(bare), tmp_path / "a")
    theirs.detach()
    with pytest.raises(MedloraError, match="another base"):
        load(whole, tmp_path / "a")
    ours.detach()
    assert list(model.state_dict()) == list(bare.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), bare.state_dict().values(), strict=True))
    assert torch.equal(model(x), bare(x))


def test_a_bank_on_int8_runs_a_mixed_batch() -> None:
    model, _, x = pair("resnet10t")
    bank, want = Bank(model), []
    for i, method in enumerate((LoRA(rank=2), DoRA(rank=2))):
        adapter = attach(model, method, example=x)
        for tensor in adapter.parameters():
            tensor.data.add_(torch.rand_like(tensor), alpha=0.05)
        with torch.no_grad():
            want.append(model(x[i : i + 1]))
        bank.add(str(i), adapter)
    torch.testing.assert_close(bank.run(x, ["0", "1"]), torch.cat(want), rtol=1e-4, atol=1e-5)


def test_what_int8_cannot_do_is_refused() -> None:
    model, _, x = pair("resnet10t")
    with pytest.raises(MedloraError, match="int8"):
        attach(model, Full(), example=x)
    attach(model, LoRA(), example=x)
    with pytest.raises(MedloraError, match="already"):
        quantize(model)


@pytest.mark.filterwarnings("ignore")
def test_a_packed_model_of_torch_is_refused_with_the_way_out() -> None:
    quantization = pytest.importorskip("torch.ao.quantization", reason="newer torch has it in torchao alone")
    packed = quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), {nn.Linear})
    with pytest.raises(MedloraError, match="packs its weight for inference"):
        attach(packed, LoRA(), example=torch.randn(1, 4), train_head=False)
