"""What an adapter does in a program: errors, states, copies, autocast, compile, checkpointing, transformers."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from medlora.adapters import LoRA, LoRAFA, NormTuning, Probe, adapter_of, attach, roles
from medlora.errors import MedloraError


def wake(adapter: object) -> None:
    for key, tensor in adapter.named_tensors().items():
        if "lora_B" in key:
            tensor.data.normal_(0, 0.1)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(5, 7), (4, 5)),
        (nn.Linear(5, 7, bias=False), (2, 3, 4, 5)),
        (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
        (nn.Conv2d(4, 6, (3, 1), padding=(1, 0)), (2, 4, 7, 8)),
        (nn.Conv2d(4, 6, 1), (2, 4, 7, 8)),
        (nn.Conv2d(4, 6, 1, stride=2), (2, 4, 7, 8)),
        (nn.Conv2d(4, 6, 1, padding=1), (2, 4, 7, 8)),
        (nn.Conv2d(4, 6, 3, padding=2, dilation=2), (2, 4, 9, 9)),
        (nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 7, 8)),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 8)),
        (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 8)),
        (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 7, 8)),
        (nn.Conv3d(3, 5, (1, 1, 3)), (2, 3, 4, 5, 6)),
        (nn.Conv3d(3, 5, 1), (2, 3, 4, 5, 6)),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 4, 5, 5)),
        (nn.ConvTranspose3d(4, 6, 3, groups=2), (1, 4, 3, 3, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("many", [1, 60])
@pytest.mark.parametrize("method", [LoRA, LoRAFA])
@pytest.mark.parametrize("last", [False, True], ids=["", "channels last"])
def test_every_kind_of_weight_is_w_plus_s_b_a(
    layer: nn.Module, x: tuple[int, ...], many: int, method: type[LoRA], last: bool
) -> None:
    """Output and gradients against the same layer with W + s·B·A written out and differentiated by autograd."""
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).double()
    inputs = torch.randn(x[0] * many, *x[1:]).double()
    if last and inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    plain = copy.deepcopy(layer)
    model = nn.Sequential(layer)
    adapter = attach(model, method(rank=2, alpha=3, targets=["0"]), example=inputs.detach(), train_head=False)
    wake(adapter)
    a, b = (t.detach().clone().requires_grad_() for t in adapter.named_tensors().values())
    full = plain.weight.detach() + 1.5 * torch.einsum("or,r...->o...", b, a)
    expected = torch.func.functional_call(
        plain, {"weight": full, **{k: v.detach() for k, v in plain.named_parameters() if k != "weight"}}, inputs
    )
    direction = torch.randn_like(expected)
    want = torch.autograd.grad((expected * direction).sum(), (inputs, a, b))
    got = model(inputs)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    have = torch.autograd.grad((got * direction).sum(), (inputs, *adapter.parameters()))
    for h, w in zip(have, want if method is LoRA else want[::2], strict=True):
        torch.testing.assert_close(h, w, rtol=1e-10, atol=1e-10)


def test_frozen_a_gets_no_gradient_and_keeps_less() -> None:
    model = mlp()
    adapter = attach(model, LoRAFA(rank=2), example=X, train_head="4")
    assert not any("lora_A" in k and t.requires_grad for k, t in adapter.named_tensors().items())
    reference = mlp()
    other = attach(reference, LoRA(rank=2), example=X, train_head="4")
    wake(adapter)
    other.load_state_dict(adapter.state_dict())
    model(X).square().sum().backward()
    reference(X).square().sum().backward()
    for key, tensor in adapter.named_tensors().items():
        if "lora_B" in key:
            torch.testing.assert_close(tensor.grad, other.named_tensors()[key].grad)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": LoRA(targets="atention")}, "attention"),
        ({"method": LoRA(targets=["2", "layers.1"])}, "layers.1"),
        ({"method": LoRA(targets="conv")}, "no weight with the role"),
        ({"method": LoRA(rank_for={"attention": 4})}, "attention"),
        ({"method": Probe(), "train_head": False}, "head"),
        ({"method": LoRA(), "train_head": "heat"}, "heat"),
        ({"method": LoRA(), "train_head": True}, "classifier"),
        ({"method": LoRA(), "batchnorm": "free"}, "batchnorm"),
        ({"method": LoRA(), "example": torch.zeros(1, 9)}, "example"),
    ],
)
def test_a_wrong_request_is_named_and_changes_nothing(arguments: dict, words: str) -> None:
    model = mlp()
    keys, classes, flags = (
        list(model.state_dict()),
        [type(m) for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )
    with pytest.raises(MedloraError, match=words):
        attach(model, **({"example": X, "train_head": "4"} | arguments))
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == classes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert adapter_of(model) is None


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 2.5}, {"alpha": 0}, {"dropout": 1.0}])
def test_a_lora_without_sense_is_refused(options: dict) -> None:
    with pytest.raises(MedloraError):
        LoRA(**options)


def test_attaching_twice_is_refused() -> None:
    model = mlp()
    attach(model, LoRA(), example=X, train_head="4")
    with pytest.raises(MedloraError, match="already"):
        attach(model, Probe(), example=X, train_head="4")


class Bypass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.linear(x, self.used.weight))


def test_a_target_that_is_never_read_is_found_and_a_functional_reading_works() -> None:
    model = Bypass()
    with pytest.raises(MedloraError, match="unused"):
        attach(model, LoRA(targets=["used", "unused"]), example=X, train_head="head")
    assert adapter_of(model) is None
    adapter = attach(model, LoRA(targets="used"), example=X, train_head="head")
    y = model(X)
    wake(adapter)
    assert not torch.equal(model(X), y)
    assert adapter.read_elsewhere == {"used"}


def test_dead_targets_are_a_warning() -> None:
    model = mlp()
    model[2].weight.data.zero_()
    model[2].bias.data.fill_(-1)
    with pytest.warns(UserWarning, match="no gradient"):
        adapter = attach(model, LoRA(targets=["0", "2"]), example=X, train_head="4")
    assert [t.path for t in adapter.silent] == ["0", "2"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_transformer_encoder_layers_read_the_update_in_both_modes(training: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first).train(training)
    model = nn.Sequential(layer, nn.Linear(8, 2))
    x = torch.randn(3, 4, 8)
    with torch.no_grad():
        y0 = model(x)
    adapter = attach(model, LoRA(rank=2, targets=("attention", "mlp")), example=x, train_head="1")
    assert {t.path for t in adapter.targets} == {"0.self_attn", "0.self_attn.out_proj", "0.linear1", "0.linear2"}
    with torch.no_grad():
        torch.testing.assert_close(model(x), y0, rtol=1e-6, atol=1e-6)
        wake(adapter)
        y = model(x)
        assert (y - y0).abs().max() > 1e-3
    torch.testing.assert_close(model(x), y, rtol=1e-5, atol=1e-6)
    adapter.merge()
    with torch.no_grad():
        torch.testing.assert_close(model(x), y, rtol=1e-5, atol=1e-6)


def test_parts_of_a_fused_weight_of_a_multihead_attention() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 2)).eval()
    x = torch.randn(3, 4, 8)
    base = model[0].self_attn.in_proj_weight.detach().clone()
    adapter = attach(model, LoRA(rank=2, targets=("attention.q", "attention.v")), example=x, train_head="1")
    assert [(t.part, t.rows) for t in adapter.targets] == [("q", (0, 8)), ("v", (16, 24))]
    wake(adapter)
    weight = model[0].self_attn.in_proj_weight
    assert torch.equal(weight[8:16], base[8:16])
    assert not torch.equal(weight[:8], base[:8])
    assert not torch.equal(weight[16:], base[16:])


def test_part_sizes_and_gradients_in_the_fast_path() -> None:
    """q and v of a fused qkv: gradients by r-wide products equal those through the whole weight."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=2).eval()
    x = torch.randn(2, 3, 32, 32)
    adapter = attach(model, LoRA(rank=2, targets=("attention.q", "attention.v")), example=x)
    wake(adapter)
    model(x).square().sum().backward()
    fast = [p.grad.clone() for p in adapter.parameters()]
    model.zero_grad()
    model.blocks[0].attn.qkv.forward = lambda z: nn.functional.linear(
        z, model.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.bias
    )
    model(x).square().sum().backward()
    for a, p in zip(fast, adapter.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)


