"""The most memory that this process has taken so far."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path


def peak_mb(device: str) -> float:
    """Megabytes (10⁶ bytes): of the GPU's memory where one was used, else of its own; NaN where it cannot be known.

    Linux is asked for VmHWM (proc(5)), which begins anew with each program; getrusage(2) hands down what
    the process that started it had taken.
    """
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    if found:
        return int(found[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
