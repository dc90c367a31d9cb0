"""An adapter among what programs do around it: moves, casts, ties, wrappers, training mode, torch.func, in place."""

from __future__ import annotations

import ast
import copy
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import medlora.adapters
from medlora.adapters import (
    SSF,
    Bank,
    BitFit,
    Full,
    LoRA,
    LoRAFA,
    NormTuning,
    attach,
    fast,
    fingerprint,
    load,
    read_info,
)
from medlora.adapters.methods import Method
from medlora.errors import MedloraError

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def moved(adapter: object) -> None:
    torch.manual_seed(3)
    for tensor in adapter.parameters():
        tensor.data.add_(torch.randn_like(tensor), alpha=0.1)


@pytest.mark.parametrize("state", ["active", "merged", "disabled", "bank"])
def test_a_model_cast_in_any_state_goes_on_in_its_new_type(state: str) -> None:
    """What is set aside is not in the module tree, so ``model.double()`` does not reach it."""
    model = mlp().eval()
    base = copy.deepcopy(model).double()
    adapter = attach(model, LoRA(rank=2, targets=["0", "2"]), example=X, train_head="4")
    moved(adapter)
    y = model(X).detach()
    if state == "bank":
        bank = Bank(model)
        bank.add("a", adapter)
        names = ["a", None, "a", "a", None]
        before = bank.run(X, names)
        model.double()
        torch.testing.assert_close(bank.run(X.double(), names).float(), before, rtol=1e-5, atol=1e-5)
        bank.use("a")
        torch.testing.assert_close(model(X.double()).float(), y, rtol=1e-5, atol=1e-5)
        bank.use(None)
    elif state == "disabled":
        with adapter.disabled():
            model.double()
    elif state == "merged":
        adapter.merge()
        model.double()
        adapter.unmerge()
    else:
        model.double()
    if state != "bank":
        torch.testing.assert_close(model(X.double()).float(), y, rtol=1e-5, atol=1e-5)
        adapter.detach()
    assert torch.equal(model(X.double()), base(X.double()))


@pytest.mark.parametrize("policy", ["frozen", "adapt"])
def test_training_mode_never_moves_the_statistics_of_the_base(policy: str) -> None:
    model = cnn()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    mark = fingerprint(model, ("3",))
    adapter = attach(model, LoRA(rank=2, targets="0"), example=IMAGES, train_head="3", batchnorm=policy)
    model.train()
    with adapter.disabled():
        model(IMAGES)
    assert fingerprint(model) == mark
    kept = {k: v.clone() for k, v in adapter.state_dict().items()}
    adapter.merge()
    model.train()
    model(IMAGES)
    assert fingerprint(model) == mark
    adapter.unmerge()
    assert all(torch.equal(v, kept[k]) for k, v in adapter.state_dict().items())
    adapter.detach()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("mode", [True, False])
def test_a_norm_with_a_mode_of_its_own_gets_it_back(mode: bool) -> None:
    model = cnn().train(mode)
    model[1].train(not mode)
    adapter = attach(model, LoRA(rank=2, targets="0"), example=IMAGES, train_head="3")
    with adapter.disabled():
        assert model[1].training is not mode
    adapter.merge()
    adapter.unmerge()
    assert not model[1].training
    adapter.detach()
    assert model[1].training is not mode
    assert model.training is mode


def test_merging_under_autocast_keeps_the_precision_of_the_weights() -> None:
    model = mlp()
    adapter = attach(model, LoRA(rank=2, targets=["0"]), example=X, train_head="4")
    moved(adapter)
    y = model(X).detach()
    with torch.autocast("cpu", torch.bfloat16):
        adapter.merge()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model(X), y)


def test_half_precision_weights_have_half_precision_factors() -> None:
    model = mlp().bfloat16()
    adapter = attach(model, LoRA(rank=2), example=X.bfloat16(), train_head="4")
    moved(adapter)
    model(X.bfloat16()).sum().backward()
    assert {(p.dtype, p.grad.dtype) for p in adapter.parameters()} == {(torch.bfloat16, torch.bfloat16)}


def test_tied_weights_stay_tied_where_they_are_trained() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    adapter = attach(model, Full(), example=X, train_head=False)
    parameters = list(adapter.parameters())
    assert len(parameters) == 3
    torch.optim.SGD(parameters, lr=0.1)
    assert "100.00%" in adapter.summary()
    assert model[0].weight is model[2].weight
    adapter.detach()
    assert model[0].weight is model[2].weight


def test_a_module_in_two_places_has_one_update() -> None:
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    adapter = attach(model, LoRA(rank=2, targets=["0"]), example=X, train_head=False)
    moved(adapter)
    a, b = adapter.state_dict().values()
    weight = layer._parameters["weight"] + 8 * b @ a
    want = nn.functional.linear(nn.functional.linear(X, weight, layer.bias).tanh(), weight, layer.bias)
    torch.testing.assert_close(model(X), want)
    adapter.merge()
    torch.testing.assert_close(model(X), want)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("merged", [True, False])
