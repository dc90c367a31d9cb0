"""The network of ``medlora-hybrid``: attention and convolutions, small enough to come with medlora.

A network of timm's parts, registered with timm when this module is imported: EfficientNet-Lite0 (Tan & Le, ICML 2019)
cut short, with an attention block of MobileNetV4 (Qin et al. 2024, arXiv:2404.10518) in each of its last two stages.
``scripts/distil_backbone.py`` made its weights; the card beside them says how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timm.models import generate_default_cfgs, register_model
from timm.models._builder import build_model_with_cfg
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn

from medlora.backbones.embedded import HYBRID, LITE0

if TYPE_CHECKING:
    import torch

_STAGES = [
    ["ds_r1_k3_s1_e1_c16"],
    ["ir_r1_k3_s2_e6_c24"],
    ["ir_r1_k5_s2_e6_c40"],
    ["ir_r2_k3_s2_e6_c80"],
    ["ir_r1_k5_s1_e6_c112", "mha_r1_k3_h4_s1_d28_c112", "ir_r1_k5_s1_e6_c112"],
    ["ir_r1_k5_s2_e6_c192", "mha_r1_k3_h6_s1_d32_c192", "ir_r1_k5_s1_e6_c192"],
]
_BLOCK_OF_LITE0 = {
    "0.0": "0.0", "1.0": "1.0", "2.0": "2.0", "3.0": "3.0", "3.1": "3.2",
    "4.0": "4.0", "4.2": "4.2", "5.0": "5.0", "5.2": "5.3",
}  # fmt: skip

default_cfgs = generate_default_cfgs(
    {
        HYBRID.name: {
            "num_classes": 0,
            "input_size": (3, HYBRID.side, HYBRID.side),
            "pool_size": (4, 4),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": HYBRID.licence,
        }
    }
)


def _entrypoint(pretrained: bool = False, **options: Any) -> EfficientNet:
    """The network, as timm builds it; ``options`` are those of timm's ``EfficientNet``."""
    kwargs = {
        "block_args": decode_arch_def(_STAGES),
        "num_features": 1280,
        "stem_size": 32,
        "fix_stem": True,
        "act_layer": nn.ReLU6,
        "norm_layer": nn.BatchNorm2d,
        **options,
    }
    return build_model_with_cfg(EfficientNet, HYBRID.name, pretrained, **kwargs)


_entrypoint.__name__ = HYBRID.name  # timm registers a model under its function's name
register_model(_entrypoint)


def inherited() -> dict[str, torch.Tensor]:
    """Lite0's tensors under this network's names, for the blocks that are Lite0's: what distillation starts at."""
    blocks = {f"blocks.{theirs}.": f"blocks.{own}." for own, theirs in _BLOCK_OF_LITE0.items()}
    tensors = {}
    for key, tensor in LITE0.state_dict().items():
        start = next((start for start in ("conv_stem.", "bn1.", *blocks) if key.startswith(start)), None)
        if start is not None:
            tensors[blocks.get(start, start) + key.removeprefix(start)] = tensor
    return tensors
