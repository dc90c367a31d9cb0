"""Answers for new scans: what ``medlora predict`` writes, a row for each scan, answered or not."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from medlora.errors import MedloraError
from medlora.progress import track
from medlora.training.predictor import Predictor

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

_BATCH = 32


@dataclass(frozen=True)
class Answers:
    """Predictions for new scans.

    Attributes:
        table: a row for each scan: case_id, scan_id, patient (a hash that holds within this table), site, y (empty),
            p_CLASS…, predicted, note, reason (why there is no answer); nothing in it identifies anybody.
        sources: the files of each row of ``table``; they may carry names, so they are kept apart from it.
    """

    table: pd.DataFrame
    sources: list[tuple[Path, ...]]

    @property
    def answered(self) -> int:
        """How many rows have an answer."""
        return int((self.table["reason"] == "").sum())

    def linkage(self) -> pd.DataFrame:
        """Which files each row is of. Paths may identify patients: keep it as the scans themselves are kept."""
        rows = [
            {"row": index + 1, "scan_id": self.table["scan_id"].iloc[index], "path": os.fspath(path)}
            for index, paths in enumerate(self.sources)
            for path in paths
        ]
        return pd.DataFrame(rows, columns=["row", "scan_id", "path"])

    def _repr_html_(self) -> str:
        return self.table.to_html(notebook=True, max_rows=60)


def predict(model: Predictor, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Answers:
    """Answer for each scan in ``paths``, in the order of their files.

    Args:
        model: the adapter on its backbone.
        paths: files or folders.

    Raises:
        MedloraError: a path does not exist, or there is no file at all.
    """
    from medlora import scans

    places = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    for place in places:
        if not place.exists():
            raise MedloraError(f"there is no {place}", "check the path")
    survey = scans.survey(places)
    if not survey.scans and not survey.excluded:
        raise MedloraError(f"no file in {', '.join(map(str, places))}", "give a folder or file that holds scans")

    salt = secrets.token_bytes(16)
    prepare = model.preset.preparation()
    rows: list[dict[str, object]] = []
    waiting: list[tuple[int, torch.Tensor]] = []
    for number, item in enumerate(track(survey.scans, "predicting scans"), 1):
        row = _row(model, item, salt)
        rows.append(row)
        try:
            waiting.append((len(rows) - 1, torch.as_tensor(prepare(item.load()))))
        except MedloraError as error:
            row["reason"] = error.what
        if waiting and (len(waiting) == _BATCH or number == len(survey.scans)):
            _answer(model, rows, waiting)
            waiting.clear()
    sources = [item.paths for item in survey.scans]
    for left_out in survey.excluded:
        rows.append(_empty(model, left_out.scan_id or "") | {"reason": f"{left_out.code.name}: {left_out.reason}"})
        sources.append(tuple(left_out.paths))
    return Answers(pd.DataFrame(rows), sources)


def _row(model: Predictor, item: ScanFiles, salt: bytes) -> dict[str, object]:
    row = _empty(model, item.scan_id)
    if item.identity.patient_id:
        row["patient"] = hashlib.sha256(salt + item.identity.patient_id.encode()).hexdigest()[:16]
    notes = [str(issue) for issue in item.issues]
    seen, view = model.info["task"].get("views") or [], str(item.header.get("ViewPosition") or "")
    if seen and view and view not in seen:
        notes.append(f"view {view} was not among those of the training ({', '.join(seen)})")
    row["note"] = "; ".join(notes)
    return row


def _empty(model: Predictor, scan_id: str) -> dict[str, object]:
    probabilities = {f"p_{name}": None for name in model.classes}
    identity = {"case_id": scan_id, "scan_id": scan_id, "patient": "", "site": "", "y": ""}
    return {**identity, **probabilities, "predicted": "", "note": "", "reason": ""}


def _answer(model: Predictor, rows: list[dict[str, object]], waiting: list[tuple[int, torch.Tensor]]) -> None:
    probabilities = model.probabilities(model.logits(torch.stack([image for _, image in waiting])))
    predicted = model.operating_point.predict(probabilities, model.classes)
    for (index, _), values, answer in zip(waiting, probabilities, predicted, strict=True):
        rows[index].update({f"p_{name}": float(value) for name, value in zip(model.classes, values, strict=True)})
        rows[index]["predicted"] = answer
