"""The cut network against the whole one, on untrained timm models; and cuts that must be refused."""

import pytest
import timm
import torch
from torch import nn

from medlora import adapters
from medlora.training.folding import fold_for
from medlora.training.prefix import FrozenPrefix, find_prefix

FAMILIES = {  # model: where the cut must be, with the last third adapted
    "tf_efficientnet_lite0": "blocks.5.0.conv_pw",
    "vit_tiny_patch16_224": "blocks.8",
    "convnext_atto": "stages.2.blocks.4",
    "resnet18": "layer3.1",
    "swin_tiny_patch4_window7_224": "layers.2.blocks.4",
    "mobilenetv3_small_050": "blocks.4.0.conv_pw",
    "edgenext_xx_small": "stages.2.blocks.5",
    "mobilevit_xxs": "stages.3.1",
    "eva02_tiny_patch14_224": "blocks.8",
    "beitv2_base_patch16_224": "blocks.8",
    "vit_small_patch16_dinov3": "blocks.8",
    "densenet121": "features.denseblock3",
}
SLOW = {"swin_tiny_patch4_window7_224", "beitv2_base_patch16_224", "vit_small_patch16_dinov3", "densenet121"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FAMILIES]
)  # fmt: skip
def test_suffix_is_the_whole_network(name):
    """Outputs and gradients on new images and another batch size equal those of the whole network."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    adapter = adapters.attach(model, adapters.LoRA(last="1/3"))
    with torch.no_grad():  # an update at its start has no effect that could differ
        for key, tensor in adapter.named_tensors().items():
            if "lora_B" in key:
                tensor.normal_(std=0.02)
    size = model.pretrained_cfg["input_size"]
    prefix = find_prefix(model, torch.randn(1, *size))
    assert isinstance(prefix, FrozenPrefix), prefix
    assert prefix.cut == FAMILIES[name]

    images = torch.randn(3, *size)
    modes = [module.training for module in model.modules()]
    features = prefix.features(images)
    assert [module.training for module in model.modules()] == modes
    assert not features.requires_grad
    assert features.shape == (3, *prefix.shape)
    model.eval()
    prefix.folds = []  # tested below
    trained = list(adapter.parameters())
    direction = torch.randn(3, 3)
    whole, part = model(images), prefix.suffix(features)
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-6)
    for a, b in zip(
        torch.autograd.grad(whole, trained, direction), torch.autograd.grad(part, trained, direction), strict=True
    ):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5 * float(a.abs().max()))


class Crossed(nn.Module):
    """The second half sees the first half's input too, by a path around every module after the first."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        a = self.first(x)
        b = self.second(a)
        return self.third(b) + self.gate * a


def test_a_path_around_the_cut_is_seen_although_its_gate_is_closed():
    """Cutting before ``third`` would lose ``a``; with the gate at zero only its gradient shows it."""
    model = Crossed()
    adapters.attach(model, adapters.LoRA(targets="third"), example=torch.randn(1, 8), train_head=False)
    model.gate.requires_grad_(True)
    prefix = find_prefix(model, torch.randn(1, 8))
    assert isinstance(prefix, str) or prefix.cut != "third", prefix


def test_the_whole_network_where_its_first_layer_is_trained():
    model = timm.create_model("resnet18", num_classes=2)
    adapters.attach(model, adapters.Full())
    prefix = find_prefix(model, torch.randn(1, 3, 64, 64))
    assert isinstance(prefix, str)


def test_adapting_batch_norm_before_the_cut_is_refused():
    model = timm.create_model("resnet18", num_classes=2)
    adapters.attach(model, adapters.LoRA(last="1/3"), batchnorm="adapt")
    prefix = find_prefix(model, torch.randn(1, 3, 64, 64))
    assert isinstance(prefix, str)
    assert "BatchNorm" in prefix


