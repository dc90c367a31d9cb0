"""The device that a user named, or the best one there is."""

from __future__ import annotations

import torch

from medlora.errors import MedloraError


def pick_device(device: str) -> torch.device:
    """``auto`` or a device's name → the device.

    Raises:
        MedloraError: it is not on this machine.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(device.partition(":")[0], False):
        there = ", ".join(name for name, there in available.items() if there)
        raise MedloraError(f"the device {device!r} is not on this machine", f"choose one of: auto, {there}")
    return torch.device(device)
