"""Whether memory that is freed stays with the process or leaves it, as told."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

START = """
import resource, sys, torch
from medlora.training.allocator import SMALL, told

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def tensors():  # 10 MB and 64 KB in turn; the small ones are kept
    pairs = [(torch.ones(10 << 18), torch.ones(1 << 14)) for _ in range(20)]
    return [pair[1] for pair in pairs]
"""
LARGE_STEPS = """
with told(SMALL + 1) as done:
    print(done)
    torch.ones(30 << 18)  # 30 MB, freed at once: what glibc takes for a hint to keep such sizes in its heap
    before = resident()
    small = tensors()
    print(resident() - before)
"""
SMALL_STEPS = """
before = resident()
with told(SMALL) as done:
    print(done)
    for _ in range(3):
        tensors()
    made = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tensors()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - made)
print(resident() - before)
"""


def run(what: str, **environment: str) -> list[int]:
    """The numbers that it prints, in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", START + what], env=inherited | environment, capture_output=True, text=True, check=True
    )
    words = done.stdout.split()
    return [words[0] == "True", *map(int, words[1:])]


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def test_large_tensors_of_large_steps_return_to_the_system():
    told, stayed = run(LARGE_STEPS)
    assert told and stayed < 10 << 20  # of 200 MB that were freed


def test_pages_of_small_steps_are_made_once():
    told, made, stayed = run(SMALL_STEPS)
    assert told and made < 500  # of 51,200 pages in each of ten steps
    assert stayed < 100 << 20  # afterwards they return, too


@pytest.mark.parametrize(
    "words", [{"MALLOC_MMAP_THRESHOLD_": "33554432"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=9"}]
)
def test_the_environment_has_the_last_word(words):
    assert not run(LARGE_STEPS, **words)[0]
