"""The contract on a member of each common family, small images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch

sys.path.insert(0, str(Path(__file__).parent))
from contract import check

from medlora.adapters import LoRA, attach

FAMILIES = {
    "tf_efficientnet_lite0": 64,
    "vit_tiny_patch16_224": {"img_size": 32},
    "resnet18": 64,
    "convnext_atto": 64,
    "swin_tiny_patch4_window7_224": {"img_size": 56, "depths": (1, 1), "num_heads": (3, 6)},
    "eva02_tiny_patch14_224": {"img_size": 28, "depth": 2},
    "beit_base_patch16_224": {"img_size": 32, "depth": 2},
    "swinv2_cr_tiny_ns_224": {"img_size": 64, "window_size": 2, "depths": (1, 1), "num_heads": (3, 6)},
    "swinv2_tiny_window8_256": {"img_size": 64, "window_size": 4, "depths": (1, 1), "num_heads": (3, 6)},
    "resnetv2_50x1_bit": 64,
    "nfnet_l0": 64,
    "davit_tiny": {"depths": (1, 1, 1, 1), "size": 64},
    "maxvit_rmlp_pico_rw_256": {"img_size": 64},
    "regnety_002": 64,
    "mobilenetv4_hybrid_medium": 64,
    "densenet121": 64,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_family_keeps_the_contract(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = FAMILIES[name]
    options = {"size": options} if isinstance(options, int) else dict(options)
    size = options.pop("size", None) or options["img_size"]
    model = timm.create_model(name, num_classes=5, **options)
    groups = ("attention", "conv", "mlp", "squeeze_excite", "stem", "downsample", "position", "other")
    from medlora.adapters import roles

    have = set(roles(model).values())
    wanted = [g for g in groups if any(r.split(".")[0] == g for r in have)]
    check(model, torch.randn(2, 3, size, size), wanted, tmp_path / "adapter")


def test_summary_counts_each_slice_of_a_fused_weight():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    lines = attach(model, LoRA(rank=8, targets=["attention.q", "attention.v"])).summary().splitlines()
    counted = {line.split()[0]: line.split()[1:] for line in lines}
    of_one = 12 * 8 * (192 + 192)  # 12 blocks, rank 8, A (8, 192) and B (192, 8)
    assert counted["attention.q"] == counted["attention.v"] == ["12", f"{of_one:,}"]


def test_picture_has_a_bar_for_every_block_and_the_numbers_of_the_table() -> None:
    from xml.etree import ElementTree

    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, depth=3)
    adapter = attach(model, LoRA(rank=8, targets=["attention", "mlp"], last=2))
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(adapter.picture())
    words = [t.text for t in root.iter(f"{svg}text")]
    attention, mlp = 8 * (192 + 576) + 8 * (192 + 192), 2 * 8 * (192 + 768)
    assert words[:6] == ["blocks.1", f"{attention + mlp:,}", "blocks.2", f"{attention + mlp:,}", "head", "386"]
    assert {"attention.qkv", "attention.out", "mlp", "head"} <= set(words)
    shares = [float(r.get("width")) for r in root.iter(f"{svg}rect")][:6]
    assert shares[0] / sum(shares[:3]) == pytest.approx(8 * (192 + 576) / (attention + mlp), abs=0.01)
    assert adapter.picture() in adapter._repr_html_()
    assert f"{2 * (attention + mlp) + 386:,}" in adapter._repr_html_()


def test_the_example_of_the_room_runs() -> None:
    import doctest

    import medlora.adapters

    assert doctest.testmod(medlora.adapters).attempted == 5
    assert doctest.testmod(medlora.adapters).failed == 0
