"""An archive of chest radiographs of fictitious patients, as Digital X-Ray objects with a labels CSV."""

from __future__ import annotations

import datetime
import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medlora.errors import MedloraError
from medlora.files import new_folder
from medlora.phantoms import dx, findings, scanners, skeleton, vessels
from medlora.phantoms.anatomy import Chest
from medlora.phantoms.drawing import draw_all
from medlora.phantoms.identity import uid, write_labels
from medlora.phantoms.projection import Detector, View, water_path
from medlora.phantoms.tubes import Array, Tubes

Variant = Literal["original", "variant", "mixed"]
ScannerChoice = Literal["A", "B", "mixed"]

COLUMNS = ("file", "patient_id", "study_uid", "label", "site", "view", "sex", "age", "variant", "patches",
           "opacity_ml", "opacity_side")  # fmt: skip


_WORTH_PROCESSES = 40  # patients


@dataclass(frozen=True)
class Radiograph:
    """One exposure before it is written."""

    shown: Array  # (rows, columns), 0 to 1, bright is dense
    opacity: Array  # (rows, columns), mm of water that the finding adds
    pitch: float
    view: View
    scanner: scanners.Scanner
    exposure: scanners.Exposure
    chest: Chest
    finding: findings.Opacity | None
    bits: int
    monochrome1: bool
    transfer_syntax: str


def _ill(seed: int, number: int) -> bool:
    """Half of every ten patients are ill, in an order of their own."""
    order = np.random.default_rng([seed, number // 10, 7]).permutation(10)
    return bool(order[number % 10] < 5)


def patient(
    number: int,
    seed: int = 0,
    variant: Variant = "original",
    scanner: ScannerChoice = "mixed",
    size: int = 256,
    confounded: bool = False,
) -> list[Radiograph]:
    """All radiographs of one patient; the same whatever else is drawn.

    Args:
        number: which patient, from 0.
        seed: of the archive.
        variant: the findings of those who are ill.
        scanner: ``A``, ``B``, or ``mixed``: one of them for each examination.
        size: pixels along the detector's longer side.
        confounded: a trap: the ill are examined on B and the others on A, nine times in ten (``scanner="mixed"`` only).
    """
    rng = np.random.default_rng([seed, number, 0])
    chest = Chest.draw(rng)
    tree = vessels.pulmonary(chest, rng)
    bone_seed = int(rng.integers(2**31))
    scans = int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1]))
    ill = _ill(seed, number)
    kind = variant
    if variant == "mixed":
        kind = "original" if np.random.default_rng([seed, number, 1]).random() < 0.5 else "variant"
    taken = []
    for scan in range(scans):
        rng = np.random.default_rng([seed, number, 2, scan])
        finding = None
        of_finding = np.random.default_rng([seed, number, 3, scan])
        if ill and (of_finding.random() < 0.8 or scan == 0):
            finding = findings.draw(kind, chest, float(of_finding.random()), of_finding)
            haze = None
        else:
            haze = findings.haze(chest, float(of_finding.random()), of_finding)
        choice = scanner
        if scanner == "mixed":
            likely = 0.5 if not confounded else (0.1 if finding else 0.9)
            choice = "A" if rng.random() < likely else "B"
        taken.append(_expose(chest, tree, bone_seed, finding, haze, scanners.SCANNERS[choice], size, rng))
    return taken


def _expose(
    chest: Chest,
    tree: Tubes,
    bone_seed: int,
    finding: findings.Opacity | None,
    haze: Tubes | None,
    scanner: scanners.Scanner,
    size: int,
    rng: np.random.Generator,
) -> Radiograph:
    """One examination: pose, breath, beam, detector."""
    position = "PA" if rng.random() < 0.7 else "AP"
    standing = position == "PA"
    breath = float(np.clip(rng.normal(0.9, 0.12) if standing else rng.normal(0.6, 0.2), 0, 1))
    chest = replace(chest, breath=breath)
    turn, lean, roll = rng.normal(0, [0.05, 0.05, 0.025]) * (1.0 if standing else 1.5)
    distance = float(rng.uniform(1790, 1830) if standing else rng.uniform(1050, 1250))
    shift = (float(rng.normal(0, 6)), float(rng.normal(12, 7)))
    view = View(position, float(turn), float(lean), float(roll), shift, distance, 130.0)
    pitch = max(scanner.field) / size
    detector = Detector((round(scanner.field[0] / pitch), round(scanner.field[1] / pitch)), pitch)
    shoulders = float(rng.uniform(0.5, 1.0) if standing else rng.uniform(-0.1, 0.4))

    air = 1 - chest.lung_density()
    parts = [
        skeleton.bones(chest, np.random.default_rng(bone_seed), shoulders),
        skeleton.airways(chest),
        replace(tree.scaled(air), points=vessels.breathe(tree.points, chest)),
    ]
    if haze is not None:
        parts.append(replace(haze.scaled(air), points=vessels.breathe(haze.points, chest)))
    path = water_path(chest, Tubes.join(parts), view, detector)
    opacity = np.zeros_like(path)
    if finding:
        grains = replace(finding.grains.scaled(air), points=vessels.breathe(finding.grains.points, chest))
        opacity = view.draw(grains, detector)

    height, width = detector.shape
    share = rng.uniform(0, 0.06, 4) * (rng.random() < scanner.border)
    top, bottom, left, right = (int(n) for n in share * [height, height, width, width])
    exposure = scanners.Exposure(
        float(rng.uniform(*scanner.kvp)), float(rng.uniform(2, 4)), standing, (top, bottom, left, right)
    )
    shown = scanners.expose(path + opacity, scanner, exposure, pitch, rng)
    return Radiograph(
        shown=shown,
        opacity=opacity,
        pitch=pitch,
        view=view,
        scanner=scanner,
        exposure=exposure,
        chest=chest,
        finding=finding,
        bits=8 if rng.random() < 0.3 else 12,
        monochrome1=bool(rng.random() < 0.3),
        transfer_syntax=dx.TRANSFER_SYNTAXES[int(rng.integers(len(dx.TRANSFER_SYNTAXES)))],
    )


