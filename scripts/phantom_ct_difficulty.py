"""How hard the phantom nodules are: neither a matter of size or of a few pixels, nor beyond a small net.

Draws nodules of many patients as the thin series of their examination shows them, prepares them by the preset
``ct-nodule``, splits them by patient and prints the AUC on held-out patients of

- the diameter alone, and the published risk that the malignancy was drawn from,
- logistic regression on the diameter, on the pixels of the three planes (24 x 24 each) and on those of the axial one
  (48 x 48), its penalty chosen by patient-wise cross-validation,
- a small convolution net (four layers, from scratch),

trained on the same nodules; and of the same net on patients of another scanner.

    python scripts/phantom_ct_difficulty.py [--train 2000] [--test 700] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from medlora.phantoms import ct
from medlora.scans import Scan
from medlora.transforms import CTNodulePlanes

PRESET = CTNodulePlanes(size=48, mean=(0.5,) * 3, std=(0.5,) * 3)


class Nodules(NamedTuple):
    images: np.ndarray  # (n, 3, 48, 48), 0 to 1
    diameter: np.ndarray  # (n,), mm
    risk: np.ndarray  # (n,)
    malignant: np.ndarray  # (n,), 0 or 1
    patient: np.ndarray  # (n,)


def of_patient(number: int, seed: int, scanner: str) -> list[tuple[Any, ...]]:
    """The nodules of one patient."""
    torch.set_num_threads(1)
    exam = ct.patient(number, seed, scanner)
    prepare, rows = PRESET.preparation(), []
    for nodule in exam.visible:
        hu, grid = exam.around(nodule, 1.45 * PRESET.extent)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = grid.steps, grid.origin
        array = np.ascontiguousarray(hu.transpose(2, 1, 0), dtype=np.float32)
        scan = Scan(array, np.diag([-1, -1, 1, 1]) @ affine, modality="CT", scan_id="phantom")
        x, y, z = nodule.centre * (-1, -1, 1)
        rows.append((prepare(scan, (x, y, z)).numpy(), nodule.diameter, nodule.risk, nodule.malignant, number))
    return rows


def draw(wanted: int, seed: int, scanner: str) -> Nodules:
    """At least ``wanted`` nodules, of whole patients."""
    patients = range(round(wanted / 2.3))
    work = Parallel(n_jobs=os.cpu_count())(delayed(of_patient)(number, seed, scanner) for number in patients)
    return Nodules(*(np.array(column) for column in zip(*(row for rows in work for row in rows), strict=True)))


def linear(train_x: np.ndarray, train: Nodules, test_x: np.ndarray, test: Nodules) -> float:
    folds = list(GroupKFold(3).split(train_x, train.malignant, train.patient))
    fit = LogisticRegressionCV(
        Cs=np.logspace(-6, 0, 7), cv=folds, scoring="roc_auc", max_iter=2000, l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )  # fmt: skip
    model = make_pipeline(StandardScaler(), fit).fit(train_x, train.malignant)
    return roc_auc_score(test.malignant, model.decision_function(test_x))


def halved(images: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels."""
    n, channels, rows, columns = images.shape
    return images.reshape(n, channels, rows // 2, 2, columns // 2, 2).mean(axis=(3, 5))


def small_net() -> nn.Module:
    layers: list[nn.Module] = []
    channels = [3, 24, 48, 96, 128]
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels[-1] * 9, 1))


def fit(train: Nodules, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net, batch = small_net(), 32
    augment = PRESET.augmentation().set_random_state(seed=seed)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * (len(train.images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    x, y = torch.from_numpy(train.images), torch.from_numpy(train.malignant).float()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for k in range(len(x) // batch):
            take = order[k * batch : (k + 1) * batch]
            views = torch.stack([augment(image) for image in x[take]])
            loss = nn.functional.binary_cross_entropy_with_logits(net(PRESET.normalise(views))[:, 0], y[take])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.inference_mode()
def auc(net: nn.Module, test: Nodules) -> float:
    parts = torch.from_numpy(test.images).split(64)
    return roc_auc_score(test.malignant, torch.cat([net(PRESET.normalise(part))[:, 0] for part in parts]).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=2000, help="nodules to train on")
    parser.add_argument("--test", type=int, default=700, help="nodules of other patients to test on")
    parser.add_argument("--epochs", type=int, default=28, help="of the small net")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    train = draw(options.train, options.seed, "mixed")
    test = draw(options.test, options.seed + 1, "mixed")
    other = draw(options.test, options.seed + 2, "C")
    print(
        f"phantom: train {len(train.images)}, test {len(test.images)}, {test.malignant.mean():.0%} of them malignant "
        f"({time.monotonic() - started:.0f} s)"
    )
    print(f"diameter                                AUC {roc_auc_score(test.malignant, test.diameter):.3f}")
    print(f"risk before the margin is looked at     AUC {roc_auc_score(test.malignant, test.risk):.3f}")
    inputs = {
        "diameter": lambda part: part.diameter[:, None],
        "3 x 24 x 24 pixels": lambda part: halved(part.images).reshape(len(part.images), -1),
        "axial 48 x 48": lambda part: part.images[:, 0].reshape(len(part.images), -1),
    }
    for name, take in inputs.items():
        print(f"logistic regression, {name:18} AUC {linear(take(train), train, take(test), test):.3f}", flush=True)
    net = fit(train, options.epochs, options.seed)
    print(f"small convolution net                   AUC {auc(net, test):.3f}")
    print(f"the same on another scanner             AUC {auc(net, other):.3f}")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
