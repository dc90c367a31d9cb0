"""Maps of what in an image speaks for a class: MONAI's, and one for networks of tokens."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from medlora.errors import MedloraError

METHODS = ("gradcam", "gradcam++", "tokens", "occlusion")
SOURCES = {
    "gradcam": "Selvaraju et al., Grad-CAM, ICCV 2017, arXiv 1610.02391; by MONAI",
    "gradcam++": "Chattopadhyay et al., Grad-CAM++, WACV 2018, arXiv 1710.11063; by MONAI",
    "tokens": "gradient × activation summed over the features of each token, as HiResCAM does at each place of a "
    "convolution's map (Draelos & Carin 2020, arXiv 2011.08891), at the tokens that enter the last block; what speaks "
    "against the class is set to 0",
    "occlusion": "occlusion sensitivity: how far the log-odds fall when a part of the image is covered by its mean "
    "(Zeiler & Fergus, ECCV 2014, arXiv 1311.2901); by MONAI",
}
_COVERED = 8  # of the side of the image: that of the square that is covered
_BATCH = 16


@dataclass(frozen=True)
class Layer:
    """The layer that a map is made of.

    Attributes:
        path: of the module.
        method: what its output allows: ``gradcam`` for a map of features, ``tokens`` for a row of them.
        grid: rows and columns of its places.
        prefix: tokens before those of the image.
    """

    path: str
    method: str
    grid: tuple[int, int]
    prefix: int = 0


def last_map(network: nn.Module, inputs: torch.Tensor) -> Layer | None:
    """The last layer whose output still has places: a map (1, C, h, w), or tokens (1, prefix + h · w, C).

    Of tokens it is the last but one module of many blocks, or the first norm of the last block: behind it only the
    class token may be read, whose gradient on the others is 0. None where the network is neither.
    """
    model = network.get_submodule("model")
    blocks = getattr(model, "blocks", None)
    prefix = getattr(model, "num_prefix_tokens", None)
    seen: list[tuple[str, torch.Size]] = []
    handles = [
        module.register_forward_hook(
            lambda _module, _inputs, out, path=path: (
                seen.append((path, out.shape)) if isinstance(out, torch.Tensor) else None
            )
        )
        for path, module in network.named_modules()
        if path not in ("", "model")
    ]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if prefix is not None and blocks is not None and len(blocks):
        path = f"model.blocks.{len(blocks) - 1}.norm1"
        shape = next((shape for name, shape in seen if name == path), None)
        if shape is None or len(shape) != 3:
            return None
        side = math.isqrt(shape[1] - prefix)
        return Layer(path, "tokens", (side, side), prefix) if side * side == shape[1] - prefix else None
    if getattr(model, "output_fmt", "NCHW") != "NCHW":
        return None
    spatial = [(path, shape) for path, shape in seen if len(shape) == 4 and min(shape[2:]) > 1]
    if not spatial or any(len(shape) == 3 for _, shape in seen):
        return None
    path, shape = spatial[-1]
    # A sequence that ends in the same output has the shorter path; either serves.
    return Layer(path, "gradcam", (int(shape[2]), int(shape[3])))


def maps(
    network: nn.Module, inputs: torch.Tensor, index: int, method: str, layer: Layer | None, apart: bool
) -> np.ndarray:
    """Maps of class ``index``: (1, H, W), or with ``apart`` (C, H, W), float32.

    Args:
        network: (N, C, H, W) → (N, K), higher is more for a class.
        inputs: (1, C, H, W), as the network reads them.
        index: of the class.
        method: one of `METHODS`.
        layer: from `last_map`.
        apart: cover each channel alone (occlusion).

    Raises:
        MedloraError: the method does not fit the network.
    """
    if method == "occlusion":
        channels = range(inputs.shape[1]) if apart else [None]
        return np.concatenate([_occlusion(network, inputs, index, channel) for channel in channels])
    wanted = "tokens" if method == "tokens" else "gradcam"
    if layer is None or layer.method != wanted:
        kind = "maps of features" if wanted == "gradcam" else "tokens"
        raise MedloraError(
            f"{method} needs a network that ends in {kind}, and this one does not",
            f"choose {'occlusion' if layer is None else layer.method + ' or occlusion'}",
        )
    found = (
        _tokens(network, inputs, index, layer)
        if method == "tokens"
        else _gradcam(network, inputs, index, method, layer)
    )
    return interpolate(found, inputs.shape[2:], mode="bilinear", align_corners=False)[0].cpu().numpy()


def _gradcam(network: nn.Module, inputs: torch.Tensor, index: int, method: str, layer: Layer) -> torch.Tensor:
    """(1, 1, h, w)."""
    from monai.visualize import GradCAM, GradCAMpp

    module = network.get_submodule(layer.path)
    before = (list(module._forward_hooks), list(module._backward_hooks))
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*full backward hook.*")
        kind = GradCAM if method == "gradcam" else GradCAMpp
        cam = kind(nn_module=network, target_layers=layer.path)
        try:
            found = cam.compute_map(inputs.clone().requires_grad_(True), class_idx=index)
        finally:  # MONAI leaves its hooks on the module, and gradients on the weights
            network.zero_grad(set_to_none=True)
            for hooks, known in zip((module._forward_hooks, module._backward_hooks), before, strict=True):
                for key in [key for key in hooks if key not in known]:
                    del hooks[key]
    return found.detach()


def _tokens(network: nn.Module, inputs: torch.Tensor, index: int, layer: Layer) -> torch.Tensor:
    """(1, 1, h, w)."""
    kept: list[torch.Tensor] = []
    handle = network.get_submodule(layer.path).register_forward_hook(lambda _module, _inputs, out: kept.append(out))
    try:
        with torch.enable_grad():
            score = network(inputs.clone().requires_grad_(True))[0, index]
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        handle.remove()
    product = (gradient * kept[0]).sum(dim=-1)[:, layer.prefix :]
    return product.reshape(1, 1, *layer.grid).clamp_min(0).detach()


class _OneChannel(nn.Module):
    """The network as a function of one channel, the others as they are."""

    def __init__(self, network: nn.Module, inputs: torch.Tensor, channel: int) -> None:
        super().__init__()
        self.network, self.inputs, self.channel = network, inputs, channel

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) → (N, K)."""
        whole = self.inputs.expand(len(images), -1, -1, -1).clone()
        whole[:, self.channel] = images[:, 0]
        return self.network(whole)


def _occlusion(network: nn.Module, inputs: torch.Tensor, index: int, channel: int | None) -> np.ndarray:
    """(1, H, W): the log-odds of the image less those with the part about a pixel covered."""
    from monai.visualize import OcclusionSensitivity

    covered = network if channel is None else _OneChannel(network, inputs, channel)
    part = inputs if channel is None else inputs[:, channel : channel + 1]
    side = max(1, min(part.shape[2:]) // _COVERED)
    occlude = OcclusionSensitivity(
        covered, mask_size=side, n_batch=_BATCH, verbose=False, mode="mean_img", overlap=0.5, activate=False
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # MONAI's own indexing
        values, _ = occlude(part)
        whole = covered(part)[0, index]
    return (whole - torch.as_tensor(values)[0, index : index + 1]).float().cpu().numpy()
