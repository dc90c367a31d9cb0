"""Weights from a local file, read without running anything that the file may contain."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from medlora.errors import MedloraError

if TYPE_CHECKING:
    import torch

# Under these keys training programs keep the state dict inside a checkpoint; averaged weights first.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from safetensors, or from a PyTorch file that holds tensors alone.

    Raises:
        MedloraError: the file is missing, damaged, needs pickled code, or holds no state dict.
    """
    if not path.is_file():
        raise MedloraError(f"no weights file at {path}", "check the path given to --weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            import torch

            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MedloraError(
            f"{path} cannot be loaded safely: it holds more than tensors, and running it would run unknown code",
            "save the plain state dict as safetensors where you trust the file, and give that to --weights",
        ) from error
    except Exception as error:
        raise MedloraError(
            f"{path} is not a readable weights file ({type(error).__name__}): it may be cut short",
            "fetch the file again; safetensors and PyTorch state dicts (.pt, .pth, .bin) are read",
        ) from error
    return _tensors(content, path)


def _tensors(content: object, path: Path) -> dict[str, torch.Tensor]:
    import torch

    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise MedloraError(f"{path} holds no state dict", "give a file that maps names to tensors")
    tensors = {
        str(key).removeprefix("_orig_mod.").removeprefix("module.").removeprefix("_orig_mod."): value
        for key, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise MedloraError(f"{path} holds no tensors", "give a file that maps names to tensors")
    return tensors
