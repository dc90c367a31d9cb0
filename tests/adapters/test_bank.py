"""Several adapters on one base."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from medlora.adapters import LoRA, attach
from medlora.adapters.bank import Bank, combine, truncated
from medlora.errors import MedloraError

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    ).eval()


def adapted(model: nn.Module, seed: int, rank: int = 2) -> object:
    adapter = attach(model, LoRA(rank=rank), example=X, train_head="6")
    torch.manual_seed(seed)
    for p in adapter.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.3)
    return adapter


def test_switching_gives_each_adapters_answers_and_the_base_back(tmp_path: Path) -> None:
    model = base()
    y0, sums = model(X), {}
    bank = Bank(model)
    for seed in range(3):
        other = copy.deepcopy(base())
        adapter = adapted(other, seed)
        sums[f"site{seed}"] = other(X)
        adapter.save(tmp_path / str(seed))
        bank.load(f"site{seed}", tmp_path / str(seed))
    assert torch.equal(model(X), y0)
    for name in ("site1", "site0", "site2", "site1"):
        bank.use(name)
        assert torch.equal(model(X), sums[name])
    bank.use(None)
    assert torch.equal(model(X), y0)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), base().state_dict().values(), strict=True)
    )
    with pytest.raises(MedloraError, match="site1"):
        bank.use("nowhere")
    with pytest.raises(MedloraError, match="already"):
        bank.load("site1", tmp_path / "1")


def test_similarity_is_the_cosine_of_the_updates() -> None:
    model = base()
    bank = Bank(model)
    for name, seed in (("a", 1), ("b", 2)):
        bank.add(name, adapted(model, seed))
    first, second = (torch.cat([d.flatten() for d in bank.deltas(n).values()]) for n in ("a", "b"))
    names, matrix = bank.similarity()
    assert names == ["a", "b"]
    torch.testing.assert_close(
        matrix[0, 1], nn.functional.cosine_similarity(first, second, dim=0), rtol=1e-4, atol=1e-6
    )
    assert matrix[0, 0] == 1


def test_sums_are_exact_and_truncation_is_the_svds() -> None:
    model = base()
    updates = []
    for seed, rank in ((1, 2), (2, 3)):
        adapter = adapted(model, seed, rank)
        updates.append({s.path: s.updates["weight"][0] for s in adapter._sites if s.updates is not None})
        adapter.detach()
    want = {
        p: sum(
            w * u[p].scale * (u[p].B @ u[p].A.flatten(1)).detach() for w, u in zip((0.25, 0.75), updates, strict=True)
        )
        for p in updates[0]
    }
    factors, lost = combine(updates, (0.25, 0.75))
    for path, (a, b) in factors.items():
        torch.testing.assert_close(b @ a.flatten(1), want[path], rtol=1e-5, atol=1e-6)
        assert lost[path] == 0
    for path, (a, b) in factors.items():
        low_a, low_b, share = truncated(a, b, 2)
        u, s, vt = torch.linalg.svd(want[path].double(), full_matrices=False)
        best = (u[:, :2] * s[:2]) @ vt[:2]
        torch.testing.assert_close((low_b @ low_a.flatten(1)).double(), best, rtol=1e-4, atol=1e-5)
        assert share == pytest.approx(float(s[2:].square().sum() / s.square().sum()), rel=1e-4)
