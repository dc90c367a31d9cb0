"""Slices of fused weights: attention is linear in the rows called v, and not in those called k (of q some are)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from registry import NAMES, SHORTER

from medlora.adapters import LoRA, attach, roles
from medlora.adapters.roles import ATTENTION_CLASS, ATTENTION_NAMES, weights
from medlora.adapters.targets import select
from medlora.errors import MedloraError

FEW = {
    "gcvit_xxtiny": (224, {}),  # queries of the global blocks come from elsewhere: k | v
    "hiera_tiny_224": (224, {"stages": (1, 1, 1, 1), "embed_dim": 24}),  # twice as many rows where a stage begins
    "shvit_s1": (64, {}),  # fewer rows of q and k than of v
    "botnet26t_256": (256, {}),
    "vit_base_patch16_siglip_224": (224, {"depth": 1}),  # attention pool: q apart, kv fused
    "swin_tiny_patch4_window7_224": (56, {"img_size": 56, "depths": (1, 1), "num_heads": (3, 6)}),
}

# v passes a ReLU, a layer norm, a softmax with k; the softmax runs over the batch
OTHERWISE = ("mobilevitv2", "mvitv2", "davit", "csatv2")


def bent(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """For each slice of one fused weight of each kind: the departure of the attention's output from a line in it."""
    modules = dict(model.named_modules())
    kinds = {}
    for w in weights(model):
        if w.parts and type(modules[w.path]) is not nn.MultiheadAttention:
            holders = [w.path.rsplit(".", n)[0] for n in range(1, w.path.count(".") + 1)]
            holder = next(h for h in holders if re.search(ATTENTION_CLASS, type(modules[h]).__name__))
            kinds.setdefault((type(modules[holder]).__name__, len(w.parts), w.shape[0] == 3 * w.shape[1]), (holder, w))
    found = {}
    for holder, w in kinds.values():
        attention, weight = modules[holder], modules[w.path].weight
        caught: list[tuple] = []
        hook = attention.register_forward_pre_hook(lambda m, a, k, c=caught: c.append((a, k)), with_kwargs=True)
        model(x)
        hook.remove()
        args, kwargs = caught[0]
        base = weight.data.clone()
        for part, (start, stop) in w.parts:
            step = torch.zeros_like(base)
            step[start:stop] = torch.randn(stop - start, *base.shape[1:]).to(base) * base.std()
            ys = [attended(attention, weight, base + t * step, args, kwargs) for t in (0.0, 0.5, 1.0)]
            weight.data.copy_(base)
            change = (ys[2] - ys[0]).abs().max()
            assert change > 0, f"{w.path} {part} has no effect"
            found[f"{w.path}:{part}"] = float((ys[2] - 2 * ys[1] + ys[0]).abs().max() / change)
    return found


def attended(
    attention: nn.Module, weight: torch.Tensor, value: torch.Tensor, args: tuple, kwargs: dict
) -> torch.Tensor:
    """What attention hands to its output projection (its output, where it has none) with ``value`` as fused weight."""
    weight.data.copy_(value)
    out = [m for n, m in attention.named_children() if re.fullmatch(ATTENTION_NAMES["attention.out"], n)]
    given: list[torch.Tensor] = []
    hooks = [m.register_forward_pre_hook(lambda m, a: given.append(a[0])) for m in out]
    y = attention(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return given[0] if given else y


def judge(model: nn.Module, x: torch.Tensor) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        found = bent(model.double().eval(), x.double())
    assert found
    wrong = {k: v for k, v in found.items() if not k.endswith(":q") and (v < 1e-9) != k.endswith(":v")}
    assert not wrong, wrong


@pytest.mark.parametrize("name", FEW)
def test_attention_is_linear_in_the_rows_of_v_alone_not_of_k(name: str) -> None:
    torch.manual_seed(0)
    size, options = FEW[name]
    judge(timm.create_model(name, num_classes=2, **options), torch.randn(1, 3, size, size))


def fused() -> list[str]:
    names = []
    for name in NAMES:
        if timm.is_model(name) and not name.startswith(OTHERWISE):
            with torch.device("meta"):
                model = timm.create_model(name, **SHORTER.get(name, {}))
            if any(w.parts for w in weights(model)):
                names.append(name)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_attention_is_linear_in_the_rows_of_v_over_the_registry() -> None:
    names = fused()
    assert len(names) >= 36
    wrong = {}
    for name in names:
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=2, **SHORTER.get(name, {}))
        try:
            judge(model, torch.randn(1, *model.pretrained_cfg["input_size"]))
        except AssertionError as error:
            wrong[name] = str(error)
    assert not wrong, wrong


@pytest.mark.parametrize("name", ["levit_128s", "efficientformer_l1", "halonet_h1", "tiny_vit_5m_224"])
def test_rows_that_alternate_by_head_are_not_sliced(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=2)
    with pytest.raises(MedloraError, match="alternate by head"):
        select(model, ("head",), "attention.v")
    assert any(role.startswith("attention") for role in roles(model).values())


class Grouped(nn.Module):
    """Grouped-query attention: 4 heads of queries, 2 of keys and values, one fused weight."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = 4, 2, 3
        self.qkv_proj = nn.Linear(12, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (-1, 3)).transpose(1, 2) for t in self.qkv_proj(x).split((12, 6, 6), -1))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class GroupedAttention(Grouped):
    pass


def test_grouped_queries_have_parts_of_unequal_sizes_with_exact_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(GroupedAttention(), nn.Linear(12, 2)).double()
    x = torch.randn(2, 5, 12).double()
    judge(model, x)
    adapter = attach(model, LoRA(rank=2, targets=("attention.q", "attention.v")), example=x, train_head="1")
    assert [(t.part, t.rows) for t in adapter.targets] == [("q", (0, 12)), ("v", (18, 24))]
    for p in adapter.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.3)
    model(x).square().sum().backward()
    own = {k: t for k, t in adapter.named_tensors().items() if "lora" in k}
    factors = {k: t.detach().clone().requires_grad_() for k, t in own.items()}
    a_q, b_q, a_v, b_v = factors.values()
    weight = model[0].qkv_proj._parameters["weight"].detach()
    full = torch.cat([weight[:12] + 8 * b_q @ a_q, weight[12:18], weight[18:] + 8 * b_v @ a_v])
    plain = nn.Sequential(GroupedAttention(), nn.Linear(12, 2)).double()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "updates" not in k})
    y = torch.func.functional_call(plain, {"0.qkv_proj.weight": full}, x)
    y.square().sum().backward()
    for key, factor in factors.items():
        torch.testing.assert_close(own[key].grad, factor.grad)
