"""Five patient-disjoint folds of the COVID radiographs: LoRA, linear probe, full fine-tuning, random weights.

    python scripts/covid_folds.py covid-cxr/dicom covid-cxr/labels.csv -o folds --jobs 2

Each fold is trained with medlora's default settings (``full`` and ``random`` by ``--method full``), its operating
point chosen on a fifth of the other four folds, and tested once. Printed are, for each fold and in the mean,
the AUC of COVID against the rest and of pneumonia against normal (scored p_pneumonia / (p_pneumonia + p_normal)), and
paired tests by patient: Obuchowski's variance of the difference in each fold; folds share no patient, so the variance
of the mean difference is the sum of theirs, divided by the square of their number.

COVID against the rest is partly a test of where an image comes from (see datasets/covid-radiographs.md).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

METHODS = {
    "lora": {},
    "full": {"adapter.method": "full"},
    "random": {
        "adapter.method": "full",
        "model.weights": "random",
        "train.head": "random",
        "train.learning_rate": 1e-3,
    },
}
FOLDS = 5


def one(cohort_folder, output, fold, method, threads):
    """Train and test one method on one fold; taken up where it was interrupted, skipped where it is done."""
    import torch

    from medlora.cohorts import Cohort
    from medlora.training import train
    from medlora.training.comparing import with_fold

    torch.set_num_threads(threads)
    folder = output / f"{method}-{fold}"
    if not (folder / "predictions" / "test.csv").is_file():
        settings = {**METHODS[method], "evaluation.probe": method == "lora"}
        cohort = with_fold(Cohort.load(cohort_folder), fold, FOLDS)
        train(cohort, folder, settings=settings, resume=True).evaluate("test", overwrite=True)
    return fold, method


def scores(table, task):
    """Truth, score and patient of the cases of a task."""
    if task == "covid":
        return table["y"] == "covid", table["p_covid"], table["patient"]
    rows = table[table["y"] != "covid"]
    return rows["y"] == "pneumonia", rows["p_pneumonia"] / (rows["p_pneumonia"] + rows["p_normal"]), rows["patient"]


def mean_difference(tables, task, first, second):
    """Mean over folds of AUC(first) − AUC(second), its standard error, z and two-sided p."""
    from scipy.stats import norm

    from medlora.evaluation import delong_test

    tests = []
    for fold in range(FOLDS):
        truth, score, patient = scores(tables[first][fold], task)
        _, other, _ = scores(tables[second][fold], task)
        tests.append(delong_test(truth, score, other, patient))
    value = float(np.mean([test.value for test in tests]))
    error = math.sqrt(sum(test.se**2 for test in tests)) / FOLDS
    z = value / error
    return {"difference": value, "se": error, "z": z, "p": float(2 * norm.sf(abs(z)))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("folds"))
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    asked = parser.parse_args()

    from sklearn.metrics import roc_auc_score

    from medlora.cohorts import Cohort

    cohort = asked.output / "cohort"
    if not cohort.is_dir():
        Cohort.from_archive(asked.archive, asked.labels).save(cohort)
    work = [(fold, method) for method in asked.methods for fold in range(FOLDS)]
    with ProcessPoolExecutor(asked.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(one, cohort, asked.output, fold, method, asked.threads) for fold, method in work]
        for future in waiting:
            future.result()

    words = dict.fromkeys(("case_id", "scan_id", "patient"), str)
    names = {method: (method, "test") for method in asked.methods}
    if "lora" in asked.methods:
        names["probe"] = ("lora", "test.probe")
    tables = {
        name: [
            pd.read_csv(asked.output / f"{method}-{fold}" / "predictions" / f"{file}.csv", dtype=words)
            for fold in range(FOLDS)
        ]
        for name, (method, file) in names.items()
    }
    result = {"auc": {}, "paired": {}}
    for task in ("covid", "pneumonia"):
        for name, folds in tables.items():
            values = [float(roc_auc_score(*scores(table, task)[:2])) for table in folds]
            result["auc"][f"{task} {name}"] = {"mean": float(np.mean(values)), "folds": values}
            print(f"{task:10} {name:7} mean AUC {np.mean(values):.4f}  folds " + " ".join(f"{v:.3f}" for v in values))
        for other in [name for name in tables if name != "lora" and "lora" in tables]:
            test = mean_difference(tables, task, "lora", other)
            result["paired"][f"{task} lora - {other}"] = test
            print(f"{task:10} lora − {other}: {test['difference']:+.4f} (SE {test['se']:.4f}), p = {test['p']:.2g}")
    (asked.output / "folds.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
