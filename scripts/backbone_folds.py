"""Patient-disjoint folds of an archive: LoRA, linear probe, full fine-tuning and random weights, of several backbones.

    python scripts/backbone_folds.py dicom labels.csv -o folds --tasks covid pneumonia:normal \\
        [--backbones medlora-hybrid tf_efficientnet_lite0] [--methods lora full random] [--jobs 2]

Each fold is trained with medlora's default settings (``full`` and ``random`` by ``--method full``), its operating
point chosen on a fifth of the other folds, and tested once; the linear probe is the one that each LoRA run trains
beside itself. A task is a class against the rest (``covid``), or one class against another, scored
p_FIRST / (p_FIRST + p_SECOND) on the cases of these two (``pneumonia:normal``).

Printed are the AUC of each fold and their mean, the seconds that a training took in the mean, and paired tests by
patient: the LoRA of a backbone against its other methods and against the LoRA of the other backbones. Obuchowski's
variance of the difference in each fold; folds share no patient, so the variance of the mean difference is the sum of
theirs, divided by the square of their number.

On the COVID radiographs ``covid`` is partly a test of where an image comes from (datasets/covid-radiographs.md).
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

from medlora.backbones import DEFAULT

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


def folder_of(output, backbone, method, fold):
    return output / f"{backbone}-{method}-{fold}"


def one(cohort_folder, folder, backbone, method, fold, threads):
    """Train and test one method on one fold; taken up where it was interrupted, skipped where it is done."""
    import torch

    from medlora.cohorts import Cohort
    from medlora.training import train
    from medlora.training.comparing import with_fold

    torch.set_num_threads(threads)
    if not (folder / "predictions" / "test.csv").is_file():
        settings = {**METHODS[method], "model.backbone": backbone, "evaluation.probe": method == "lora"}
        cohort = with_fold(Cohort.load(cohort_folder), fold, FOLDS)
        train(cohort, folder, settings=settings, resume=True).evaluate("test", overwrite=True)


def scores(table, task):
    """Truth, score and patient of the cases of a task."""
    first, _, second = task.partition(":")
    if not second:
        return table["y"] == first, table[f"p_{first}"], table["patient"]
    rows = table[table["y"].isin([first, second])]
    share = rows[f"p_{first}"] / (rows[f"p_{first}"] + rows[f"p_{second}"])
    return rows["y"] == first, share, rows["patient"]


def mean_difference(tables, task, first, second):
    """Mean over folds of AUC(first) − AUC(second), its standard error, z and two-sided p."""
    from scipy.stats import norm

    from medlora.evaluation import delong_test

    tests = []
    for own, other in zip(tables[first], tables[second], strict=True):
        truth, score, patient = scores(own, task)
        tests.append(delong_test(truth, score, scores(other, task)[1], patient))
    value = float(np.mean([test.value for test in tests]))
    error = math.sqrt(sum(test.se**2 for test in tests)) / FOLDS
    return {"difference": value, "se": error, "p": float(2 * norm.sf(abs(value / error)))}


def read(output, backbone, method, file):
    """Predictions of each fold, its cases in one order."""
    words = dict.fromkeys(("case_id", "scan_id", "patient"), str)
    paths = [folder_of(output, backbone, method, fold) / "predictions" / f"{file}.csv" for fold in range(FOLDS)]
    return [pd.read_csv(path, dtype=words).sort_values("case_id", ignore_index=True) for path in paths]


def seconds(output, backbone, method):
    """What a training took, in the mean of the folds."""
    folders = [folder_of(output, backbone, method, fold) / "adapter" for fold in range(FOLDS)]
    return float(np.mean([json.loads((f / "medlora.json").read_text())["training"]["seconds"] for f in folders]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("folds"))
    parser.add_argument("--tasks", nargs="+", required=True, help="CLASS, or CLASS:OTHER")
    parser.add_argument("--backbones", nargs="+", default=[DEFAULT])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    asked = parser.parse_args()

    from sklearn.metrics import roc_auc_score

    from medlora.cohorts import Cohort

    cohort = asked.output / "cohort"
    if not cohort.is_dir():
        Cohort.from_archive(asked.archive, asked.labels).save(cohort)
    arms = [(backbone, method) for backbone in asked.backbones for method in asked.methods]
    with ProcessPoolExecutor(asked.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [
            pool.submit(one, cohort, folder_of(asked.output, *arm, fold), *arm, fold, asked.threads)
            for fold in range(FOLDS)
            for arm in arms
        ]
        for future in waiting:
            future.result()

    tables, result = {}, {"seconds": {}, "auc": {}, "paired": {}}
    for backbone, method in arms:
        tables[backbone, method] = read(asked.output, backbone, method, "test")
        if method == "lora":
            tables[backbone, "probe"] = read(asked.output, backbone, method, "test.probe")
        result["seconds"][f"{backbone} {method}"] = seconds(asked.output, backbone, method)
        print(f"{backbone} {method}: {result['seconds'][f'{backbone} {method}']:.0f} s a training")
    pairs = [
        (own, other)
        for own in tables
        for other in tables
        if own != other and own[1] == "lora" and (own[0] == other[0] or other[1] == "lora")
    ]
    for task in asked.tasks:
        print(f"\n{task}")
        for arm, folds in tables.items():
            values = [float(roc_auc_score(*scores(table, task)[:2])) for table in folds]
            result["auc"][f"{task} {' '.join(arm)}"] = {"mean": float(np.mean(values)), "folds": values}
            print(f"  {' '.join(arm):30} mean AUC {np.mean(values):.4f}  folds " + " ".join(f"{v:.3f}" for v in values))
        for own, other in pairs:
            test = mean_difference(tables, task, own, other)
            result["paired"][f"{task} {' '.join(own)} - {' '.join(other)}"] = test
            print(
                f"  {' '.join(own)} − {' '.join(other)}: {test['difference']:+.4f} (SE {test['se']:.4f}), "
                f"p = {test['p']:.2g}"
            )
    (asked.output / "folds.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
