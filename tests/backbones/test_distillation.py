"""The script that distils a backbone: the same bytes each time, interrupted or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[2] / "scripts" / "distil_backbone.py"
SMALL = ["--steps", "2", "--batch", "8", "--phantoms", "1", "--warm-batches", "2", "--teacher-side", "128"]


def distil(folder: Path, *more: str) -> Path:
    command = [sys.executable, str(SCRIPT), "-o", str(folder), *SMALL, *more]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=one)
    assert ran.returncode == 0, ran.stderr
    return folder / "student.safetensors"


@pytest.mark.slow
def test_an_interrupted_distillation_gives_the_bytes_of_a_whole_one(tmp_path: Path) -> None:
    whole = distil(tmp_path / "whole")
    interrupted = distil(tmp_path / "interrupted", "--stop", "1")
    assert not interrupted.exists()
    assert distil(tmp_path / "interrupted").read_bytes() == whole.read_bytes()
    assert whole.stat().st_size < 6e6
    tensors = load_file(whole)
    assert any(".attn." in name for name in tensors)
    assert "not for" in (tmp_path / "whole" / "card.md").read_text(encoding="utf-8").lower()

    other = distil(tmp_path / "other", "--seed", "1")
    assert other.read_bytes() != whole.read_bytes()
