"""Phantom nodules: an adapter trained on 150 patients, tested on patients of a scanner that training has not seen.

    python scripts/nodules_new_scanner.py -o nodules --epochs 20

Draws 300 patients (150 to train on, 60 to choose the operating point on, 90 to test) with ``scanner="shifted"``: the
test patients were examined on scanner C, which differs from A and B in kernel, dose, thickness and tilt. LoRA, the
linear probe, full fine-tuning and the same net from random weights are trained on the same cases with default settings
(but for ``--epochs``) and tested once. Printed are their AUCs and LoRA's paired difference from each, by patient
(DeLong; Obuchowski's variance, where patients have several nodules).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from backbone_folds import METHODS


def cohort_of(output, patients, seed, matrix):
    """The cohort of the phantom archive; drawn where it is not there yet."""
    from medlora.cohorts import Cohort
    from medlora.phantoms import ct

    if not (output / "cohort").is_dir():
        labels = output / "archive" / "labels.csv"
        if not labels.is_file():
            ct.write(output / "archive", patients, seed, scanner="shifted", matrix=matrix, series=("thin",))
        Cohort.from_archive(output / "archive" / "dicom", labels, split_column="split").save(output / "cohort")
    return Cohort.load(output / "cohort")


def tested(cohort, output, name, settings, epochs, seed):
    """Train one arm, where that is not done, and test it once."""
    from medlora.training import train

    folder = output / name
    if not (folder / "predictions" / "test.csv").is_file():
        values = {
            **settings,
            "train.seed": seed,
            "train.timing": False,
            "evaluation.probe": name == "lora",
            "data.cache": str((output / "cache").resolve()),
        }
        if epochs:
            values["train.epochs"] = epochs
        train(cohort, folder, settings=values, resume=True).evaluate("test", overwrite=True)


def read(path):
    table = pd.read_csv(path, dtype=dict.fromkeys(("case_id", "patient"), str))
    return table.sort_values("case_id", ignore_index=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("nodules"))
    parser.add_argument("--patients", type=int, default=300, help="half of them to train on")
    parser.add_argument("--matrix", type=int, default=256, help="pixels along a side of a slice")
    parser.add_argument("--epochs", type=int, help="of every arm; none: medlora's default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    asked = parser.parse_args()

    from sklearn.metrics import roc_auc_score

    from medlora.evaluation import delong_test

    asked.output.mkdir(parents=True, exist_ok=True)
    cohort = cohort_of(asked.output, asked.patients, asked.seed, asked.matrix)
    for name in asked.methods:
        tested(cohort, asked.output, name, METHODS[name], asked.epochs, asked.seed)
    files = {name: asked.output / name / "predictions" / "test.csv" for name in asked.methods}
    if "lora" in files:
        files["probe"] = asked.output / "lora" / "predictions" / "test.probe.csv"
    tables = {name: read(path) for name, path in files.items()}
    result = {}
    for name, table in tables.items():
        truth = table["y"] == "malignant"
        result[name] = {"auc": float(roc_auc_score(truth, table["p_malignant"]))}
        print(f"{name:7} AUC {result[name]['auc']:.3f}  ({len(table)} nodules, {table['patient'].nunique()} patients)")
    for name in [name for name in tables if name != "lora" and "lora" in tables]:
        lora, other = tables["lora"], tables[name]
        truth = lora["y"] == "malignant"
        test = delong_test(truth, lora["p_malignant"], other["p_malignant"], lora["patient"])
        result[name] |= {"lora_minus": test.value, "se": test.se, "p": test.p}
        print(f"lora − {name}: {test.value:+.3f} (SE {test.se:.3f}), p = {test.p:.2g}")
    (asked.output / "nodules.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
