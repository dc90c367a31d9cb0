"""Agreement with Hugging Face PEFT where PEFT is right: outputs, gradients, and files both ways."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from medlora.adapters import DoRA, LoRA, attach, load, read_info
from medlora.errors import MedloraError


class Net(nn.Module):
    """Linear, 1×1, 3×3 and strided convolutions, batch norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.wide = nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(24)
        self.point = nn.Conv2d(24, 16, 1)
        self.strided = nn.Conv2d(16, 20, 1, stride=2)
        self.body = nn.Linear(20, 28)
        self.head = nn.Linear(28, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = self.bn(self.wide(x)).relu()
        x = self.strided(self.point(x).relu()).relu().mean((2, 3))
        return self.head(self.body(x).relu())


PATHS = ("wide", "point", "strided", "body")


def pair(method: LoRA) -> tuple[nn.Module, nn.Module, object]:
    """The same net and the same update, ours and PEFT's, in double precision."""
    torch.manual_seed(0)
    net = Net().double().eval()
    net.bn.running_mean.normal_()
    net.bn.running_var.uniform_(0.5, 2)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        target_modules=list(PATHS),
        modules_to_save=["head"],
        use_rslora=method.rslora,
        use_dora=isinstance(method, DoRA),
        rank_pattern=dict(method.rank_for),
        alpha_pattern=dict(method.alpha_for),
    )
    theirs = get_peft_model(copy.deepcopy(net), config, autocast_adapter_dtype=False).eval()
    adapter = attach(net, method, example=torch.randn(2, 3, 16, 16).double(), train_head="head")
    own = adapter.named_tensors()
    for path in PATHS:
        layer = theirs.base_model.model.get_submodule(path)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        b.data.normal_(0, 0.1)
        own[f"{path}.lora_A.weight"].data.copy_(a.data)
        own[f"{path}.lora_B.weight"].data.copy_(b.data.flatten(1))
    return net, theirs, adapter


METHODS = [
    LoRA(rank=4, alpha=8, targets=PATHS),
    LoRA(rank=4, alpha=8, targets=PATHS, rslora=True),
    LoRA(rank=4, alpha=8, targets=PATHS, rank_for={"point": 2}, alpha_for={"body": 3}),
    DoRA(rank=4, alpha=8, targets=PATHS),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{m.rslora}-{len(m.rank_for)}")
@pytest.mark.parametrize("size", [6, 40])  # few positions: gradients by way of dW; many: by r-wide products
def test_outputs_and_gradients_are_pefts(method: LoRA, size: int) -> None:
    ours, theirs, adapter = pair(method)
    x = torch.randn(3, 3, size, size).double()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = ours(a), theirs(b)
    torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (z * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)
    grads = {k: t.grad for k, t in adapter.named_tensors().items()}
    for path in PATHS:
        layer = theirs.base_model.model.get_submodule(path)
        for name in ("A", "B"):
            theirs_grad = getattr(layer, f"lora_{name}")["default"].weight.grad
            torch.testing.assert_close(
                grads[f"{path}.lora_{name}.weight"],
                theirs_grad.view_as(grads[f"{path}.lora_{name}.weight"]),
                rtol=1e-8,
                atol=1e-9,
            )
        if isinstance(method, DoRA):
            mine = grads[f"{path}.lora_magnitude_vector"]
            torch.testing.assert_close(
                mine, layer.lora_magnitude_vector["default"].weight.grad.view_as(mine), rtol=1e-8, atol=1e-9
            )
    head = theirs.base_model.model.head.modules_to_save["default"]
    torch.testing.assert_close(grads["head.weight"], head.weight.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{m.rslora}-{len(m.rank_for)}")
def test_files_are_read_both_ways(method: LoRA, tmp_path: Path) -> None:
    ours, theirs, adapter = pair(method)
    x = torch.randn(3, 3, 24, 24).double()
    for p in adapter.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.01)
    torch.manual_seed(0)
    base = Net().double().eval()
    base.bn.running_mean.normal_()
    base.bn.running_var.uniform_(0.5, 2)

    adapter.save(tmp_path / "ours")
    assert read_info(tmp_path / "ours")["peft"] == {"loads": True, "because": []}
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "ours", autocast_adapter_dtype=False).eval()
    torch.testing.assert_close(loaded(x), ours(x), rtol=1e-9, atol=1e-9)

    theirs.save_pretrained(tmp_path / "theirs")
    mine = copy.deepcopy(base)
    load(mine, tmp_path / "theirs")
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-9, atol=1e-9)


