"""An archive of chest CT studies of fictitious patients, as CT Image objects, with a labels CSV of their nodules."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medlora.errors import MedloraError
from medlora.files import new_folder
from medlora.phantoms import ct_image, nodules, tomographs
from medlora.phantoms.anatomy import APEX, LEFT
from medlora.phantoms.drawing import draw_all
from medlora.phantoms.identity import uid, write_labels
from medlora.phantoms.thorax import Thorax
from medlora.phantoms.tomographs import Tomograph
from medlora.phantoms.tubes import Array
from medlora.phantoms.voxels import Grid

ScannerChoice = Literal["A", "B", "C", "mixed", "shifted"]
SeriesChoice = Literal["scout", "thick", "thin"]
SERIES: tuple[SeriesChoice, ...] = ("scout", "thick", "thin")
"""A whole study: a localizer, thick slices with a soft kernel, thin ones with a sharp kernel."""

COLUMNS = ("series_uid", "patient_id", "study_uid", "coordX", "coordY", "coordZ", "diameter_mm", "label", "site",
           "split", "sex", "age", "emphysema", "family_history", "upper_lobe", "risk", "density", "margin",
           "attachment", "calcified")  # fmt: skip


@dataclass(frozen=True)
class Examination:
    """One examination before it is reconstructed.

    Args:
        thorax: who.
        scanner: by which.
        grid: of the thin slices.
        mas: dose.
        tilt: of the gantry, degrees.
        visible: the nodules that lie in the field of view.
        noise: seed of the noise; that of all series comes from the same quanta.
    """

    thorax: Thorax
    scanner: Tomograph
    grid: Grid
    mas: float
    tilt: float
    visible: list[nodules.Nodule]
    noise: tuple[int, ...]

    def around(self, nodule: nodules.Nodule, extent: float) -> tuple[Array, Grid]:
        """The thin series about a nodule: the voxels that a crop of it would have, but noise of its own.

        Args:
            nodule: which.
            extent: at least so many mm along each axis.

        Returns:
            HU, (slices, rows, columns), and where they lie.
        """
        first = np.rint(self.grid.indices(nodule.centre[None])[0]).astype(int)
        half = np.ceil(0.5 * extent / self.grid.size).astype(int) + 1
        x, y, z = np.asarray(self.grid.origin) + self.grid.steps @ (first - half)
        shape = 2 * half[::-1] + 1
        grid = Grid((x, y, z), self.grid.steps, (int(shape[0]), int(shape[1]), int(shape[2])))
        hu = self.thorax.hounsfield(grid)
        rng = np.random.default_rng([*self.noise, *np.abs(first)])
        width = np.full(len(hu), 270.0)  # the middle of a chest
        return tomographs.reconstruct(hu, grid, self.scanner.sharp, self.mas, width, rng), grid

    def object(self) -> tuple[Array, Array]:
        """HU without blur and noise, and the water that each slice absorbs like, mm."""
        hu = self.thorax.hounsfield(self.grid)
        back = 6 + float(self.thorax.chest.outline(np.zeros(1))[1][0])
        tomographs.table_top(hu, self.grid, back + 6)
        return hu, tomographs.water_width(hu, float(self.grid.size[0]))


def split_of(number: int, seed: int) -> str:
    """The split of a patient: of every ten, five are for training, two for tuning, three for the test."""
    place = int(np.random.default_rng([seed, number // 10, 7]).permutation(10)[number % 10])
    return "train" if place < 5 else "tune" if place < 7 else "test"


def patient(number: int, seed: int = 0, scanner: ScannerChoice = "mixed", matrix: int = 256) -> Examination:
    """One patient's examination; the same whatever else is drawn.

    Args:
        number: which patient, from 0.
        seed: of the archive.
        scanner: ``A``, ``B``, ``C``; ``mixed``: A or B; ``shifted``: A or B, but C for the patients of the test split.
        matrix: pixels along each side of a slice.
    """
    thorax = Thorax.draw(np.random.default_rng([seed, number, 0]))
    rng = np.random.default_rng([seed, number, 1])
    key: str = "AB"[int(rng.random() < 0.5)] if scanner in ("mixed", "shifted") else scanner
    if scanner == "shifted" and split_of(number, seed) == "test":
        key = "C"
    system = tomographs.TOMOGRAPHS[key]
    tilt = float(rng.uniform(-1, 1)) * system.tilt if rng.random() < 0.5 else 0.0
    chest = thorax.chest
    low, high = chest.dome_top(LEFT) - 45, APEX * chest.height + 12
    slices = 2 * int(np.ceil((high - low) / (2 * system.thickness)))
    centre = (float(rng.normal(0, 3)), float(rng.normal(4, 3)), (high + low) / 2)
    grid = Grid.axial(centre, system.field / matrix, system.thickness, (slices, matrix, matrix), np.radians(tilt))
    mas = float(rng.uniform(*system.mas))
    limit = np.array(grid.shape[::-1]) - 1
    visible = [n for n in thorax.nodules if (abs(grid.indices(n.centre[None])[0] / limit - 0.5) < 0.49).all()]
    return Examination(thorax, system, grid, mas, tilt, visible, (seed, number, 2))


def write(
    folder: str | os.PathLike[str],
    patients: int = 100,
    seed: int = 0,
    scanner: ScannerChoice = "mixed",
    matrix: int = 256,
    series: Sequence[SeriesChoice] = SERIES,
    progress: bool = True,
    overwrite: bool = False,
    workers: int | None = None,
) -> Path:
    """Write an archive of phantom chest CT.

    ``folder/dicom/PATIENT/SERIES/FILE.dcm`` and ``folder/labels.csv``: a row for each nodule, with the thin series that
    it is to be seen in and its centre in DICOM's coordinates (LPS, mm), as LUNA16 has it. The same arguments give the
    same bytes; a patient is the same however many are written.

    Args:
        folder: where; it must not hold anything yet, unless ``overwrite``.
        patients: how many; each has one study with one to five nodules, 2.3 on average.
        seed: another seed, other patients.
        scanner: ``A``, ``B``, ``C``; ``mixed``: A or B; ``shifted``: A or B, but the patients of the test split
            (column ``split``) were examined on C, which differs in kernel, dose, thickness and tilt.
        matrix: pixels along each side of a slice; the field of view is 340 to 380 mm.
        series: what a study holds; the thin series at least.
        progress: say how far it is.
        overwrite: replace what is there.
        workers: processes; as many as there are processors where None.

    Returns:
        Path of the labels CSV.

    Raises:
        MedloraError: an option is out of range, or the folder cannot be written.
    """
    if scanner not in ("A", "B", "C", "mixed", "shifted"):
        raise MedloraError(f"no scanner is called {scanner!r}", "scanner is A, B, C, mixed or shifted")
    if patients < 1 or not 64 <= matrix <= 512:
        raise MedloraError(
            f"{patients} patients at {matrix} pixels cannot be made", "ask for 1 or more, at 64 to 512 pixels"
        )
    if "thin" not in series or not set(series) <= set(SERIES):
        raise MedloraError(
            f"a study cannot hold {', '.join(series) or 'nothing'}",
            "the labels are of the thin series; scout and thick may be added",
        )
    with new_folder(folder, "the phantoms", overwrite) as partial:
        draw = functools.partial(
            _write_patient, partial, seed=seed, scanner=scanner, matrix=matrix, wanted=tuple(series)
        )
        rows = draw_all(draw, patients, processes=True, workers=workers, progress=progress)
        write_labels(partial / "labels.csv", COLUMNS, rows)
    return Path(folder) / "labels.csv"


def _write_patient(
    root: Path, number: int, seed: int, scanner: ScannerChoice, matrix: int, wanted: tuple[SeriesChoice, ...]
) -> list[dict[str, Any]]:
    """Write one patient's study below ``root``; return the rows of the labels CSV."""
    exam = patient(number, seed, scanner, matrix)
    words = ("ct", scanner, matrix, seed, number)
    name = f"PHANTOM-CT-{seed}-{number:05d}"
    day = datetime.date(2021, 1, 1) + datetime.timedelta(days=number % 365)
    identity = ct_image.StudyIdentity(
        patient_id=name,
        patient_name=f"PHANTOM^CT-{seed}-{number:05d}",
        sex="F" if exam.thorax.chest.female else "M",
        age=exam.thorax.chest.age,
        date=day.strftime("%Y%m%d"),
        time=f"{8 + number % 9:02d}{7 * number % 60:02d}00",
        accession=f"PC{seed % 1000:03d}{number:05d}",
        study_uid=uid("study", *words),
        frame_uid=uid("frame", *words),
    )
    made = _series(exam, wanted, words)
    for one in made:
        ct_image.write(root / "dicom" / name / f"series{one.number}", one, exam.scanner, identity)
    thin = made[-1].uid
    return [_row(nodule, exam, identity, thin, split_of(number, seed)) for nodule in exam.visible]


