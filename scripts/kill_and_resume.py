"""Kill a training at random moments and resume it: python scripts/kill_and_resume.py COHORT --times 20

A training is run to its end once. Then, as many times as asked, the same training is killed (SIGKILL) at a moment drawn
from all of its length, resumed, and its adapter's file compared with that of the first, byte for byte.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medlora.progress import track


def main() -> int:
    """Run, kill, resume, compare; 0 where all adapters are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="of medlora train, after --; else a short training at 64 pixels")
    asked = parser.parse_args()
    options = asked.options or ["--epochs", "4", "--set", "data.image_size=64", "--set", "adapter.dropout=0.1"]

    def start(run: Path, *more: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "medlora", "train", str(asked.cohort), "-o", str(run), *options, *more]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def trained(run: Path) -> bytes:
        return (run / "adapter" / "adapter_model.safetensors").read_bytes()

    draw, equal, states = random.Random(asked.seed), 0, []
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        if start(Path(place) / "once").wait():
            sys.exit("the training failed without being killed; try it with medlora train")
        length = time.monotonic() - began
        for index in track(range(asked.times), "killed and resumed"):
            run = Path(place) / str(index)
            process = start(run)
            time.sleep(draw.uniform(0, length))
            process.send_signal(signal.SIGKILL)
            process.wait()
            rows = run / "metrics.csv"
            states.append(len(rows.read_text().splitlines()) - 1 if rows.is_file() else 0)
            equal += start(run, "--resume").wait() == 0 and trained(run) == trained(Path(place) / "once")
    print(f"{equal} of {asked.times} adapters equal byte for byte; killed with {states} epochs finished")
    return equal != asked.times


if __name__ == "__main__":
    sys.exit(main())
