"""What a report can tell beyond the predictions: plain data, all of it optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class ReportContext:
    """The story around a set of predictions.

    Attributes:
        title: the report's heading.
        subtitle: one line under it (the task, the split).
        data_note: a word that every figure carries ("phantom").
        flow: ``{"found": n, "excluded": {code: n}, "splits": {split: {class: n}}}``, ``"unit"`` where what was found
            and left out are no cases but ``scans`` that hold some, and ``"cases": {split: n}`` where a case is of
            several classes.
        training_curve: one mapping per epoch: ``epoch``, ``train_loss``, ``tune_loss``, ``tune_auc``, …
        baselines: other models' predictions on the same cases, by name (the linear probe).
        thumbnails: PNG bytes by case_id, or a function of case_id that gives them (or None).
        sizes: ``adapter_bytes``, ``backbone_bytes``, ``trainable_parameters``, ``total_parameters``.
        source_check: rows ``{"class", "from", "auc", "low", "high", "method"}``: the area that the source of
            the images alone reaches: their border, acquisition tags, year or site.
        warnings: sentences shown first.
        provenance: what was used (backbone, licence, fingerprint, method, seed, versions), shown as a table.
        same_data_warning: True (or a sentence) when the operating point was chosen on these very cases.
        uncalibrated: the same cases before calibration, for the calibration figure.
    """

    title: str | None = None
    subtitle: str | None = None
    data_note: str | None = None
    flow: Mapping[str, Any] | None = None
    training_curve: Sequence[Mapping[str, Any]] | None = None
    baselines: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    thumbnails: Mapping[str, bytes] | Callable[[str], bytes | None] | None = None
    sizes: Mapping[str, int] | None = None
    source_check: Sequence[Mapping[str, Any]] | None = None
    warnings: Sequence[str] = ()
    provenance: Mapping[str, Any] | None = None
    same_data_warning: bool | str = False
    uncalibrated: pd.DataFrame | None = None
