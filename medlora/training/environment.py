"""On what a run was made: versions and hardware; no host name, user name or path."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from medlora._version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "monai", "lightning", "pydicom", "nibabel", "numpy", "scikit-learn")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware as plain values."""
    return {
        "medlora": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }
