"""What the preset for nodules on CT should show: how much of the patient, and what in its three channels.

    python scripts/nodule_preset.py nodules/cohort --extents 64 48 36 32 24
    python scripts/nodule_preset.py nodules/cohort --channels [--lora]

Patient-disjoint folds of the training and tuning patients of a cohort of nodules on CT, such as
scripts/nodules_new_scanner.py draws; its test patients are left alone. Printed is the mean AUC of LoRA with default
settings, for each extent in millimetres. With ``--channels``: for three planes, three slices, and one slice in three
windows, the mean AUC of a linear probe on the default backbone's features and, with ``--lora``, of LoRA.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from medlora import backbones, transforms
from medlora.cohorts import Cohort
from medlora.training import probe, train
from medlora.training.cases import where
from medlora.training.comparing import with_fold
from medlora.training.reading import prepared
from medlora.transforms import CTNodule, CTNodulePlanes
from medlora.transforms.ct_nodule import Nodule

WINDOWS = ((-1000.0, 400.0), (-160.0, 240.0), (-1000.0, -500.0))  # HU: all of it, soft tissue, ground glass
FOLDS = 5


@dataclass(frozen=True)
class Windows(CTNodule):
    """The axial plane through the centre, in three windows."""

    name: ClassVar[str] = "nodule-windows"
    channel_names: ClassVar[tuple[str, ...]] = ("all", "soft tissue", "ground glass")

    def steps(self, scan, centre=None):
        *_, slices, window = super().steps(scan, centre)
        axial = slices.data[1:2]
        yield replace(window, data=torch.cat([((axial - low) / (high - low)).clip(0, 1) for low, high in WINDOWS]))


FORMS: dict[str, type[Nodule]] = {"three planes": CTNodulePlanes, "three slices": CTNodule, "three windows": Windows}


def probed(cohort: Cohort, form: type[Nodule]) -> float:
    """Mean AUC of logistic regression on the backbone's features, strongly penalised as suits so many of them."""
    backbone = backbones.create("medlora-hybrid", num_classes=2)
    preset = form(size=backbones.training_side(backbone), mean=backbone.mean, std=backbone.std)
    table = cohort.table.sort_values("case_id", ignore_index=True)
    images = prepared(where(table), cohort.scan, preset)
    batches = (preset.normalise(image[None]) for image in images)
    features = probe.features(backbone.model, batches, torch.device("cpu"))
    truth, folds = (table["label"] == "malignant").to_numpy(), StratifiedGroupKFold(FOLDS)
    found = []
    with threadpool_limits(1, "blas"):
        for learn, test in folds.split(features, truth, table["patient"]):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, class_weight="balanced", max_iter=2000))
            found.append(
                roc_auc_score(truth[test], model.fit(features[learn], truth[learn]).decision_function(features[test]))
            )
    return float(np.mean(found))


def adapted(folder: Path, place: Path, changed: dict[str, Any]) -> float:
    """Mean AUC of LoRA with default settings but for what is ``changed``."""
    found = []
    for fold in range(FOLDS):
        cohort = with_fold(learning(folder), fold, FOLDS)
        settings = {"train.timing": False, "evaluation.probe": False, **changed}
        run = train(cohort, place / str(fold), settings=settings)
        run.evaluate("test")
        table = pd.read_csv(run.folder / "predictions" / "test.csv")
        found.append(roc_auc_score(table["y"] == "malignant", table["p_malignant"]))
    return float(np.mean(found))


def learning(folder: Path) -> Cohort:
    """The cohort without its test patients."""
    cohort = Cohort.load(folder)
    cohort.table = cohort.table[cohort.table["split"] != "test"]
    return cohort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--extents", nargs="*", type=float, default=[], help="millimetres along a side of the image")
    parser.add_argument("--channels", action="store_true", help="compare what the channels show")
    parser.add_argument("--lora", action="store_true", help="train adapters for each kind of channels, too")
    asked = parser.parse_args()
    transforms.PRESETS.update({form.name: form for form in FORMS.values()})
    with tempfile.TemporaryDirectory() as place:
        for extent in asked.extents:
            auc = adapted(asked.cohort, Path(place) / str(extent), {"data.extent": extent})
            print(f"{extent:.4g} mm  LoRA AUC {auc:.3f}", flush=True)
        for name, form in FORMS.items() if asked.channels else ():
            line = f"{name:14} linear probe AUC {probed(learning(asked.cohort), form):.3f}"
            if asked.lora:
                auc = adapted(asked.cohort, Path(place) / form.name, {"data.preset": form.name})
                line += f"   LoRA AUC {auc:.3f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
