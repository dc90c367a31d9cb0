"""What a training leaves: the adapter, with the temperature and the operating point that the tune split gives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medlora import adapters, evaluation, files, transforms
from medlora.errors import MedloraError
from medlora.training.card import card
from medlora.training.config import Config, Evaluation
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
    """Save ``adapter`` with the temperature and the operating point that the tune split gives it.

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
        classes=cases.classes,
        temperature=1.0,
        operating_point=evaluation.OperatingPoint(None),
        info=info,
        device=torch.device("cpu"),
    )
    (logits,) = predict_scans([predictor], cohort.scan, cases.of("tune"), "predicting the tune scans")
    labels = cases.labels("tune")
    predictor.temperature = evaluation.fit_temperature(logits, labels)
    predictor.operating_point = _operating_point(
        config.evaluation.operating_point, cases.classes, predictor.probabilities(logits), labels
    )
    table = predictor.table(cases.rows("tune"), logits)
    judged = evaluation.evaluate(table, threshold=predictor.operating_point)
    task = info["task"] | {
        "temperature": predictor.temperature,
        "operating_point": predictor.operating_point.to_dict(),
    }
    info = info | {"task": task, "figures": {"tune": judged.to_dict()}}
    adapter.save(folder, info=info, card=card(info, adapter.summary(), judged))
    if predictions is not None:
        predictions.parent.mkdir(exist_ok=True)
        files.write_text(predictions, table.to_csv(index=False, lineterminator="\n"))


def check_rule(rule: str, classes: list[str]) -> None:
    """Refuse a rule of the operating point that would not be followed.

    Raises:
        MedloraError: it is for two classes, and there are more.
    """
    usual = Evaluation().operating_point
    if len(classes) > 2 and rule != usual:
        raise MedloraError(
            f"evaluation.operating_point={rule} is a rule for two classes, and there are {len(classes)}: "
            f"{', '.join(classes)}",
            "leave it out, and the most probable class is answered; or name two classes with --classes",
        )


def _operating_point(
    rule: str, classes: list[str], probabilities: np.ndarray, labels: np.ndarray
) -> evaluation.OperatingPoint:
    """The operating point that ``rule`` gives on the tune split; of several classes the most probable is answered."""
    if len(classes) > 2:
        return evaluation.OperatingPoint(None, rule="highest probability", chosen_on="tune")
    try:
        chosen: str | float = float(rule)
    except ValueError:
        chosen = rule
    return evaluation.choose_threshold(labels == 1, probabilities[:, 1], chosen, positive=classes[1], chosen_on="tune")
