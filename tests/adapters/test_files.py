"""Adapter folders: bytes, damage, and bases that are not the one."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from medlora.adapters import (
    SSF,
    BitFit,
    DoRA,
    Full,
    LoRA,
    LoRAFA,
    Method,
    NormTuning,
    Probe,
    attach,
    fingerprint,
    load,
    read_info,
)
from medlora.errors import MedloraError


def net(seed: int = 0, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 6, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 2),
    ).eval()  # fmt: skip


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def trained(method: Method, **options: object) -> tuple[nn.Module, object]:
    model = net()
    adapter = attach(model, method, example=X, train_head="6", **options)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()
    model.eval()
    return model, adapter


METHODS = [
    LoRA(rank=2),
    LoRA(rank=2, targets=["0"], dropout=0.5),
    DoRA(rank=2),
    LoRAFA(rank=2),
    SSF(),
    BitFit(),
    NormTuning(),
    Probe(),
    Full(),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("batchnorm", ["frozen", "adapt"])
def test_every_method_saves_loads_and_comes_off(method: Method, batchnorm: str, tmp_path: Path) -> None:
    base = net()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    model, adapter = trained(method, batchnorm=batchnorm)
    y = model(X)
    assert not torch.equal(y, base(X))
    adapter.save(tmp_path / "a", info={"backbone": "net", "threshold": 0.5})
    adapter.save(tmp_path / "b", info={"backbone": "net", "threshold": 0.5})
    for file in ("adapter_config.json", "adapter_model.safetensors", "medlora.json", "README.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    info = read_info(tmp_path / "a")
    assert info["threshold"] == 0.5
    assert Method.from_dict(info["method"]).to_dict() == method.to_dict()
    fresh = net()
    loaded = load(fresh, tmp_path / "a")
    assert torch.equal(fresh(X), y)
    assert {k for k, _ in loaded.named_tensors().items()} == {k for k, _ in adapter.named_tensors().items()}
    with loaded.disabled():
        assert torch.equal(fresh(X), base(X))
    loaded.merge()
    torch.testing.assert_close(fresh(X), y)
    loaded.detach()
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())


def test_saving_again_from_a_merged_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    _, adapter = trained(LoRA(rank=2))
    adapter.save(tmp_path / "a")
    adapter.merge()
    adapter.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (lambda: net(seed=1), "other weights"),
        (lambda: net(width=12), "other shapes"),
        (lambda: nn.Sequential(*net(), nn.Linear(2, 2)), "another architecture"),
        (lambda: net().double(), "number format"),
    ],
)
def test_another_base_is_refused_with_the_difference(other: object, word: str, tmp_path: Path) -> None:
    _, adapter = trained(LoRA(rank=2, targets=["3"]))
    adapter.save(tmp_path / "a")
    model = other()
    keys = list(model.state_dict())
    with pytest.raises(MedloraError, match=word):
        load(model, tmp_path / "a")
    assert list(model.state_dict()) == keys


def test_override_attaches_to_other_weights(tmp_path: Path) -> None:
    _, adapter = trained(LoRA(rank=2))
    adapter.save(tmp_path / "a")
    load(net(seed=1), tmp_path / "a", override=True)


def damage_truncate(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def damage_json(folder: Path) -> None:
    (folder / "medlora.json").write_text('{"format": 1,')


def damage_version(folder: Path) -> None:
    info = json.loads((folder / "medlora.json").read_text())
    (folder / "medlora.json").write_text(json.dumps(info | {"format": 99}))


def damage_target(folder: Path) -> None:
    info = json.loads((folder / "medlora.json").read_text())
    info["targets"][0]["path"] = "../../x"
    (folder / "medlora.json").write_text(json.dumps(info))


def damage_key(folder: Path) -> None:
    info = json.loads((folder / "medlora.json").read_text())
    del info["base"]
    (folder / "medlora.json").write_text(json.dumps(info))


def damage_link(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / "adapter_model.safetensors").replace(outside)
    (folder / "adapter_model.safetensors").symlink_to(outside)


def damage_missing(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_truncate, damage_json, damage_version, damage_target, damage_key, damage_link, damage_missing],
    ids=lambda f: f.__name__,
)
def test_damage_is_named(damage: object, tmp_path: Path) -> None:
    _, adapter = trained(LoRA(rank=2))
    adapter.save(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(MedloraError):
        load(net(), tmp_path / "a")


def test_no_adapter_here(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(MedloraError):
            read_info(folder)
        with pytest.raises(MedloraError):
            load(net(), folder)


def test_a_folder_with_content_is_not_written_to(tmp_path: Path) -> None:
    _, adapter = trained(LoRA(rank=2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(MedloraError, match="already exists"):
        adapter.save(tmp_path / "full")
    (tmp_path / "empty").mkdir()
    adapter.save(tmp_path / "empty")
    with pytest.raises(MedloraError, match="JSON"):
        adapter.save(tmp_path / "c", info={"x": object()})
    with pytest.raises(MedloraError, match="format"):
        adapter.save(tmp_path / "c", info={"format": 2})
    assert not (tmp_path / "c").exists()


def test_fingerprint_leaves_head_and_adapter_out_and_is_the_same_elsewhere() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3)
    mark = fingerprint(model)
    torch.manual_seed(0)
    code = (
        "import torch, timm; from medlora.adapters import fingerprint; torch.manual_seed(0);"
        "print(fingerprint(timm.create_model('resnet10t', num_classes=3)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == mark
    )
    adapter = attach(model, LoRA(), example=torch.randn(1, 3, 64, 64))
    for p in adapter.parameters():
        p.data.normal_()
    assert fingerprint(model) == mark
    adapter.merge()
    assert fingerprint(model) == mark
    adapter.detach()
    model.fc.weight.data.zero_()
    assert fingerprint(model) == mark
    copied = copy.deepcopy(model)
    copied.layer1[0].conv1.weight.data[0, 0, 0, 0] += 1e-3
    assert fingerprint(copied) != mark
