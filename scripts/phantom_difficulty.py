"""How hard the phantom radiographs are: neither a matter of a few pixels nor beyond a small net.

Writes an archive, splits it by patient and prints the AUC on held-out patients of

- logistic regression on 32 x 32 pixels, its penalty chosen by patient-wise cross-validation,
- logistic regression on the acquisition tags and on the image's border (both must stay near 0.5),
- a small convolution net (five layers, from scratch, 128 x 128 pixels),

all trained on the same radiographs; and of the same net on a second archive with the other finding.

    python scripts/phantom_difficulty.py [--train 2000] [--test 600] [--seed 0] [--folder DIR]
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import torch
from scipy.ndimage import zoom
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from medlora.phantoms import radiographs


class Archive(NamedTuple):
    images: np.ndarray  # (n, 128, 128), 0 to 1, bright is dense
    tags: np.ndarray  # (n, features)
    opacity: np.ndarray  # (n,), 0 or 1
    patient: np.ndarray  # (n,)


def read(labels: Path, size: int = 128) -> Archive:
    """Read an archive as any outsider would, with pydicom alone."""
    images, tags, opacity, patient = [], [], [], []
    for row in csv.DictReader(labels.open(encoding="utf-8")):
        ds = pydicom.dcmread(labels.parent / row["file"])
        pixels = ds.pixel_array.astype(np.float32) / (2**ds.BitsStored - 1)
        if ds.PhotometricInterpretation == "MONOCHROME1":
            pixels = 1 - pixels
        square = np.zeros((max(pixels.shape),) * 2, np.float32)
        left = (square.shape[1] - pixels.shape[1]) // 2
        square[: pixels.shape[0], left : left + pixels.shape[1]] = pixels
        images.append(zoom(square, size / square.shape[0], order=1, grid_mode=True, mode="nearest"))
        syntaxes = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"]
        tags.append(
            [
                float(ds.KVP),
                float(ds.ExposureInuAs),
                float(ds.ImagerPixelSpacing[0]),
                ds.Columns / ds.Rows,
                ds.BitsStored,
                ds.ViewPosition == "AP",
                ds.PhotometricInterpretation == "MONOCHROME1",
                ds.Manufacturer.startswith("PHANTOM"),
                float(ds.DistanceSourceToDetector),
                ds.PatientSex == "F",
                int(ds.PatientAge[:3]),
                *(ds.file_meta.TransferSyntaxUID == s for s in syntaxes),
            ]
        )
        opacity.append(row["label"] == "opacity")
        patient.append(row["patient_id"])
    return Archive(np.stack(images), np.array(tags, float), np.array(opacity, int), np.array(patient))


def linear(train_x: np.ndarray, train: Archive, test_x: np.ndarray, test: Archive) -> float:
    folds = list(GroupKFold(3).split(train_x, train.opacity, train.patient))
    fit = LogisticRegressionCV(
        Cs=np.logspace(-6, -1, 6),
        cv=folds,
        scoring="roc_auc",
        max_iter=300,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    model = make_pipeline(StandardScaler(), fit).fit(train_x, train.opacity)
    return roc_auc_score(test.opacity, model.decision_function(test_x))


def small(images: np.ndarray, size: int) -> np.ndarray:
    step = images.shape[1] // size
    return images.reshape(len(images), size, step, size, step).mean(axis=(2, 4)).reshape(len(images), -1)


def border(images: np.ndarray) -> np.ndarray:
    """The outer tenth on each side, coarsely."""
    coarse = small(images, 32).reshape(-1, 32, 32)
    mask = np.ones((32, 32), bool)
    mask[3:-3, 3:-3] = False
    return coarse[:, mask]


def small_net() -> nn.Module:
    layers: list[nn.Module] = []
    channels = [1, 24, 48, 96, 128, 160]
    for number, (before, after) in enumerate(pairwise(channels)):
        stride = 2 if number == 0 else 1
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels[-1], 1))


def fit(train: Archive, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net, batch = small_net(), 32
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * (len(train.images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    x, y = torch.from_numpy(train.images)[:, None] - 0.5, torch.from_numpy(train.opacity).float()
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for k in range(len(x) // batch):
            take = order[k * batch : (k + 1) * batch]
            view = x[take]
            if rng.random() < 0.5:
                view = view.flip(3)
            view = torch.roll(view, tuple(int(v) for v in rng.integers(-6, 7, 2)), (2, 3)) * float(
                rng.uniform(0.9, 1.1)
            )
            loss = nn.functional.binary_cross_entropy_with_logits(net(view)[:, 0], y[take])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.inference_mode()
def auc(net: nn.Module, test: Archive) -> float:
    x = torch.from_numpy(test.images)[:, None] - 0.5
    return roc_auc_score(test.opacity, torch.cat([net(part)[:, 0] for part in x.split(64)]).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=2000, help="radiographs to train on")
    parser.add_argument("--test", type=int, default=600, help="radiographs of other patients to test on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the archives here, and use them again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        archives = {}
        for variant, seed, wanted in (
            ("original", options.seed, options.train + options.test),
            ("variant", options.seed + 1, options.test),
        ):
            folder = root / f"{variant}-{seed}-{wanted}"
            if not (folder / "labels.csv").exists():
                radiographs.write(folder, patients=round(wanted / 1.86), seed=seed, variant=variant)
            archives[variant] = read(folder / "labels.csv")
        whole = archives["original"]
        patients = np.unique(whole.patient)
        first = np.isin(
            whole.patient, patients[: round(len(patients) * options.train / (options.train + options.test))]
        )
        train, test = (Archive(*(part[rows] for part in whole)) for rows in (first, ~first))
        print(f"phantom: train {len(train.images)}, test {len(test.images)}, {test.opacity.mean():.0%} of them opacity")
        inputs = {
            "tags": lambda part: part.tags,
            "border": lambda part: border(part.images),
            "32 x 32 pixels": lambda part: small(part.images, 32),
        }
        for name, take in inputs.items():
            print(f"logistic regression, {name:15} AUC {linear(take(train), train, take(test), test):.3f}", flush=True)
        net = fit(train, options.epochs, options.seed)
        print(f"small convolution net                AUC {auc(net, test):.3f}")
        print(f"the same on the other finding        AUC {auc(net, archives['variant']):.3f}")


if __name__ == "__main__":
    main()
