"""Does it cost accuracy to compute the frozen part once, for a few views of each image, and train on those alone?

    python scripts/cached_views_auc.py covid-cxr/dicom covid-cxr/labels.csv -o views

LoRA in the last third of the default backbone, default settings otherwise, in two arms: four kept views of each image
(``train.prefix_views=4``), and the whole network with a new augmentation in every step (``train.prefix_views=0``).
Over patient-disjoint folds of the COVID radiographs and three seeds. Printed is the mean difference of the AUC,
pneumonia against normal (scored p_pneumonia / (p_pneumonia + p_normal)), with a 90 % interval from 2,000 resamples of
the test patients, who are the same for both arms and all seeds: non-inferior, where its lower end is above the margin
(a one-sided test at 5 %).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

ARMS = {"cached": 4, "uncached": 0}
FOLDS, RESAMPLES, MARGIN = 5, 2000, -0.02


def one(cohort, output, fold, seed, arm, threads):
    """The test predictions of one arm; trained where they are not there yet."""
    from medlora.cohorts import Cohort
    from medlora.training import train
    from medlora.training.comparing import with_fold

    folder = output / f"{arm}-fold{fold}-seed{seed}"
    if not (folder / "predictions" / "test.csv").is_file():
        import torch

        torch.set_num_threads(threads)
        settings = {
            "adapter.last": "1/3",
            "train.prefix_views": ARMS[arm],
            "train.seed": seed,
            "train.timing": False,
            "evaluation.probe": False,
            "data.cache": str((output / "cache").resolve()),
        }
        cohort = with_fold(Cohort.load(cohort), fold, FOLDS)
        train(cohort, folder, settings=settings, resume=True).evaluate("test", overwrite=True)
    table = pd.read_csv(folder / "predictions" / "test.csv", dtype=dict.fromkeys(("case_id", "patient"), str))
    return table[table["y"] != "covid"].sort_values("case_id", ignore_index=True)


def resampled(table, fold):
    """AUC on the patients as they are and resampled, (1 + RESAMPLES,); the draws depend on the fold alone."""
    from medlora.training.comparing import weighted_auc

    codes, patients = pd.factorize(table["patient"])
    times = np.random.default_rng(fold).multinomial(len(patients), np.full(len(patients), 1 / len(patients)), RESAMPLES)
    weights = np.vstack([np.ones(len(table)), times[:, codes]])
    score = table["p_pneumonia"] / (table["p_pneumonia"] + table["p_normal"])
    return weighted_auc((table["y"] == "pneumonia").to_numpy(), score.to_numpy(), weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("views"))
    parser.add_argument("--folds", type=int, default=FOLDS, help="the first of five")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=2, help="threads of each")
    asked = parser.parse_args()

    from medlora.cohorts import Cohort

    cohort = asked.output / "cohort"
    if not cohort.is_dir():
        Cohort.from_archive(asked.archive, asked.labels).save(cohort)
    found = {arm: [] for arm in ARMS}
    runs = [(fold, seed, arm) for fold in range(asked.folds) for seed in range(asked.seeds) for arm in ARMS]
    with ProcessPoolExecutor(asked.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        tables = [pool.submit(one, cohort, asked.output, *run, asked.threads) for run in runs]
        for (fold, seed, arm), table in zip(runs, tables, strict=True):
            found[arm].append(resampled(table.result(), fold))
            print(f"fold {fold}, seed {seed}, {arm}: AUC {found[arm][-1][0]:.4f}", flush=True)
    means = {arm: np.mean(kept, axis=0) for arm, kept in found.items()}
    difference = means["cached"] - means["uncached"]
    low, high = np.quantile(difference[1:], [0.05, 0.95])
    verdict = "non-inferior" if low > MARGIN else "not shown to be non-inferior"
    print(
        f"cached {means['cached'][0]:.4f}, uncached {means['uncached'][0]:.4f}; cached − uncached {difference[0]:+.4f} "
        f"(90 % interval {low:+.4f} to {high:+.4f}), margin {MARGIN}: {verdict}"
    )
    result = {arm: [float(values[0]) for values in kept] for arm, kept in found.items()}
    result |= {"difference": float(difference[0]), "low": float(low), "high": float(high)}
    (asked.output / "views.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