def _series(exam: Examination, wanted: tuple[SeriesChoice, ...], words: tuple[object, ...]) -> list[ct_image.Series]:
    """The series of a study, the thin one last."""
    hu, width = exam.object()
    grid, scanner = exam.grid, exam.scanner
    pitch = float(grid.size[0])
    directions = grid.steps[:, :2] / grid.size[:2]
    orientation = tuple(map(float, directions.T.reshape(-1)))
    starts = np.asarray(grid.origin) + np.arange(grid.shape[0])[:, None] * grid.steps[:, 2]
    made = []
    if "scout" in wanted:
        top = starts[-1] * [1, 0, 1]
        made.append(
            ct_image.Series(1, "Scout", uid("scout", *words), tomographs.scout(hu, grid)[None],
                            (float(grid.size[2]), pitch), (1.0, 0, 0, 0, 0, -1.0), top[None], 1.0, None, 5, 0)
        )  # fmt: skip
    for number, kind, kernel, together in ((2, "thick", scanner.soft, 2), (3, "thin", scanner.sharp, 1)):
        if kind not in wanted:
            continue
        pixels = tomographs.reconstruct(hu, grid, kernel, exam.mas, width, np.random.default_rng(exam.noise), together)
        made.append(
            ct_image.Series(
                number=number,
                description=f"Chest {kind} {kernel.name}",
                uid=uid(kind, *words),
                pixels=pixels,
                spacing=(float(grid.size[1]), pitch),
                orientation=orientation,
                positions=starts.reshape(-1, together, 3).mean(axis=1),
                thickness=scanner.thickness * together,
                kernel=kernel,
                mas=exam.mas,
                tilt=exam.tilt,
            )
        )
    return made


def _row(
    nodule: nodules.Nodule, exam: Examination, identity: ct_image.StudyIdentity, series_uid: str, split: str
) -> dict[str, Any]:
    person = exam.thorax.person
    x, y, z = (round(float(v), 2) for v in nodule.centre)
    return {
        "series_uid": series_uid,
        "patient_id": identity.patient_id,
        "study_uid": identity.study_uid,
        "coordX": x,
        "coordY": y,
        "coordZ": z,
        "diameter_mm": round(nodule.diameter, 2),
        "label": "malignant" if nodule.malignant else "benign",
        "site": exam.scanner.site,
        "split": split,
        "sex": identity.sex,
        "age": identity.age,
        "emphysema": int(person.emphysema),
        "family_history": int(person.family_history),
        "upper_lobe": int(nodule.upper_lobe),
        "risk": round(nodule.risk, 4),
        "density": nodule.density,
        "margin": nodule.margin,
        "attachment": nodule.attachment,
        "calcified": int(nodule.calcified),
    }