def test_a_second_adapter_by_way_of_a_wrapper_or_a_child_is_refused(inner: bool, merged: bool) -> None:
    net = nn.Sequential(mlp())
    first, second = (net[0], net) if inner else (net, net[0])
    adapter = attach(first, LoRA(rank=2, targets="0" if inner else "0.0"), example=X, train_head=False)
    if merged and inner:
        adapter.merge()
    with pytest.raises(MedloraError, match="already"):
        attach(second, LoRA(targets="0.0" if inner else "0"), example=X, train_head=False)


def test_flags_of_the_user_come_back() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    attach(model, LoRA(), example=X, train_head="4").detach()
    assert [p.requires_grad for p in model.parameters()] == flags


class Named(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 4)
        self.updates = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.updates(x))


@pytest.mark.parametrize(
    ("make", "method", "words"),
    [
        (mlp, "lora", "no method"),
        (mlp, LoRA, "no method"),
        (mlp, LoRA(targets=[]), "empty"),
        (mlp, NormTuning(), "train nothing"),
        (lambda: nn.Sequential(nn.Linear(6, 2, bias=False)), BitFit(), "train nothing"),
        (lambda: nn.Sequential(nn.LazyLinear(4)), BitFit(), "no shape yet"),
        (lambda: nn.Sequential(Named()), LoRA(targets=["0"]), "called updates"),
    ],
)
def test_a_request_that_would_train_nothing_or_break_a_module_is_refused(
    make: object, method: object, words: str
) -> None:
    model = make()
    classes = [type(m) for m in model.modules()]
    with pytest.raises(MedloraError, match=words):
        attach(model, method, example=X, train_head=False)
    assert [type(m) for m in model.modules()] == classes


@pytest.mark.parametrize("last", [0, -1, 4, "0", "4/3", "a third", [3], 0.33, ["1"]])
def test_blocks_that_are_not_there_are_refused(last: object) -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=2)
    with pytest.raises(MedloraError):
        attach(model, LoRA(last=last))


def test_an_example_of_another_kind_is_refused_in_one_line() -> None:
    with pytest.raises(MedloraError, match="dict"):
        attach(mlp(), LoRA(), example={"image": 1}, train_head="4")


@pytest.mark.parametrize(
    "options", [{"rank_for": [1]}, {"alpha": "much"}, {"rank": "8"}, {"dropout": None}, {"alpha": float("inf")}]
)
def test_damaged_options_of_a_file_are_named(options: dict) -> None:
    with pytest.raises(MedloraError):
        Method.from_dict({"method": "lora", **options})


def test_targets_in_a_set_are_saved_in_one_order(tmp_path: Path) -> None:
    model = mlp()
    bare = copy.deepcopy(model)
    adapter = attach(model, LoRA(rank=2, targets={"2", "0"}), example=X, train_head="4")
    adapter.save(tmp_path / "a")
    assert read_info(tmp_path / "a")["method"]["targets"] == ["0", "2"]
    load(bare, tmp_path / "a")


def test_a_bank_and_an_attached_adapter_keep_out_of_each_others_way() -> None:
    model = mlp().eval()
    bank = Bank(model)
    bank.add("a", attach(model, LoRA(rank=2, targets=["0"]), example=X, train_head="4"))
    bank.use("a")
    with pytest.raises(MedloraError, match="bank uses its adapter 'a'"):
        attach(model, LoRA(rank=2, targets=["0"]), example=X, train_head="4")
    bank.use(None)
    adapter = attach(model, LoRA(rank=2, targets=["0"]), example=X, train_head="4")
    for request in (lambda: bank.use("a"), lambda: bank.run(X, ["a", None, "a", None, "a"])):
        with pytest.raises(MedloraError, match="attached to the bank's model"):
            request()
    adapter.detach()
    bank.use("a")


def test_in_inference_mode_nothing_is_attached() -> None:
    model = mlp()
    with torch.inference_mode(), pytest.raises(MedloraError, match="inference mode"):
        attach(model, LoRA(), example=X, train_head="4")
    adapter = attach(model, LoRA(), example=X, train_head="4")
    with torch.inference_mode():
        model(X)
    model(X).sum().backward()
    assert all(p.grad is not None for p in adapter.parameters())


def test_a_model_without_values_is_planned_but_not_proved() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    adapter = attach(model, LoRA(rank=8))
    assert not adapter.proved
    with pytest.raises(MedloraError, match="no weights"):
        fingerprint(model)
    assert adapter.summary().splitlines()[-1].split()[1:3] == ["24", f"{12 * 8 * (192 + 576 + 192 + 192) + 386:,}"]


def test_a_model_whose_first_convolution_is_elsewhere_is_probed_all_the_same() -> None:
    model = timm.create_model("vit_tiny_patch16_224", features_only=True)
    assert attach(model, LoRA(rank=2, last=1), train_head=False).proved


