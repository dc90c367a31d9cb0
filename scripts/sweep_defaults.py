"""Settings around the defaults: mean AUC on the tuning splits of patient-disjoint folds, the same ones for all.

    python scripts/sweep_defaults.py COHORT -o sweep [--vary rates|lora] [--methods lora,ssf] [--folds 2]

COHORT is a folder that ``medlora check`` made. ``rates`` trains each method with a third, once and three times a
learning rate; ``lora`` varies rank, alpha, targets, depth and dropout of LoRA, one at a time. All else is default; test
splits are not looked at. A run that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from medlora.cohorts import Cohort
from medlora.errors import MedloraError
from medlora.training import Run, train
from medlora.training.comparing import with_fold
from medlora.training.run_folder import is_done

RATES = {
    "lora": (3e-4, 1e-3, 3e-3),
    "dora": (3e-4, 1e-3, 3e-3),
    "lora_fa": (3e-4, 1e-3, 3e-3),
    "ssf": (3e-4, 1e-3, 3e-3, 1e-2),
    "bitfit": (3e-4, 1e-3, 3e-3, 1e-2),
    "norm": (3e-4, 1e-3, 3e-3, 1e-2),
    "full": (1e-4, 3e-4, 1e-3),
}
LORA: dict[str, dict[str, Any]] = {
    "default": {},
    "rank=2 alpha=16": {"rank": 2, "alpha": 16},
    "rank=4 alpha=32": {"rank": 4, "alpha": 32},
    "rank=16 alpha=128": {"rank": 16, "alpha": 128},
    "rank=32 alpha=256": {"rank": 32, "alpha": 256},
    "alpha=8": {"alpha": 8},
    "alpha=16": {"alpha": 16},
    "alpha=32": {"alpha": 32},
    "alpha=128": {"alpha": 128},
    "targets=attention": {"targets": "attention"},
    "targets=conv.pointwise": {"targets": "conv.pointwise"},
    "targets=conv": {"targets": "conv"},
    "last=1/3": {"last": "1/3"},
    "last=2/3": {"last": "2/3"},
    "dropout=0.1": {"dropout": 0.1},
}
OF = 5  # folds that the patients are dealt into


def variants(vary: str, methods: list[str]) -> dict[str, dict[str, Any]]:
    """Name of each variant → what it sets."""
    if vary == "lora":
        return {name: {f"adapter.{key}": value for key, value in set_.items()} for name, set_ in LORA.items()}
    return {
        f"{method} lr={rate:g}": {"adapter.method": method, "train.learning_rate": rate}
        for method in methods
        for rate in RATES[method]
    }


def tuned(cohort: Cohort, folder: Path, settings: dict[str, Any]) -> float:
    """AUC on the tuning split; NaN where the training diverged."""
    if not is_done(folder):
        same = {
            "train.timing": False,
            "evaluation.probe": False,
            "data.cache": str((folder.parent / "cache").resolve()),
        }
        try:
            train(cohort, folder, settings=same | settings, overwrite=True)
        except MedloraError as error:
            print(f"{folder.name}: {error}", flush=True)
            return float("nan")
    return float(Run.load(folder).kept["tune_auc"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("sweep"))
    parser.add_argument("--vary", choices=("rates", "lora"), default="rates")
    parser.add_argument("--methods", default=",".join(RATES), help="whose rates")
    parser.add_argument("--folds", type=int, default=2, choices=range(1, OF + 1))
    asked = parser.parse_args()
    result: dict[str, list[float]] = {}
    for name, settings in variants(asked.vary, asked.methods.split(",")).items():
        began = time.monotonic()
        result[name] = [
            tuned(
                with_fold(Cohort.load(asked.cohort), fold, OF),
                asked.output / f"{name.replace('/', 'of').replace(' ', '-')}-{fold}",
                settings,
            )
            for fold in range(asked.folds)
        ]
        each = " ".join(f"{auc:.3f}" for auc in result[name])
        seconds = (time.monotonic() - began) / asked.folds
        print(f"{name:22} mean AUC {np.mean(result[name]):.4f}  folds {each}  {seconds:.0f} s each", flush=True)
        (asked.output / f"{asked.vary}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
