"""Several adapters on one base."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from medlora.adapters import SSF, BitFit, DoRA, LoRA, Method, NormTuning, Probe, attach
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


def perturbed(model: nn.Module, method: Method, x: torch.Tensor, head: str | bool, seed: int, **options: str) -> object:
    adapter = attach(model, method, example=x[:2], train_head=head, **options)
    torch.manual_seed(seed)
    for t in adapter.named_tensors().values():
        if t.is_floating_point():
            t.data.add_(torch.rand_like(t), alpha=0.1)
    return adapter


class Sequence(nn.Module):
    """A transformer that puts the positions first, the samples second."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
        self.out = nn.MultiheadAttention(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x.transpose(0, 1))
        return self.head(self.out(x, x, x)[0].mean(0))


def timm_model(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=2, **options).eval()


def vit() -> nn.Module:
    return timm_model("vit_tiny_patch16_224", img_size=32, depth=2)


def swin() -> nn.Module:
    return timm_model("swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), num_heads=(3, 6))


def regnet() -> nn.Module:
    return timm_model("regnety_002")


MIXED = {
    "convolutions": (base, 8, "6", [LoRA(rank=2), LoRA(rank=3, rslora=True)]),
    "slices": (vit, 32, True, [LoRA(rank=2, targets=("attention.q", "attention.v")), LoRA(rank=1, targets="mlp")]),
    "windows": (swin, 56, True, [LoRA(rank=2, targets=("attention", "mlp")), LoRA(rank=4, targets="attention.v")]),
    "grouped": (regnet, 64, True, [LoRA(rank=2, targets=("conv", "squeeze_excite")), SSF()]),
    "methods": (base, 8, "6", [DoRA(rank=2), SSF(), BitFit(), Probe(), NormTuning()]),
}


@pytest.mark.parametrize("case", MIXED)
def test_a_mixed_batch_answers_as_its_samples_one_by_one(case: str) -> None:
    make, size, head, methods = MIXED[case]
    model = make().double()
    x = torch.randn(7, 3, size, size, generator=torch.Generator().manual_seed(2)).double()
    bank = Bank(model)
    for i, method in enumerate(methods):
        bank.add(str(i), perturbed(model, method, x, head, i, batchnorm="adapt" if i % 2 else "frozen"))
    before = [type(m) for m in model.modules()]
    keys = list(model.state_dict())
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        chosen = [int(n) for n in torch.randint(-1, len(methods), (7,), generator=generator)]
        names = [None if n < 0 else str(n) for n in chosen]
        want = []
        for sample, name in zip(x, names, strict=True):
            bank.use(name)
            with torch.no_grad():
                want.append(model(sample[None]))
        y = bank.run(x, names)
        assert bank.active == names[-1]
        torch.testing.assert_close(y, torch.cat(want), rtol=1e-9, atol=1e-9)
        assert len({tuple(row.tolist()) for row in y.round(decimals=6)}) == 7
    assert [type(m) for m in model.modules()] == before
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("make", [vit, base])
def test_a_mixed_batch_runs_under_autocast(make: Callable[[], nn.Module]) -> None:
    model = make()
    x = torch.randn(3, 3, 32, 32)
    bank = Bank(model)
    for seed in range(2):
        bank.add(str(seed), perturbed(model, LoRA(rank=2), x, "6" if make is base else True, seed))
    names = ["0", "1", "0"]
    with torch.autocast("cpu", torch.bfloat16):
        low = bank.run(x, names)
    assert low.dtype == torch.bfloat16
    whole = bank.run(x, names)
    torch.testing.assert_close(low.float(), whole, rtol=0.1, atol=0.05 * float(whole.abs().max()))


@pytest.mark.parametrize(
    ("make", "x", "method", "head", "word"),
    [
        (
            lambda: timm_model("beit_base_patch16_224", img_size=32, depth=1),
            (3, 3, 32, 32),
            LoRA(targets="attention"),
            True,
            "attn.qkv is not called",
        ),
        (Sequence, (3, 6, 8), LoRA(targets="layer"), "head", "layer does not get the samples"),
        (
            lambda: timm_model("swinv2_tiny_window8_256", img_size=64, window_size=4, depths=(1, 1), num_heads=(3, 6)),
            (3, 3, 64, 64),
            LoRA(targets="position"),
            True,
            "cpb_mlp.* does not get the samples",
        ),
        (
            lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 2)),
            (3, 4, 8),
            LoRA(targets="attention"),
            "1",
            "self_attn.* is not called",
        ),
    ],
    ids=["functional", "positions first", "without samples", "fused kernel"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_cannot_be_mixed_is_refused_by_name(
    make: object, x: tuple, method: Method, head: object, word: str
) -> None:
    torch.manual_seed(0)
    model, batch = make().eval(), torch.randn(*x)
    bank = Bank(model)
    for name in ("a", "b"):
        bank.add(name, perturbed(model, method, batch, head, ord(name)))
    before = model(batch)
    with pytest.raises(MedloraError, match=word):
        bank.run(batch, ["a", "b", None])
    assert torch.equal(model(batch), before)
    with pytest.raises(MedloraError, match="nowhere"):
        bank.run(batch, ["a", "nowhere", None])
    with pytest.raises(MedloraError, match="2 names for 3"):
        bank.run(batch, ["a", "b"])
