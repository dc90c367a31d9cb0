"""Whether large tensors leave the process when they are freed, though small ones lie between them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEP = """
import torch
from medlora.training.allocator import return_large_tensors

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

print(return_large_tensors())
torch.ones(30 << 18)  # 30 MB, freed at once: what glibc takes for a hint to keep such sizes in its heap
before = resident()
pairs = [(torch.ones(10 << 18), torch.ones(1 << 14)) for _ in range(20)]  # 10 MB and 64 KB
small = [pair[1] for pair in pairs]
del pairs
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("told", [False, True], ids=["by medlora", "by the environment"])
def test_large_tensors_return_to_the_system(told):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    if told:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(32 << 20)
    words = subprocess.run(
        [sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert words[0] == str(not told)
    if not told:  # else it depends on what the heap happens to look like; of 200 MB some 20 to 180 stay
        assert int(words[1]) < 10 << 20
