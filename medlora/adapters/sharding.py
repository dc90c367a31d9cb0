"""Tensors of which each process holds a part: PyTorch's DTensor, as ``fully_shard`` (FSDP2) leaves between steps."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from medlora.errors import MedloraError


def sharded(tensor: Any) -> bool:
    """Whether ``tensor`` is spread over processes; told without importing torch.distributed."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """All of ``tensor``; where it is spread, all processes have to ask at once."""
    return tensor.full_tensor() if sharded(tensor) else tensor


def require_whole(model: nn.Module, what: str) -> None:
    """Raise where ``model`` is spread over processes.

    Raises:
        MedloraError: it is.
    """
    if any(sharded(parameter) for parameter in model.parameters()):
        raise MedloraError(
            f"cannot {what}: the parameters are spread over several processes (FSDP)",
            "call adapter.state_dict() in all processes, and load it into an adapter on a whole model",
        )
