"""The C library's allocator, told what to do with the memory that a training step has freed."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

SMALL = 1 << 30  # bytes of a step that the process may keep from step to step
LARGE = 8 << 20  # bytes; where steps are not small, tensors of this size and more get pages of their own
_AT_END = 64 << 20  # bytes that stay at the end of the heap, as with glibc's own settings in a long run
_ALL = 2**31 - 1  # the largest number that mallopt takes
_AREAS = 1 << 16  # of pages of their own that there may be: glibc's own setting
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h


@contextmanager
def told(step: int) -> Iterator[bool]:
    """Within it, the memory of small steps stays with the process, and that of others is given back as it is freed.

    Left to itself, glibc does something of both (mallopt(3), "dynamic mmap threshold"): the end of its heap goes back
    to the system in each step, and a step waits for its pages to be made again; and the small tensors that a step keeps
    come to lie in the gaps that large ones left, which no large one fits into any more. The first makes small steps
    slower; the second costs large ones memory that nothing uses, with a frozen base more than with full fine-tuning,
    whose tensors are freed in the order in which they came.

    Afterwards nothing is kept.

    Args:
        step: bytes that a step is expected to take at its height.

    Yields:
        Whether it could be told: not with another C library than glibc, nor where the environment has told it already.
    """
    if not _can_be_told():
        yield False
        return
    done = _tell({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _ALL}) if step <= SMALL else _give_back()
    try:
        yield done
    finally:
        _give_back()


@cache
def _can_be_told() -> bool:
    by_environment = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"} & os.environ.keys()
    by_tunables = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return platform.libc_ver()[0] == "glibc" and not by_environment and not by_tunables


def _give_back() -> bool:
    done = _tell({_M_MMAP_MAX: _AREAS, _M_MMAP_THRESHOLD: LARGE, _M_TRIM_THRESHOLD: _AT_END})
    ctypes.CDLL(None).malloc_trim(_AT_END)
    return done


def _tell(settings: dict[int, int]) -> bool:
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(word, value) for word, value in settings.items()]  # each of them, whatever became of the others
    return all(done)
