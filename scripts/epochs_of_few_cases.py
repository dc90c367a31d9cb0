"""How long to train on few cases: the same people to test on, few and more to learn from, few and more epochs.

    python scripts/epochs_of_few_cases.py COHORT -o few --classes normal,pneumonia

COHORT is a folder that ``medlora check`` made, with some hundred patients to learn from. Of those a number is drawn,
several times; adapters are trained on each draw with default settings but for the epochs, and all are judged on the
cohort's own test split. Printed are the mean AUC over the draws and, with its standard error, the difference from the
fewest epochs within a draw, since draws differ far more than epochs do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from medlora.cohorts import Cohort
from medlora.training import train


def drawn(folder: Path, classes: list[str], patients: int, draw: int) -> Cohort:
    """The cohort with so many of its patients to learn from, three in four of them to train on, and all to test on."""
    cohort = Cohort.load(folder)
    table = cohort.table[cohort.table["label"].isin(classes)]
    random = np.random.default_rng((draw, patients))
    chosen = set(table.loc[table["split"] == "test", "patient"])
    for split, count in (("train", round(0.75 * patients)), ("tune", round(0.25 * patients))):
        there = np.sort(table.loc[table["split"] == split, "patient"].unique())
        chosen |= set(random.choice(there, count, replace=False))
    cohort.table = table[table["patient"].isin(chosen)]
    return cohort


def auc(path: Path, positive: str) -> float:
    """Of predictions that were written."""
    table = pd.read_csv(path)
    return float(roc_auc_score(table["y"] == positive, table[f"p_{positive}"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("few"))
    parser.add_argument("--classes", required=True, help="two, the positive one last")
    parser.add_argument("--patients", type=int, nargs="+", default=[24, 48, 96, 192])
    parser.add_argument("--epochs", type=int, nargs="+", default=[6, 12, 24, 48])
    parser.add_argument("--draws", type=int, default=4)
    asked = parser.parse_args()
    classes = asked.classes.split(",")
    result = {}
    for patients in asked.patients:
        found = np.zeros((asked.draws, len(asked.epochs)))
        probe = np.zeros(asked.draws)
        for draw in range(asked.draws):
            for column, epochs in enumerate(asked.epochs):
                folder = asked.output / f"{patients}-{draw}-{epochs}"
                settings = {
                    "data.classes": classes,
                    "data.cache": str((asked.output / "cache").resolve()),
                    "train.epochs": epochs,
                    "train.timing": False,
                    "evaluation.probe": column == 0,
                }
                if not (folder / "predictions" / "test.csv").is_file():
                    cohort = drawn(asked.cohort, classes, patients, draw)
                    train(cohort, folder, settings=settings, overwrite=True).evaluate("test")
                found[draw, column] = auc(folder / "predictions" / "test.csv", classes[-1])
                if column == 0:
                    probe[draw] = auc(folder / "predictions" / "test.probe.csv", classes[-1])
        cells = []
        for column, epochs in enumerate(asked.epochs):
            gain = found[:, column] - found[:, 0]
            error = gain.std(ddof=1) / np.sqrt(asked.draws)
            cells.append(f"{epochs} epochs {found[:, column].mean():.3f} ({gain.mean():+.3f}, SE {error:.3f})")
        print(f"{patients} patients: linear probe {probe.mean():.3f}; " + "; ".join(cells), flush=True)
        result[patients] = {"epochs": asked.epochs, "auc": found.tolist(), "probe": probe.tolist()}
        (asked.output / "few.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
