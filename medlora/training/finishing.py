"""What a training leaves: the adapter, with the calibration and the operating point that the tune split gives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medlora import adapters, evaluation, files, transforms
from medlora.training.card import card
from medlora.training.config import Config
from medlora.training.predictor import Predictor, predict_scans

if TYPE_CHECKING:
    from medlora.cohorts import Cohort
    from medlora.training.cases import TrainingCases


def save_judged(
    model: torch.nn.Module,
    adapter: adapters.Adapter,
    info: dict[str, Any],
    config: Config,
    cohort: Cohort,
    cases: TrainingCases,
    folder: Path,
    predictions: Path | None,
) -> None:
    """Save ``adapter`` with the calibration and the operating point that the tune split gives it.

    The tune scans are read and prepared anew, as at any later prediction: nothing is judged from a cache.

    Args:
        model: the backbone with ``adapter`` attached, on the CPU.
        adapter: trained.
        info: what the adapter says of itself so far, with its ``preprocessing`` and ``task``.
        config: whose rule of the operating point is followed.
        cohort, cases: what was trained on.
        folder: to be made, for the adapter.
        predictions: file for the tune split's predictions; none: not kept.
    """
    predictor = Predictor(
        model=model.eval(),
        preset=transforms.preset_from(info["preprocessing"]),
        task=cases.task,
        calibration=cases.task.uncalibrated(),
        operating_point=evaluation.OperatingPoint(None),
        info=info,
        device=torch.device("cpu"),
    )
    (logits,) = predict_scans([predictor], cohort.scan, cases.of("tune"), "predicting the tune scans")
    labels = cases.labels("tune")
    predictor.calibration = cases.task.calibrate(logits, labels)
    predictor.operating_point = cases.task.operating_point(
        config.evaluation.operating_point, predictor.probabilities(logits), labels
    )
    table = predictor.table(cases.rows("tune"), logits)
    judged = evaluation.evaluate(table, threshold=predictor.operating_point)
    frozen = predictor.calibration.to_dict() | {"operating_point": predictor.operating_point.to_dict()}
    task = info["task"] | frozen
    info = info | {"task": task, "figures": {"tune": judged.to_dict()}}
    adapter.save(folder, info=info, card=card(info, cases.task, predictor.calibration, adapter.summary(), judged))
    if predictions is not None:
        predictions.parent.mkdir(exist_ok=True)
        files.write_text(predictions, table.to_csv(index=False, lineterminator="\n"))
