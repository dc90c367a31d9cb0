"""The C library's allocator, told not to keep what a training step has freed."""

from __future__ import annotations

import ctypes
import os
import platform

LARGE = 8 << 20  # bytes; tensors of this size and more get pages of their own
_KEPT = 64 << 20  # bytes that stay with the process at the end of its heap, as with glibc's own settings in a long run
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def return_large_tensors() -> bool:
    """Have large tensors return to the system when they are freed; for the whole process, from now on.

    Left to itself, glibc soon takes them from its heap (mallopt(3), "dynamic mmap threshold"). There the small tensors
    that a step keeps come to lie in the gaps that the large ones left, which no large one fits into any more: some
    hundred megabytes that nothing uses, with a frozen base more than with full fine-tuning, whose tensors are freed in
    the order in which they came. Steps take no longer.

    Returns:
        Whether it could be told: not with another C library than glibc, nor where the environment has told it already.
    """
    told = "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    if told or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