def test_adapted_batch_norm_loads_in_peft(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = Net()
    net = copy.deepcopy(base)
    adapter = attach(net, LoRA(targets="conv"), example=torch.randn(2, 3, 16, 16), train_head="head", batchnorm="adapt")
    net.train()
    for _ in range(3):
        net(torch.randn(4, 3, 16, 16) * 3 + 1)
    adapter.save(tmp_path / "a")
    net.eval()
    x = torch.randn(3, 3, 16, 16)
    theirs = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "a").eval()
    torch.testing.assert_close(theirs(x), net(x), rtol=1e-5, atol=1e-5)
    mine = copy.deepcopy(base).eval()
    load(mine, tmp_path / "a")
    assert torch.equal(mine(x), net(x))
    adapter.detach()
    assert torch.equal(net.bn.running_mean, base.bn.running_mean)


@pytest.mark.parametrize(
    ("layer", "targets", "word"),
    [
        (nn.Conv2d(8, 8, 3, groups=8, padding=1), "0", "grouped"),
        (nn.Conv2d(8, 8, 3, padding="same"), "0", "padding"),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), "0", "dilation"),
    ],
)
def test_peft_refuses_what_it_would_compute_differently(
    layer: nn.Module, targets: str, word: str, tmp_path: Path
) -> None:
    net = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(2, 8, 6, 6)
    net(x)
    base = copy.deepcopy(net)
    adapter = attach(net, LoRA(rank=2, targets=targets), example=x, train_head="2")
    for key, tensor in adapter.named_tensors().items():
        if "lora_B" in key:
            tensor.data.normal_()
    adapter.save(tmp_path / "a")
    info = read_info(tmp_path / "a")["peft"]
    assert not info["loads"]
    assert word in info["because"][0]
    with pytest.raises((KeyError, ValueError)):
        PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "a")
    load(base, tmp_path / "a")
    assert torch.equal(base(x), net(x))


def test_other_peft_types_are_refused(tmp_path: Path) -> None:
    from peft import IA3Config

    theirs = get_peft_model(Net(), IA3Config(target_modules=["body"], feedforward_modules=[]))
    theirs.save_pretrained(tmp_path / "ia3")
    with pytest.raises(MedloraError, match="IA3"):
        load(Net(), tmp_path / "ia3")


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_peft_adapter_of_a_changed_base_is_refused(init: str, tmp_path: Path) -> None:
    """PiSSA and OLoRA take part of the base away: their factors on the base as it is are another model."""
    theirs = get_peft_model(Net(), LoraConfig(target_modules=["body"], init_lora_weights=init))
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.raises(MedloraError, match="init_lora_weights"):
        load(Net(), tmp_path / "theirs")


@pytest.mark.parametrize("damage", [{"r": "many"}, {"alpha_pattern": {"(": 2}}, {"alpha_pattern": [1]}, {"r": None}])
def test_a_damaged_peft_configuration_is_named(damage: dict, tmp_path: Path) -> None:
    theirs = get_peft_model(Net(), LoraConfig(target_modules=["body"]))
    theirs.save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    net = Net()
    with pytest.raises(MedloraError):
        load(net, tmp_path / "theirs")
    assert type(net.body) is nn.Linear