def _draw_patient(root: Path, made: str, number: int, seed: int, **options: Any) -> list[dict[str, object]]:
    """Draw and write one patient, with the ``options`` of `patient`; the rows of the labels CSV."""
    return _write_patient(root, number, seed, made, patient(number, seed, **options))


def _write_patient(root: Path, number: int, seed: int, made: str, taken: list[Radiograph]) -> list[dict[str, object]]:
    """Write one patient's files below ``root``; return the rows of the labels CSV."""
    rows: list[dict[str, object]] = []
    name = f"PHANTOM-{seed}-{number:05d}"
    first = datetime.date(2020, 1, 1) + datetime.timedelta(days=number % 365)
    for scan, image in enumerate(taken):
        words = (made, seed, number, scan)
        day = first + datetime.timedelta(days=9 * scan)
        identity = dx.ImageIdentity(
            patient_id=name,
            patient_name=f"PHANTOM^{seed}-{number:05d}",
            sex="F" if image.chest.female else "M",
            age=image.chest.age,
            date=day.strftime("%Y%m%d"),
            time=f"{8 + number % 9:02d}{7 * scan % 60:02d}00",
            accession=f"PH{seed % 1000:03d}{number:05d}{scan}",
            study_uid=uid("study", *words),
            series_uid=uid("series", *words),
            instance_uid=uid("instance", *words),
        )
        file = Path("dicom") / name / f"study{scan + 1}" / "image1.dcm"
        pixels = scanners.quantise(image.shown, image.bits, image.monochrome1)
        dx.write(root / file, pixels, image.bits, image.monochrome1, image.pitch, image.view, image.scanner,
                 image.exposure, identity, image.transfer_syntax)  # fmt: skip
        finding = image.finding
        rows.append(
            {
                "file": file.as_posix(),
                "patient_id": name,
                "study_uid": identity.study_uid,
                "label": "opacity" if finding else "normal",
                "site": image.scanner.site,
                "view": image.view.position,
                "sex": identity.sex,
                "age": identity.age,
                "variant": finding.variant if finding else "",
                "patches": finding.patches if finding else 0,
                "opacity_ml": round(finding.volume_ml) if finding else 0,
                "opacity_side": finding.sides if finding else "",
            }
        )
    return rows


def write(
    folder: str | os.PathLike[str],
    patients: int = 200,
    seed: int = 0,
    variant: Variant = "original",
    scanner: ScannerChoice = "mixed",
    size: int = 256,
    confounded: bool = False,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write an archive of phantom radiographs.

    ``folder/dicom/PATIENT/STUDY/FILE.dcm`` and ``folder/labels.csv`` (a row per file). The same arguments give the same
    bytes; a patient is the same however many are written.

    Args:
        folder: where; it must not hold anything yet, unless ``overwrite``.
        patients: how many; each has one to four radiographs, 1.9 on average.
        seed: another seed, other patients.
        variant: findings of the ill half: ``original`` (ground-glass patches near the pleura of both lungs),
            ``variant`` (consolidation near the hilum of one lung), or ``mixed``.
        scanner: ``A``, ``B``, or ``mixed``.
        size: pixels along the detector's longer side (430 mm).
        confounded: examine the ill mostly on B, the others mostly on A: a set that a model passes for the wrong reason.
        progress: say how far it is.
        overwrite: replace what is there.

    Returns:
        Path of the labels CSV.

    Raises:
        MedloraError: an option is out of range, or the folder cannot be written.
    """
    if variant not in ("original", "variant", "mixed"):
        raise MedloraError(f"no findings are called {variant!r}", "variant is original, variant or mixed")
    if scanner not in ("A", "B", "mixed"):
        raise MedloraError(f"no scanner is called {scanner!r}", "scanner is A, B or mixed")
    if patients < 1 or not 64 <= size <= 1024:
        raise MedloraError(
            f"{patients} patients at {size} pixels cannot be made", "ask for 1 or more, at 64 to 1024 pixels"
        )
    if confounded and scanner != "mixed":
        raise MedloraError("findings cannot follow the scanner where there is only one", 'add scanner="mixed"')
    made = f"radiographs/{variant}/{scanner}/{size}/{confounded}"
    with new_folder(folder, "the phantoms", overwrite) as partial:
        draw = functools.partial(
            _draw_patient, partial, made, seed=seed, variant=variant, scanner=scanner, size=size, confounded=confounded
        )
        rows = draw_all(draw, patients, processes=patients >= _WORTH_PROCESSES, progress=progress)
        write_labels(partial / "labels.csv", COLUMNS, rows)
    return Path(folder) / "labels.csv"
