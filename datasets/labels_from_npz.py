"""Turn an npz of MedMNIST (PneumoniaMNIST, NoduleMNIST3D, …) into a folder of images and its labels CSV.

    python datasets/labels_from_npz.py pneumoniamnist.npz -o pneumoniamnist --classes normal,pneumonia
    python datasets/labels_from_npz.py nodulemnist3d.npz -o nodulemnist3d --classes benign,malignant

An npz holds train_images, train_labels, val_images, val_labels, test_images and test_labels; images are uint8,
(n, rows, columns[, 3]) or, where the name ends in 3d, (n, z, y, x). Flat images are written as PNG; volumes as NIfTI of
1 mm voxels with their middle as the place of the case (voxel indices), the grey values 0 to 255 laid onto the window of
the preset ct-nodule, -1000 to 400, so that training sees them as published: they are no Hounsfield units. The split of
the publisher stays, in the column split. No patient is named: whether the splits follow patients cannot be checked.
"""

from __future__ import annotations

import argparse
import csv
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

WINDOW = (-1000.0, 400.0)
SPLITS = {"train": "train", "val": "tune", "test": "test"}
MOST_BYTES = 8 << 30  # of the arrays of one file, unpacked; the largest of MedMNIST at 28 pixels is below 1 GB


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The six arrays.

    Raises:
        ValueError: one is missing, holds objects (which only a pickle could bring), or all are too large.
    """
    with zipfile.ZipFile(path) as file:
        size = sum(member.file_size for member in file.infolist())
    if size > MOST_BYTES:
        raise ValueError(f"{path} unpacks to {size >> 30} GiB; at most {MOST_BYTES >> 30} GiB are read")
    found = {}
    with np.load(path, allow_pickle=False) as held:
        for split in SPLITS:
            images, labels = held[f"{split}_images"], held[f"{split}_labels"]
            if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels):
                raise ValueError(f"{split}: images are {images.dtype}, {images.shape}, labels {labels.shape}")
            found |= {f"{split}_images": images, f"{split}_labels": labels.reshape(len(labels), -1)}
    return found


def write(path: Path, folder: Path, classes: list[str], volumes: bool) -> list[dict[str, str | float]]:
    """Write each image below ``folder``; the rows of its labels CSV."""
    held = arrays(path)
    rows: list[dict[str, str | float]] = []
    for split, name in SPLITS.items():
        images, labels = held[f"{split}_images"], held[f"{split}_labels"]
        if labels.shape[1] != 1 or labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(f"{split}: the labels are not one number below {len(classes)} for each image")
        (folder / split).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels[:, 0], strict=True)):
            file = f"{split}/{number:06d}" + (".nii.gz" if volumes else ".png")
            save(folder / file, image, volumes)
            middle = {axis: (n - 1) / 2 for axis, n in zip("xyz", image.shape[::-1], strict=True)} if volumes else {}
            rows.append({"file": file, "label": classes[int(label)], "split": name, **middle})
    return rows


def save(path: Path, image: np.ndarray, volume: bool) -> None:
    if volume:
        values = np.float32(WINDOW[0] + image / 255 * (WINDOW[1] - WINDOW[0]))
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.eye(4)), path)
    else:
        Image.fromarray(image).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("npz", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to make")
    parser.add_argument("--classes", required=True, help="names of the labels 0, 1, …, separated by commas")
    asked = parser.parse_args()
    if asked.output.exists():
        parser.error(f"{asked.output} already exists")
    try:
        rows = write(asked.npz, asked.output, asked.classes.split(","), volumes="3d" in asked.npz.stem.lower())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{asked.npz} cannot be taken: {error}")
    with (asked.output / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{asked.output}: {len(rows)} images and labels.csv")


if __name__ == "__main__":
    main()
