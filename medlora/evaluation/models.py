"""Several models on the same cases: every pair compared, p values corrected."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medlora.errors import MedloraError
from medlora.evaluation.alignment import same_cases
from medlora.evaluation.comparison import Difference, area_difference, delong_test, holm, paired_proportions
from medlora.evaluation.discrimination import auc_covariance
from medlora.evaluation.estimate import Estimate, number
from medlora.evaluation.evaluating import called, evaluate, judged, trainings
from medlora.evaluation.operating_point import OperatingPoint
from medlora.evaluation.result import RESEARCH_USE, Evaluation
from medlora.evaluation.table import Predictions

Source: TypeAlias = str | os.PathLike[str] | pd.DataFrame


@dataclass(frozen=True)
class Comparison:
    """Models on the same cases.

    Attributes:
        evaluations: the evaluation of each model, by name.
        differences: one row per class, figure and pair: ``class``, ``metric``, ``a``, ``b``, ``value_a``, ``value_b``,
            ``difference``, ``low``, ``high``, ``p``, ``p_holm``, ``method``, and for areas with a margin
            ``margin``, ``p_noninferior``, ``noninferior``.
        level: confidence level of the intervals.
    """

    evaluations: dict[str, Evaluation]
    differences: list[dict[str, Any]]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        models = {name: e.to_dict() for name, e in self.evaluations.items()}
        correction = "Holm, over all rows of a figure"
        return {"level": self.level, "correction": correction, "models": models, "differences": self.differences}

    def to_frame(self) -> pd.DataFrame:
        """One row per difference."""
        return pd.DataFrame(self.differences)

    def __str__(self) -> str:
        lines = []
        for name, e in self.evaluations.items():
            for m in e.metrics:
                if m.metric == "auc":
                    lines.append(f"{name}: AUC of {m.class_} {Estimate(m.value, m.low, m.high, m.method)}")
        for row in self.differences:
            if row["metric"] == "auc":
                ends = "" if row["low"] is None else f" [{number(row['low'], 3)}, {number(row['high'], 3)}]"
                p = "" if row["p"] is None else f", p {row['p']:.2g}, corrected {row['p_holm']:.2g}"
                if row.get("noninferior") is not None:
                    p += f", {'' if row['noninferior'] else 'not shown to be '}not inferior by {row['margin']:g}"
                what = f"{row['a']} − {row['b']}: AUC of {row['class']}"
                lines.append(f"{what} {number(row['difference'], 3)}{ends}{p} ({row['method']})")
        return "\n".join([*lines, RESEARCH_USE])

    def _repr_html_(self) -> str:
        from medlora.evaluation.report import comparison_summary

        return comparison_summary(self)

    def write(self, folder: str | os.PathLike[str], *, title: str | None = None, overwrite: bool = False) -> None:
        """Write ``comparison.json``, ``comparison.html``, ``tables/`` and ``figures/`` to a new folder."""
        from medlora.evaluation.report import write_comparison

        write_comparison(self, folder, title, overwrite)


def compare(
    models: Mapping[str, Source] | Sequence[str | os.PathLike[str]],
    *,
    positive: str | None = None,
    thresholds: Mapping[str, float | OperatingPoint | None] | float | None = None,
    margin: float | None = None,
    level: float = 0.95,
    label_column: str | None = None,
    score_column: str | None = None,
) -> Comparison:
    """Compare models on the same cases, each pair by a test that pairs cases and follows patients.

    Repeated trainings (a column ``seed`` or ``fold``) are compared by their mean area; the test still resamples
    patients, since seeds and folds are not new patients.

    Args:
        models: predictions (CSV or table) by name; or CSV paths, named by their files.
        positive: the positive class of two.
        thresholds: operating point of each model, by name; or one threshold for all.
        margin: also test that the first of a pair is not worse than the second by this much.
        level: confidence level.
        label_column: of files, see `read_predictions`.
        score_column: likewise.

    Raises:
        MedloraError: fewer than two models, other cases or labels in one of them, unusable predictions.
    """
    named = dict(models) if isinstance(models, Mapping) else _names([Path(p) for p in models])
    if len(named) < 2:
        raise MedloraError(f"{len(named)} model to compare", "give predictions of two or more on the same cases")
    points = thresholds if isinstance(thresholds, Mapping) else dict.fromkeys(named, thresholds)
    unknown = set(points) - set(named)
    if unknown:
        raise MedloraError(f"thresholds for unknown models: {', '.join(sorted(unknown))}")
    evaluations: dict[str, Evaluation] = {}
    for name, source in named.items():
        try:
            evaluations[name] = evaluate(
                source,
                positive=positive,
                threshold=points.get(name),
                level=level,
                label_column=label_column,
                score_column=score_column,
            )
        except MedloraError as error:
            raise MedloraError(f"{name}: {error.what}", error.fix) from error
    rows: list[dict[str, Any]] = []
    for a, b in combinations(named, 2):
        rows += _pair(a, b, evaluations[a], evaluations[b], margin, level)
    for metric in dict.fromkeys(r["metric"] for r in rows):
        family = [r for r in rows if r["metric"] == metric]
        for row, p in zip(family, holm([np.nan if r["p"] is None else r["p"] for r in family]), strict=True):
            row["p_holm"] = None if np.isnan(p) else float(p)
    return Comparison(evaluations, rows, level)


def _names(paths: list[Path]) -> dict[str, Source]:
    """Name files by their stems; where those repeat (``test.csv`` of several runs), by as many folders as it takes."""
    for depth in range(1, max((len(p.parts) for p in paths), default=1) + 1):
        names = ["/".join([*p.parts[-depth:-1], p.stem]) for p in paths]
        if len(set(names)) == len(paths):
            return dict(zip(names, paths, strict=True))
    raise MedloraError("the same predictions file is given twice", "give each model once")


def _pair(
    a: str, b: str, first: Evaluation, second: Evaluation, margin: float | None, level: float
) -> list[dict[str, Any]]:
    ours, repeats = first.predictions, (trainings(first.predictions), trainings(second.predictions))
    plain = repeats[0] is None and repeats[1] is None
    theirs = same_cases(ours, second.predictions.frame, b) if plain else second.predictions
    rows = []
    for name in judged(ours):
        truth = ours.truth(name)
        known = ~np.isnan(truth)
        y, who = truth[known] == 1, ours.patients[known]
        if y.all() or not y.any():
            continue
        if plain:
            test = delong_test(y, ours.score(name)[known], theirs.score(name)[known], who, margin=margin, level=level)
        else:
            test = _repeated(ours, theirs, repeats, name, a, b, margin, level)
        rows.append(_row(name, "auc", a, b, test))
        if plain and first.answers is not None and second.answers is not None:
            theirs_called = second.operating_point.predict(theirs.p, theirs.classes)  # type: ignore[union-attr]
            hit_a, hit_b = called(ours, first.answers, name)[known], called(theirs, theirs_called, name)[known]
            rows.append(_row(name, "sensitivity", a, b, paired_proportions(hit_a, hit_b, y, who, level=level)))
            rows.append(_row(name, "specificity", a, b, paired_proportions(~hit_a, ~hit_b, ~y, who, level=level)))
    return rows


def _row(name: str, metric: str, a: str, b: str, test: Difference) -> dict[str, Any]:
    row = {
        "class": name, "metric": metric, "a": a, "b": b, "value_a": test.a, "value_b": test.b,
        "difference": test.value, "low": test.low, "high": test.high,
        "p": test.p, "p_holm": None, "method": test.method,
    }  # fmt: skip
    if test.margin is not None:
        row |= {"margin": test.margin, "p_noninferior": test.p_noninferior, "noninferior": test.noninferior}
    return row


def _repeated(
    ours: Predictions,
    theirs: Predictions,
    repeats: tuple[NDArray[np.intp] | None, NDArray[np.intp] | None],
    name: str,
    a: str,
    b: str,
    margin: float | None,
    level: float,
) -> Difference:
    """Mean area over trainings of A minus that of B; patients are the units, shared by all trainings of both."""
    if set(ours.case) != set(theirs.case) or set(ours.classes) != set(theirs.classes):
        raise MedloraError(
            f"{a} and {b} are not on the same cases and classes", "compare predictions of the same cohort"
        )
    sides = [(ours, repeats[0]), (theirs, repeats[1])]
    groups = [np.zeros(p.n, dtype=np.intp) if g is None else g for p, g in sides]
    counts = [int(g.max()) + 1 for g in groups]
    place = np.r_[groups[0], groups[1] + counts[0]]
    y = np.r_[ours.truth(name), theirs.truth(name)]
    truth = dict(zip(ours.case, ours.truth(name), strict=True))
    if any(truth[c] != t for c, t in zip(theirs.case, theirs.truth(name), strict=True)):
        raise MedloraError(f"{b} has other labels than {a} for the same cases", "evaluate both on one cohort")
    s = np.r_[ours.score(name), theirs.score(name)]
    person = dict(zip(ours.case, ours.patients, strict=True))
    who = np.array([person[c] for c in np.r_[ours.case, theirs.case]])
    where = (place[:, None] == np.arange(sum(counts))) & ~np.isnan(y)[:, None]
    k = sum(counts)
    areas, cov = auc_covariance(np.repeat(np.nan_to_num(y)[:, None], k, 1), np.repeat(s[:, None], k, 1), who, where)
    weights = np.r_[np.full(counts[0], 1 / counts[0]), np.full(counts[1], -1 / counts[1])]
    se = float(np.sqrt(max(weights @ cov @ weights, 0.0)))
    mean_a, mean_b = float(areas[: counts[0]].mean()), float(areas[counts[0] :].mean())
    method = f"Obuchowski, means over {counts[0]} and {counts[1]} trainings"
    return area_difference(mean_a, mean_b, se, method, margin=margin, level=level)