def test_batch_norm_stays_frozen_in_training_copies_and_files() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    x = torch.randn(4, 3, 8, 8) * 2 + 1
    adapter = attach(model, LoRA(targets="0"), example=x, train_head="4")
    before = model[1].running_mean.clone()
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for net in (model, copy.deepcopy(model), torch.load(stored, weights_only=False)):
        net.train()
        net(x).sum().backward()
        assert not net[1].training
        assert net[0].training
        assert torch.equal(net[1].running_mean, before)
    model.train()
    adapter.detach()
    assert model[1].training
    model(x)
    assert not torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize("act", ["relu", "relu6", "silu"])
def test_frozen_batch_norm_has_the_gradients_of_batch_norm_in_evaluation(act: str) -> None:
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    norm = BatchNormAct2d(5, act_layer=act).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.data.normal_()
    norm.running_var.uniform_(0.5, 2)
    model = nn.Sequential(nn.Conv2d(3, 5, 1), norm, nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    x = (4 * torch.randn(3, 3, 6, 6)).double()
    reference = copy.deepcopy(model).eval()
    adapter = attach(model, LoRA(targets=("0", "2")), example=x, train_head=False)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = model.train()(a), reference(b)
    assert torch.equal(y, z)
    y.square().sum().backward()
    z.square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-10)
    assert adapter.state == "active"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_no_float32_copy_and_trains_float32_factors(dtype: torch.dtype) -> None:
    model = mlp()
    adapter = attach(model, LoRA(rank=2), example=X, train_head="4")
    wake(adapter)
    kept: list[torch.dtype] = []
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.data_ptr() not in own:
            kept.append(t.dtype)
        return t

    with torch.autocast("cpu", dtype), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = model(X)
    assert y.dtype == dtype
    assert set(kept) == {dtype}
    y.float().square().sum().backward()
    low = [p.grad.clone() for p in adapter.parameters()]
    model.zero_grad()
    model(X).square().sum().backward()
    for a, p in zip(low, adapter.parameters(), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, p.grad, rtol=0.1, atol=0.05 * float(p.grad.abs().max()) + 1e-3)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    model = mlp()
    adapter = attach(model, LoRA(rank=2), example=X, train_head="4")
    wake(adapter)
    x = X.clone().requires_grad_()
    model(x).square().sum().backward()
    plain = [p.grad.clone() for p in adapter.parameters()]
    model.zero_grad()
    checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    for a, p in zip(plain, adapter.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


def test_copies_and_files_of_the_whole_model_keep_the_adapter() -> None:
    model = mlp()
    adapter = attach(model, LoRA(rank=2), example=X, train_head="4")
    wake(adapter)
    y = model(X)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for net in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
        assert torch.equal(net(X), y)
        own = adapter_of(net)
        assert own is not None
        assert own.model is net
        own.merge()
        torch.testing.assert_close(net(X), y)
        own.detach()
        assert not torch.equal(net(X), y)
    assert torch.equal(model(X), y)
    assert isinstance(model[0], nn.Linear)
    assert repr(model).startswith("Sequential")


def test_dtype_moves_and_state_dicts() -> None:
    model = mlp()
    keys = set(model.state_dict())
    adapter = attach(model, LoRA(rank=2), example=X, train_head="4")
    assert keys <= set(model.state_dict())
    wake(adapter)
    y = model(X)
    state = {k: v.clone() for k, v in adapter.state_dict().items()}
    model.double()
    torch.testing.assert_close(model(X.double()), y.double(), rtol=1e-5, atol=1e-5)
    model.float()
    for p in adapter.parameters():
        p.data.zero_()
    adapter.load_state_dict(state)
    assert torch.equal(model(X), y)
    with pytest.raises(MedloraError, match="missing"):
        adapter.load_state_dict({})
    assert all(torch.equal(v, state[k]) for k, v in adapter.state_dict().items())


def test_training_moves_only_the_adapter() -> None:
    model = mlp()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapter = attach(model, LoRA(rank=2), example=X, train_head="4")
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), torch.arange(5) % 3)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    adapter.detach()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_depth_rank_and_roles() -> None:
    import timm

    with torch.device("meta"):
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=2)
        cnn = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    from medlora.adapters.targets import select, setting

    def paths(model: nn.Module, *wanted: str, last: object = None) -> list[str]:
        return [t.path for t in select(model, ("head",), wanted, last)]

    assert paths(vit, "attention", last="1/3") == [
        f"blocks.{i}.attn.{n}" for i in range(8, 12) for n in ("qkv", "proj")
    ]
    assert paths(vit, "attention", last=[0, -1]) == [f"blocks.{i}.attn.{n}" for i in (0, 11) for n in ("qkv", "proj")]
    assert "conv_head" in paths(cnn, "conv.pointwise", last=1)
    assert "blocks.0.0.conv_pw" not in paths(cnn, "conv.pointwise", last=1)
    targets = select(vit, ("head",), ("attention", "mlp"))
    ranks = {t.path: setting(t, 8, {"attention": 4, "attention.out": 2, "blocks.3.attn.proj": 16}) for t in targets}
    assert [ranks[f"blocks.{p}"] for p in ("0.attn.qkv", "0.attn.proj", "3.attn.proj", "0.mlp.fc1")] == [4, 2, 16, 8]
    assert roles(cnn)["conv_stem"] == "stem"
    assert roles(cnn)["conv_head"] == "conv.pointwise"
    with pytest.raises(MedloraError, match="no block 12"):
        paths(vit, "mlp", last=[12])


def test_norm_tuning_of_a_batch_norm_net() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    x = torch.randn(4, 3, 8, 8)
    adapter = attach(model, NormTuning(), example=x, train_head="3")
    model.train()
    model(x).square().sum().backward()
    assert {k for k, t in adapter.named_tensors().items() if t.grad is not None} == {
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
    }


@pytest.mark.slow
def test_compiled_model_trains_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(216, 2)
    )
    x = torch.randn(4, 3, 8, 8)
    adapter = attach(model, LoRA(rank=2), example=x, train_head="5")
    wake(adapter)
    model.train()
    model(x).square().sum().backward()
    plain = [p.grad.clone() for p in adapter.parameters()]
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    compiled(x).square().sum().backward()
    for a, p in zip(plain, adapter.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-5)
