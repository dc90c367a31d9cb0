"""How often the maps of ``medlora explain`` lie on what they should: phantoms, whose opacities are known.

    python -c "from medlora.phantoms import radiographs; radiographs.write('maps/archive', 160)"
    medlora check maps/archive/dicom --labels maps/archive/labels.csv -o maps/cohort
    medlora train maps/cohort -o maps/run --backbone tf_efficientnet_lite0 --epochs 6
    medlora evaluate maps/run
    python scripts/where_maps_point.py maps

For each test radiograph with an opacity: is the map's brightest pixel in the opacity, and by what chance is a pixel of
the opacity brighter than one outside (the AUC over pixels; 0.5 is chance)? A pixel belongs to the opacity where that
adds a quarter or more of what it adds at its densest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.transforms import Resize

import medlora
from medlora import evaluation, scans
from medlora.phantoms import radiographs
from medlora.training import saliency
from medlora.training.explaining import LogOdds

METHODS = ("gradcam", "gradcam++", "occlusion")


def main() -> None:
    """Map, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with archive/, drawn with the default seed, and run/")
    folder = parser.parse_args().folder
    model = medlora.load(folder / "run")
    network = LogOdds(model.model, model.task, model.calibration).eval()
    tested = pd.read_csv(folder / "run" / "predictions" / "test.csv", dtype=str)
    wanted = set(tested.loc[tested["y"] == "opacity", "scan_id"])
    labels = pd.read_csv(folder / "archive" / "labels.csv")
    labels = labels[labels["label"] == "opacity"]
    rows = []
    for patient, files in labels.groupby("patient_id")["file"]:
        found = [(file, scan) for file in files for scan in scans.read(folder / "archive" / file)]
        if all(scan.scan_id not in wanted for _, scan in found):
            continue
        drawn = radiographs.patient(int(str(patient).rpartition("-")[2]))
        for file, scan in found:
            number = int(Path(file).parent.name.removeprefix("study")) - 1
            image = model.preset.preparation()(scan, None)
            added = torch.as_tensor(drawn[number].opacity, dtype=torch.float32)[None]
            opacity = Resize(image.shape[1:], mode="area")(added)[0].numpy()
            inside = opacity >= opacity.max() / 4
            inputs = model.preset.normalise(image[None])
            layer = saliency.last_map(network, inputs)
            for method in METHODS:
                (shown,) = saliency.maps(network, inputs, model.classes.index("opacity"), method, layer, apart=False)
                hit = bool(inside[np.unravel_index(shown.argmax(), shown.shape)])
                over = evaluation.auc(inside.ravel(), shown.ravel()).value
                rows.append({"method": method, "hit": hit, "auc": over, "area": float(inside.mean())})
    table = pd.DataFrame(rows).groupby("method", sort=False)
    for method, part in table:
        print(
            f"{method:<10} {len(part)} phantoms: brightest pixel in the opacity in {part['hit'].sum()} "
            f"(opacities take {part['area'].mean():.1%} of the image); AUC over pixels, mean {part['auc'].mean():.2f}, "
            f"{part['auc'].min():.2f} to {part['auc'].max():.2f}"
        )


if __name__ == "__main__":
    main()
