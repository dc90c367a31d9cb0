"""LoRA-FA computes what an activation got again: the same step to the bit, with less kept for it."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from medlora.adapters import LoRA, LoRAFA, Method, attach
from medlora.errors import MedloraError


def mlp(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), *between, nn.GELU(), nn.Linear(24, 3))


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def adapted(base: nn.Module, method: Method, example: torch.Tensor, head: bool | str = True) -> nn.Module:
    """A copy of ``base`` with the same A and B whatever the method."""
    model = copy.deepcopy(base)
    torch.manual_seed(1)
    adapter = attach(model, method, example=example, train_head=head)
    for key, tensor in adapter.named_tensors().items():
        if "lora_B" in key:
            tensor.data.normal_(0, 0.1)
    return model.train()


def kept(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes of distinct storages that autograd keeps, parameters left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        model(x).sum()
    bytes_ = sum(storage.nbytes() for storage in found.values())
    found.clear()
    return bytes_


def gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(5)  # of stochastic depth
    model(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "net", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny", "beit_base_patch16_224"]
)
def test_a_step_is_the_same_and_keeps_the_narrow_input(net: str) -> None:
    torch.manual_seed(0)
    small = {"depth": 2, "img_size": 64} if net.startswith(("vit", "beit")) else {}
    base = timm.create_model(net, num_classes=2, **small).eval()
    side = small.get("img_size", 64 if net.startswith("convnext") else 224)
    x = torch.randn(2, 3, side, side)
    models = {again: adapted(base, LoRAFA(rank=2, targets="mlp", recompute=again), x) for again in (False, True)}
    plain, again = (gradients(models[key], x) for key in (False, True))
    lora = gradients(adapted(base, LoRA(rank=2, targets="mlp"), x), x)
    assert plain.keys() == again.keys() < lora.keys()
    assert any("updates" in name for name in again)
    for name, gradient in again.items():
        assert torch.equal(gradient, plain[name]), name
        torch.testing.assert_close(gradient, lora[name], rtol=1e-4, atol=1e-5)
    wide = 0
    for path, module in base.named_modules():
        if path.endswith("mlp.fc1"):
            shape: list[torch.Size] = []
            handle = module.register_forward_hook(lambda _m, _i, y, shape=shape: shape.append(y.shape))
            base(x)
            handle.remove()
            positions = shape[0].numel() // shape[0][-1]
            wide += 4 * positions * (module.out_features - module.in_features)
    assert wide > 0
    assert kept(models[False], x) - kept(models[True], x) == wide


def test_vit_keeps_less_than_half_of_full_fine_tuning() -> None:
    base = timm.create_model("vit_tiny_patch16_224", num_classes=2, depth=3)
    x = torch.randn(2, 3, 224, 224)
    # by block, in inputs of the block: norms 2, q k v 3, attention 1, and of 16 for full fine-tuning 1 in place of 9
    assert kept(adapted(base, LoRAFA(targets=["attention", "mlp"]), x), x) < 0.47 * kept(base, x)


class Between(nn.Module):
    """Changes what passes, or what the layer before has read, in place."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.wide, self.act, self.out = nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        y = self.wide(x)
        if self.what == "output":
            y.mul_(3)
        if self.what == "input":
            x.add_(1)
        y = self.act(y)
        if self.what == "later":
            x.add_(1)
        return self.out(y)


@pytest.mark.parametrize("what", ["output", "input"])
def test_what_changes_in_place_on_the_way_is_kept(what: str) -> None:
    torch.manual_seed(0)
    base = Between(what)
    found = [
        gradients(adapted(base, LoRAFA(rank=2, targets=["wide"], recompute=again), X, "out"), X)
        for again in (True, False)
    ]
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


def test_an_input_that_changes_in_place_afterwards_is_an_error_and_no_other_gradient() -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(adapted(Between("later"), LoRAFA(rank=2, targets=["wide"]), X, "out"), X)


def test_columns_that_are_left_out_at_random_are_the_same_ones_backward() -> None:
    found = []
    for again in (True, False):
        model = adapted(mlp(), LoRAFA(rank=2, dropout=0.5, recompute=again), X, "2")
        found.append(gradients(model, X))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


@pytest.mark.parametrize("reentrant", [False, True])
def test_within_gradient_checkpointing(reentrant: bool) -> None:
    model = adapted(mlp(), LoRAFA(rank=2), X, "2")
    plain = gradients(model, X)
    model.zero_grad()
    checkpoint(model, X.clone().requires_grad_(), use_reentrant=reentrant).square().sum().backward()
    for name, gradient in plain.items():
        assert torch.equal(gradient, model.get_parameter(name).grad)


def test_compiled() -> None:
    model = adapted(mlp(), LoRAFA(rank=2), X, "2")
    plain = gradients(model, X)
    model.zero_grad()
    torch.compile(model, backend="aot_eager", fullgraph=True)(X).square().sum().backward()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype: torch.dtype) -> None:
    found = []
    for again in (True, False):
        model = adapted(mlp(), LoRAFA(rank=2, recompute=again), X, "2")
        with torch.autocast("cpu", dtype):
            y = model(X)
        y.float().square().sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


def test_copies_pickles_and_what_is_left_after_detaching() -> None:
    model = adapted(mlp(), LoRAFA(rank=2), X, "2")
    plain = gradients(model, X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kept(other, X) == kept(model, X)
        again = gradients(other, X)
        assert all(torch.equal(gradient, again[name]) for name, gradient in plain.items())
    model._medlora_adapter.detach()
    assert all(type(module).__dict__.get("_derivation") is None for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(X), mlp()(X))


def test_an_activation_in_place_or_of_other_layers_is_left_alone() -> None:
    base = nn.Sequential(nn.Linear(6, 24), nn.ReLU(inplace=True), nn.Linear(24, 6), nn.Dropout(), nn.Linear(6, 3))
    model = adapted(base, LoRAFA(rank=2), X, "4")
    assert [type(module) for module in model] != [type(module) for module in base]
    assert type(model[1]) is nn.ReLU
    assert type(model[3]) is nn.Dropout
    with pytest.raises(MedloraError, match="recompute"):
        LoRAFA(recompute=1)
