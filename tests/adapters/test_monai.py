"""The contract over MONAI's three-dimensional nets, small configurations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from monai.networks import nets

sys.path.insert(0, str(Path(__file__).parent))
from contract import check, settle

from medlora.adapters import roles

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NETS = {
    "DenseNet121": (lambda: nets.DenseNet121(3, 1, 2), 32, "class_layers.out"),
    "ResNet18": (lambda: nets.resnet18(spatial_dims=3, n_input_channels=1, num_classes=2), 32, "fc"),
    "ResNet50": (lambda: nets.resnet50(spatial_dims=3, n_input_channels=1, num_classes=2), 32, "fc"),
    "SEResNet50": (lambda: nets.SEResNet50(spatial_dims=3, in_channels=1, num_classes=2), 32, "last_linear"),
    "EfficientNet-B0": (
        lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=1, num_classes=2),
        32,
        "_fc",
    ),
    "ViT": (
        lambda: nets.ViT(
            1,
            (32, 32, 32),
            (16, 16, 16),
            hidden_size=48,
            mlp_dim=96,
            num_layers=2,
            num_heads=4,
            classification=True,
            num_classes=2,
        ),
        32,
        "classification_head",
    ),
    "UNETR": (
        lambda: nets.UNETR(1, 2, (32, 32, 32), feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4),
        32,
        False,
    ),
    "SwinUNETR": (
        lambda: nets.SwinUNETR(in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1)),
        64,
        False,
    ),
    "UNet": (lambda: nets.UNet(3, 1, 2, (8, 16, 32), (2, 2), num_res_units=1), 16, False),
    "SegResNet": (lambda: nets.SegResNet(init_filters=8, in_channels=1, out_channels=2), 16, False),
    "DynUNet": (lambda: nets.DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32]), 16, False),
    "VNet": (lambda: nets.VNet(out_channels=2), 32, False),
    "AttentionUnet": (lambda: nets.AttentionUnet(3, 1, 2, (8, 16, 32), (2, 2)), 16, False),
    "HighResNet": (lambda: nets.HighResNet(in_channels=1, out_channels=2), 12, False),
}


@pytest.mark.parametrize("name", NETS)
def test_net_keeps_the_contract(name: str, tmp_path: Path) -> None:
    if name in ("ViT", "UNETR", "SwinUNETR"):
        pytest.importorskip("einops", reason="MONAI's transformers need it")
    make, size, head = NETS[name]
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(2, 1, size, size, size)
    settle(model, x)
    paths = [p for p in roles(model) if not (head and p.startswith(head))]
    check(model, x, paths, tmp_path / "adapter", train_head=head)
