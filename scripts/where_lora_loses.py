"""Where LoRA loses, and where it does not: the same question with few and with many patients, on phantom radiographs.

    python scripts/where_lora_loses.py [FOLDER] [--seeds 3] [--tasks few,many]

``few`` and ``many``: is there an opacity? Learned from 12 patients, and from 160; tested on the same 80.
``view`` and ``scanner`` (by --tasks): was the patient standing (PA) or lying (AP), and which of two systems took the
image? Questions that a linear probe might answer as well.

Printed are the table and the advice of ``medlora compare`` for each, by the rule of medlora/training/advice.py. Both
are measured; intervals resample the test patients, not those learned from, and other ones may end elsewhere. Phantoms
are no patients: this shows how a comparison can end, not how yours will. scripts/backbone_folds.py has an example on
patients, in which LoRA loses to full fine-tuning.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from medlora.cohorts import Cohort
from medlora.phantoms import radiographs
from medlora.training import compare_methods

TEST = 80  # patients, the same for all tasks
SIZE = 96  # pixels

# The column with the answer, and the patients to learn from.
TASKS = {"few": ("label", 12), "many": ("label", 160), "view": ("view", 60), "scanner": ("site", 60)}


def cohort_of(name: str, archive: Path, folder: Path) -> Path:
    """The cohort of a task: the first patients test, of those after them one in four tunes."""
    column, learn = TASKS[name]
    table = pd.read_csv(archive / "labels.csv", dtype=str)
    number = table["patient_id"].str.rpartition("-")[2].astype(int)
    table["split"] = (number % 4 == 0).map({True: "tune", False: "train"}).mask(number < TEST, "test")
    table = table[number < TEST + learn]
    labels = folder / f"{name}.csv"
    table.rename(columns={column: "answer"})[["file", "answer", "split"]].to_csv(labels, index=False)
    cohort = Cohort.from_archive(archive, labels, label_column="answer", split_column="split")
    cohort.save(folder / f"{name}-cohort")
    return folder / f"{name}-cohort"


def main() -> None:
    """Draw the patients, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="a new one; none: a temporary one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", default="few,many")
    parser.add_argument("--methods", default="lora,probe,full")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp())
    start = time.perf_counter()
    radiographs.write(folder / "archive", TEST + max(learn for _, learn in TASKS.values()), size=160)
    for name in asked.tasks.split(","):
        found = compare_methods(
            cohort_of(name, folder / "archive", folder),
            folder / name,
            asked.methods.split(","),
            seeds=asked.seeds,
            settings={"data.image_size": SIZE, "model.backbone": asked.backbone},
        )
        print(f"\n{name}\n{found}\n({time.perf_counter() - start:.0f} s since the start)", flush=True)


if __name__ == "__main__":
    main()
