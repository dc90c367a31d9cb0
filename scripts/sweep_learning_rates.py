"""The highest learning rate of each method: mean AUC on the tuning splits of patient-disjoint folds.

    python scripts/sweep_learning_rates.py COHORT -o sweep [--methods lora,ssf] [--folds 2]

COHORT is a folder that ``medlora check`` made. Each method is trained with a third, once and three times a rate, with
otherwise default settings; test splits are not looked at. A run that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

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
OF = 5  # folds that the patients are dealt into


def tuned(cohort: Cohort, folder: Path, method: str, rate: float) -> float:
    """AUC on the tuning split; NaN where the training diverged."""
    if not is_done(folder):
        settings = {
            "adapter.method": method,
            "train.learning_rate": rate,
            "train.timing": False,
            "evaluation.probe": False,
            "data.cache": str((folder.parent / "cache").resolve()),
        }
        try:
            train(cohort, folder, settings=settings, overwrite=True)
        except MedloraError as error:
            print(f"{folder.name}: {error}", flush=True)
            return float("nan")
    return float(Run.load(folder).kept["tune_auc"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("sweep"))
    parser.add_argument("--methods", default=",".join(RATES))
    parser.add_argument("--folds", type=int, default=2, choices=range(1, OF + 1))
    asked = parser.parse_args()
    result: dict[str, dict[str, list[float]]] = {}
    for method in asked.methods.split(","):
        result[method] = {}
        for rate in RATES[method]:
            found = [
                tuned(
                    with_fold(Cohort.load(asked.cohort), fold, OF),
                    asked.output / f"{method}-{rate:g}-{fold}",
                    method,
                    rate,
                )
                for fold in range(asked.folds)
            ]
            result[method][f"{rate:g}"] = found
            each = " ".join(f"{auc:.3f}" for auc in found)
            print(f"{method:8} {rate:<7g} mean AUC {np.mean(found):.4f}  folds {each}", flush=True)
        (asked.output / "sweep.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