def test_everything_but_the_head_is_prefix_for_a_probe():
    model = timm.create_model("resnet18", num_classes=2)
    adapters.attach(model, adapters.Probe())
    prefix = find_prefix(model, torch.randn(1, 3, 64, 64))
    assert isinstance(prefix, FrozenPrefix)
    assert prefix.cut == "fc"
    assert prefix.shape == (512,)


def with_norms(name):
    """A network whose updates have an effect and whose batch norms are no identities, cut."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    adapter = adapters.attach(model, adapters.LoRA(last="1/3"))
    with torch.no_grad():
        for key, tensor in adapter.named_tensors().items():
            if "lora_B" in key:
                tensor.normal_(std=0.02)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
    prefix = find_prefix(model, torch.randn(1, *model.pretrained_cfg["input_size"]))
    assert isinstance(prefix, FrozenPrefix), prefix
    model.eval()
    return prefix, list(adapter.parameters())


@pytest.mark.parametrize(
    ("name", "folds"), [("tf_efficientnet_lite0", 16), ("resnet18", 7), ("mobilenetv3_small_050", 10)]
)
def test_a_convolution_and_its_frozen_norm_are_one_in_training(name, folds):
    """Outputs and gradients as of the two apart, but for rectifiers that rounding puts on their other side."""
    prefix, trained = with_norms(name)
    assert len(prefix.folds) == folds
    features, direction = torch.randn(3, *prefix.shape), torch.randn(3, 3)
    whole = prefix.suffix(features)
    gradients = torch.autograd.grad(whole, trained, direction)
    with torch.no_grad():
        torch.testing.assert_close(prefix.suffix(features), whole, rtol=1e-5, atol=1e-6)  # as predictions are
    prefix.folds = []
    apart = prefix.suffix(features)
    torch.testing.assert_close(whole, apart, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients, torch.autograd.grad(apart, trained, direction), strict=True):
        assert float((a - b).norm()) < 0.02 * float(b.norm())


def test_a_second_step_before_the_first_ones_gradients_does_no_harm():
    prefix, trained = with_norms("resnet18")
    first, second = torch.randn(2, *prefix.shape), torch.randn(2, *prefix.shape)
    wanted = torch.autograd.grad(prefix.suffix(first).square().sum(), trained)
    waiting = prefix.suffix(first).square().sum()
    prefix.suffix(second).square().sum()
    for a, b in zip(torch.autograd.grad(waiting, trained), wanted, strict=True):
        torch.testing.assert_close(a, b)


class Shared(nn.Module):
    """What the convolution gives is used beside its batch norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        y = self.conv(self.stem(x).relu())
        return self.head((self.norm(y) + y).mean((2, 3)))


def test_a_convolution_whose_output_goes_elsewhere_too_is_left_alone():
    model = Shared()
    model.norm.running_mean += 0.5
    adapters.attach(model, adapters.LoRA(targets=["conv"]), train_head="head")
    prefix = find_prefix(model, torch.randn(1, 3, 16, 16))
    assert isinstance(prefix, FrozenPrefix) and prefix.cut == "conv" and prefix.folds == []


class Twice(Shared):
    """One convolution, two batch norms behind it; and a pair of their own beside."""

    def __init__(self):
        super().__init__()
        self.other, self.more = nn.BatchNorm2d(8), nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))

    def forward(self, x):
        y = self.conv(self.stem(x).relu())
        return self.head(self.more(self.norm(y).relu() + self.other(y)).mean((2, 3)))


def test_what_cannot_be_one_keeps_no_others_from_it():
    model = Twice()
    adapters.attach(model, adapters.LoRA(targets=["conv", "more.0"]), train_head="head")
    prefix = find_prefix(model, torch.randn(1, 3, 16, 16))
    assert isinstance(prefix, FrozenPrefix) and [fold.conv for fold in prefix.folds] == [model.more[0]]
    computed = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1).requires_grad_(False))
    assert fold_for(computed, model.more[1]) is None  # a weight that is computed is left alone, too
