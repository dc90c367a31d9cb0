"""What an evaluation gives back: figures that print, tabulate, and write themselves down."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from medlora.evaluation.estimate import Estimate, finite
from medlora.evaluation.operating_point import OperatingPoint
from medlora.evaluation.subgroups import Subgroup
from medlora.evaluation.table import Predictions

if TYPE_CHECKING:
    from medlora.evaluation.report import ReportContext

RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis."


@dataclass(frozen=True)
class Metric:
    """One figure of one class; a row of ``metrics.json``.

    Attributes:
        class_: class name, or "macro", "micro", "all" for figures over classes ("class" in JSON).
        metric: "auc", "sensitivity", "specificity", "ppv", "npv", "accuracy", "f1", "brier", …
        value: the estimate, None where it cannot be estimated (``method`` says why).
        low: lower end of the interval.
        high: upper end of the interval.
        method: name of the interval's method.
        n_pos: positive cases.
        n_neg: negative cases.
        at: the operating point, None for figures that need none.
    """

    class_: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    n_pos: int | None
    n_neg: int | None
    at: str | None

    @classmethod
    def of(
        cls, class_: str, metric: str, estimate: Estimate, n_pos: int | None, n_neg: int | None, at: str | None
    ) -> Metric:
        """The row of an estimate."""
        ends = finite(estimate.value), finite(estimate.low), finite(estimate.high)
        return cls(class_, metric, *ends, estimate.method, n_pos, n_neg, at)

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in ``metrics.json``."""
        row = dict(self.__dict__)
        return {"class": row.pop("class_"), **row}

    def __str__(self) -> str:
        return f"{self.metric} {Estimate(self.value, self.low, self.high, self.method)}"


@dataclass(frozen=True)
class Evaluation:
    """Everything known about one set of predictions.

    Attributes:
        metrics: all figures.
        predictions: the checked predictions.
        operating_point: what made answers of probabilities; None when there are only raw scores.
        answers: the answer for each case at the operating point.
        notes: what must be known to read the figures.
        level: confidence level of the intervals.
        subgroups: the same figures for parts of the cases.
    """

    metrics: list[Metric]
    predictions: Predictions
    operating_point: OperatingPoint | None
    answers: NDArray | None
    notes: tuple[str, ...]
    level: float = 0.95
    subgroups: list[Subgroup] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """The unit of analysis, as ``metrics.json`` says it."""
        if not self.predictions.patient_known:
            return "case (no patients named)"
        return "case, intervals by patient" if self.predictions.clustered else "case, one per patient"

    def get(self, metric: str, class_: str | None = None) -> Metric:
        """The figure of this name (of this class; by default the first).

        Raises:
            KeyError: there is none.
        """
        for row in self.metrics:
            if row.metric == metric and class_ in (None, row.class_):
                return row
        raise KeyError(f"{metric} of {class_}" if class_ else metric)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "unit": self.unit,
            "n": len(set(self.predictions.case)),
            "patients": self.predictions.patient_count if self.predictions.patient_known else None,
            "level": self.level,
            "notes": list(self.notes),
            "metrics": [m.to_dict() for m in self.metrics],
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per figure."""
        return pd.DataFrame([m.to_dict() for m in self.metrics])

    def headline(self) -> list[Metric]:
        """The few figures that come first: the area, then sensitivity and specificity at the operating point."""
        if self.predictions.kind == "binary":
            return [m for m in self.metrics if m.metric in ("auc", "sensitivity", "specificity")]
        per_class = [m for m in self.metrics if m.metric == "auc" and m.class_ != "micro"]
        return per_class + [m for m in self.metrics if m.class_ == "all" and m.metric == "accuracy"]

    def __str__(self) -> str:
        names = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity", "accuracy": "accuracy"}
        lines = []
        for m in self.headline():
            of = "" if m.class_ == "all" else f" of {m.class_}"
            at = f" at {m.at}" if m.at else ""
            why = m.method if m.low is None else ""  # how intervals were made is in the report, and in metrics.json
            lines.append(f"{names[m.metric]}{of} {Estimate(m.value, m.low, m.high, why)}{at}")
        people = f" of {self.predictions.patient_count} patients" if self.predictions.patient_known else ""
        lines.append(f"{len(set(self.predictions.case))} cases{people}; {self.level:.0%} intervals")
        return "\n".join([*lines, *self.notes, RESEARCH_USE])

    def _repr_html_(self) -> str:
        from medlora.evaluation.report import summary_html

        return summary_html(self)

    def write(
        self, folder: str | os.PathLike[str], context: ReportContext | None = None, overwrite: bool = False
    ) -> None:
        """Write ``metrics.json``, ``report.html``, ``tables/`` and ``figures/`` to a new folder, whole or not at all.

        Args:
            folder: where; it must not hold anything, unless ``overwrite``.
            context: what the report can tell beyond the predictions.
            overwrite: replace an earlier evaluation.

        Raises:
            MedloraError: the folder holds something, or cannot be written.
        """
        from medlora.evaluation.report import write_report

        write_report(self, folder, context, overwrite)
