"""Draw a training table from LUNA16's candidates: all true ones, a few false ones of each scan, with diameters.

    python datasets/luna16_candidates.py candidates_V2.csv --annotations annotations.csv -o labels.csv

``candidates_V2.csv`` has hundreds of false candidates for each true one. Of every scan as many are drawn, by a seed, as
``--negatives`` times its true ones, and at least one. A true candidate gets the diameter of the nodule of
``annotations.csv`` whose centre is nearest, where it lies within that nodule's radius (the challenge's own rule).
"""

from __future__ import annotations

import argparse
import csv
import math
import random
from collections import defaultdict
from pathlib import Path

AXES = ("coordX", "coordY", "coordZ")


def table(path: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of a CSV by seriesuid."""
    found = defaultdict(list)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            found[row["seriesuid"]].append(row)
    return found


def diameter(candidate: dict[str, str], nodules: list[dict[str, str]]) -> str:
    """That of the nearest nodule, where the candidate lies in it; else empty."""
    centre = [float(candidate[axis]) for axis in AXES]
    near = [(math.dist(centre, [float(nodule[axis]) for axis in AXES]), nodule["diameter_mm"]) for nodule in nodules]
    distance, size = min(near, default=(math.inf, ""))
    return size if size and distance < float(size) / 2 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--negatives", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("labels.csv"))
    asked = parser.parse_args()
    candidates = table(asked.candidates)
    nodules = table(asked.annotations) if asked.annotations else {}
    drawn = []
    for series in sorted(candidates):
        true = [row for row in candidates[series] if row["class"] == "1"]
        false = [row for row in candidates[series] if row["class"] == "0"]
        wanted = min(len(false), max(1, asked.negatives * len(true)))
        for row in [*true, *random.Random(f"{asked.seed} {series}").sample(false, wanted)]:
            size = diameter(row, nodules.get(series, [])) if row["class"] == "1" else ""
            drawn.append({**{name: row[name] for name in ("seriesuid", *AXES, "class")}, "diameter_mm": size})
    with asked.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(drawn[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(drawn)
    true = sum(row["class"] == "1" for row in drawn)
    print(f"{asked.output}: {true} true and {len(drawn) - true} false candidates of {len(candidates)} scans")


if __name__ == "__main__":
    main()