@pytest.mark.parametrize("method", [LoRA(rank=2), LoRAFA(rank=2)], ids=lambda m: m.name)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 6), (2, 6)),
        (nn.Linear(6, 6, bias=False), (2, 3, 6)),
        (nn.Linear(6, 6), (2, 3, 4, 6)),
        (nn.Conv1d(6, 6, 1), (2, 6, 5)),
        (nn.Conv2d(6, 6, 3), (2, 6, 5, 5)),
        (nn.Conv3d(6, 6, 1), (2, 6, 3, 3, 3)),
    ],
    ids=str,
)
def test_the_output_can_be_changed_in_place(method: LoRA, layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    model = nn.Sequential(copy.deepcopy(layer), nn.ReLU(inplace=True))
    plain = nn.Sequential(copy.deepcopy(layer), nn.ReLU())
    adapter = attach(model, method, example=x, train_head=False)
    other = attach(plain, method, example=x, train_head=False)
    moved(adapter)
    other.load_state_dict(adapter.state_dict())
    for net in (model, plain):
        net(x).square().sum().backward()
    for a, b in zip(adapter.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("positions", [4, 4096])
def test_both_ways_of_training_a_stock_layer_have_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, positions: int, autocast: bool
) -> None:
    """Low-rank gradients by hand, through thin products or through dW; and autograd's, which a GPU under autocast has.

    In half precision they differ by its rounding alone: bfloat16 has 8 bits, and much cancels in these sums.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.Flatten(2), nn.Linear(positions, 48)
    )
    adapter = attach(
        model, LoRA(rank=2, alpha=6, targets=["0", "2", "4"]), example=torch.randn(1, 3, 1, positions), train_head=False
    )
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(4, 3, 1, positions)
    gradients = {}
    for by_autograd in (False, True):
        monkeypatch.setattr(fast, "_leave_to_autograd", lambda *_, answer=by_autograd: answer)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(x).float().square().mean().backward()
        gradients[by_autograd] = [p.grad for p in adapter.parameters()]
    for own, stock in zip(gradients[False], gradients[True], strict=True):
        assert own.dtype is stock.dtype is torch.float32
        assert (own - stock).norm() <= (0.1 if autocast else 1e-5) * stock.norm()


def test_transforms_of_torch_func_and_second_derivatives() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double()
    model.eval()
    x = IMAGES.double()
    adapter = attach(model, LoRA(rank=2), example=x, train_head="4")
    moved(adapter)
    names = {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}

    def loss(own: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, own, sample[None]).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(names, x)
    model(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(per_sample[key].sum(0), parameter.grad)
    inputs = x[:1].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: model(z).tanh(), (inputs,))


def test_ssf_scales_the_output_channels_of_a_grouped_transposed_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(4, 8, 2, groups=2), nn.Conv2d(8, 2, 1))
    bare = copy.deepcopy(model)
    x = torch.randn(2, 4, 3, 3)
    plain = model[0](x).detach()
    adapter = attach(model, SSF(targets=["0"]), example=x, train_head=False)
    moved(adapter)
    gamma, beta = adapter.state_dict().values()
    want = plain * gamma.flatten()[:, None, None] + beta[:, None, None]
    torch.testing.assert_close(model[0](x), want)
    y = model(x)
    adapter.save(tmp_path / "a")
    load(bare, tmp_path / "a")
    assert torch.equal(bare(x), y)


def test_the_room_imports_torch_and_safetensors_only() -> None:
    room = Path(medlora.adapters.__file__).parent
    found = set()
    for file in room.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found.add(node.module)
    other = {name for name in found if name.partition(".")[0] not in {*sys.stdlib_module_names, "torch", "safetensors"}}
    assert {name for name in other if not name.startswith("medlora.adapters")} == {
        "medlora._version",
        "medlora.errors",
        "medlora.files",
    }


@pytest.mark.parametrize("method", [BitFit(), NormTuning(), SSF()], ids=lambda m: m.name)
def test_what_is_trained_of_a_frozen_batch_norm_has_its_gradient(method: Method) -> None:
    """Against the same net written out: convolution, (x − mean) / √(var + ε) times γ plus β, convolution."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).double()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    x = IMAGES.double().requires_grad_()
    adapter = attach(model, method, example=x.detach(), train_head=False)
    moved(adapter)
    model.train()
    model(x).square().sum().backward()
    weight, bias, first, last = (t.detach().clone().requires_grad_() for t in (
        model[1].weight, model[1].bias, model[0].bias, model[2].bias
    ))  # fmt: skip
    y = nn.functional.conv2d(x.detach(), model[0].weight.detach(), first)
    y = (y - model[1].running_mean[:, None, None]) / (model[1].running_var + model[1].eps).sqrt()[:, None, None]
    y = y * weight[:, None, None] + bias[:, None, None]
    nn.functional.conv2d(y, model[2].weight.detach(), last).square().sum().backward()
    want = {"1.weight": weight, "1.ssf_scale": None, "1.bias": bias, "1.ssf_shift": bias, "0.bias": first}
    found = {k: t.grad for k, t in adapter.named_tensors().items() if k in want}
    assert found
    for key, gradient in found.items():
        if key == "1.ssf_scale":  # γ scales weight and bias of the norm
            base = model[1]._parameters
            torch.testing.assert_close(gradient, weight.grad * base["weight"] + bias.grad * base["bias"])
        else:
            torch.testing.assert_close(gradient, want[key].grad)
