"""An adapter at work: scans in, probabilities out, from the adapter's folder alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from medlora import adapters, backbones, transforms
from medlora.errors import MedloraError
from medlora.evaluation import Calibration, OperatingPoint, calibration_from
from medlora.progress import track
from medlora.training.device import pick_device
from medlora.training.reading import prepared
from medlora.training.task import Task, task_from

if TYPE_CHECKING:
    from medlora.scans import Scan
    from medlora.training.answering import Answers
    from medlora.training.cases import Where
    from medlora.training.explaining import Explanation

_BATCH = 32  # images prepared at a time
_STEP = 8  # images in one pass through the network


@dataclass
class Predictor:
    """A backbone with an adapter loaded, and all that was frozen with it.

    Attributes:
        model: backbone and adapter, in evaluation mode.
        preset: preparation of scans.
        task: what it answers.
        calibration: turns logits into probabilities; fitted on the tune split.
        operating_point: turns probabilities into an answer; chosen on the tune split.
        info: the adapter's ``medlora.json``.
    """

    model: torch.nn.Module
    preset: transforms.Preset
    task: Task
    calibration: Calibration
    operating_point: OperatingPoint
    info: dict[str, Any]
    device: torch.device

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the outputs."""
        return self.task.classes

    @classmethod
    def load(cls, adapter: str | Path, weights: str | Path | None = None, device: str = "auto") -> Predictor:
        """Load an adapter folder onto its backbone.

        Args:
            adapter: an adapter's folder, or the run that holds it.
            weights: the backbone's weights file, where the adapter was trained on one.
            device: cpu, cuda, mps or auto.

        Raises:
            MedloraError: the folder is no adapter or damaged, or the backbone cannot be had or is another one.
        """
        folder = adapter_folder(adapter)
        info = adapters.read_info(folder)
        try:
            recorded, described = info["backbone"], info["task"]
            preset = transforms.preset_from(info["preprocessing"])
            operating_point = OperatingPoint.from_dict(described["operating_point"])
            task, calibration = task_from(described), calibration_from(described)
        except (KeyError, TypeError, ValueError) as error:
            raise MedloraError(
                f"{folder / 'medlora.json'} does not say all that prediction needs ({error})",
                "use an adapter that medlora train has written",
            ) from error
        if recorded["source"] == "file" and weights is None:
            raise MedloraError(
                f"the adapter {folder} was trained on {recorded['name']} with weights from a file "
                f"(SHA-256 {str(recorded['sha256'])[:12]}…)",
                "add --weights FILE with that file",
            )
        chosen = backbones.RANDOM if recorded["source"] == backbones.RANDOM else weights
        backbone = backbones.create(
            recorded["name"],
            chosen,
            num_classes=len(task.classes),
            image_size=preset.size,
            seed=int(recorded.get("seed", 0)),
        )
        adapters.load(backbone.model, folder)
        where = pick_device(device)
        return cls(backbone.model.eval().to(where), preset, task, calibration, operating_point, info, where)

    def logits(self, images: torch.Tensor) -> np.ndarray:
        """Prepared images (N, channels, H, W) → logits (N, K), float32.

        Always in batches of one size, the last one filled up with zeros: the libraries round otherwise for another
        size, and an image's answer must not depend on what else is asked with it.
        """
        rows = []
        with torch.inference_mode():
            for part in images.split(_STEP):
                filled = torch.cat([part, part.new_zeros(_STEP - len(part), *part.shape[1:])])
                out = self.model(self.preset.normalise(filled.to(self.device)))
                rows.append(out[: len(part)].float().cpu().numpy())
        return np.concatenate(rows)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, K) → calibrated probabilities (N, K), float64; rows of classes, not of findings, sum to 1."""
        return self.calibration.probabilities(logits)

    def predict(
        self,
        paths: str | Path | list[str | Path],
        cases: str | Path | None = None,
        coordinates: str | None = None,
        modality: str | None = None,
    ) -> Answers:
        """Answer for each scan in files or folders, or for places in them.

        See :func:`medlora.training.answering.predict`.
        """
        from medlora.training.answering import predict

        return predict(self, paths, cases, coordinates, modality)

    def explain(
        self,
        scan: Scan,
        centre: transforms.Centre | None = None,
        target: str | None = None,
        method: str | None = None,
        seed: int = 0,
    ) -> Explanation:
        """Map where the model looked in a scan; see :func:`medlora.training.explaining.explain`."""
        from medlora.training.explaining import explain

        return explain(self, scan, centre, target, method, seed)

    def table(self, cases: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
        """Predictions in the form that :mod:`medlora.evaluation` reads: ``cases`` with p_CLASS… and predicted."""
        probabilities = self.probabilities(logits)
        out = cases.reset_index(drop=True).copy()
        for index, name in enumerate(self.classes):
            out[f"p_{name}"] = probabilities[:, index]
        out["predicted"] = self.operating_point.words(probabilities, self.classes)
        return out


def adapter_folder(path: str | Path) -> Path:
    """The adapter's folder where ``path`` is one, or a run that holds one.

    Raises:
        MedloraError: ``path`` is neither, or the run did not end well.
    """
    path = Path(path)
    if (path / "medlora.json").is_file():
        return path
    if (path / "STATUS").is_file():
        status = (path / "STATUS").read_text(encoding="utf-8").strip()
        if status != "done":
            raise MedloraError(
                f"the run {path} did not end well: {status}",
                "go on with medlora train … --resume, or train anew with --overwrite",
            )
        return path / "adapter"
    if not path.exists():
        raise MedloraError(f"there is no {path}", "give the folder of an adapter, or of a run")
    raise MedloraError(f"{path} is no adapter: it has no medlora.json", "give the folder of an adapter, or of a run")


def predict_scans(
    predictors: Sequence[Predictor], read: Callable[[str], Scan], cases: Sequence[Where], what: str
) -> list[np.ndarray]:
    """Logits of several models for the same cases, each read and prepared once.

    Args:
        predictors: with one and the same preset.
        read: scan_id → Scan.
        cases: in the order of the answer.
        what: the work, for the progress shown.

    Returns:
        For each predictor logits (N, K), float32.

    Raises:
        MedloraError: a scan cannot be read, or is not of the kind that the adapter was made for.
    """
    parts: list[list[np.ndarray]] = [[np.zeros((0, len(predictor.classes)), np.float32)] for predictor in predictors]
    batch: list[torch.Tensor] = []
    images_of = track(prepared(cases, read, predictors[0].preset), what, len(cases))
    for index, image in enumerate(images_of, 1):
        batch.append(image)
        if len(batch) == _BATCH or index == len(cases):
            images = torch.stack(batch)
            batch.clear()
            for part, predictor in zip(parts, predictors, strict=True):
                part.append(predictor.logits(images))
    return [np.concatenate(part) for part in parts]
