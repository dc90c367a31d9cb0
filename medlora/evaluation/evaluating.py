"""Predictions in, every figure that a reviewer asks for out."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medlora.errors import MedloraError
from medlora.evaluation.alignment import with_covariates
from medlora.evaluation.calibration import brier, calibration_intercept_slope
from medlora.evaluation.discrimination import auc, auc_covariance, auc_interval, patient_codes
from medlora.evaluation.estimate import Estimate
from medlora.evaluation.operating_point import NOTHING, SEPARATOR, OperatingPoint
from medlora.evaluation.partial import partial_auc
from medlora.evaluation.proportions import effective_n, likelihood_ratios, predictive_values, proportion
from medlora.evaluation.reading import read_predictions
from medlora.evaluation.result import Evaluation, Metric
from medlora.evaluation.subgroups import subgroups
from medlora.evaluation.table import Predictions, check_predictions


def evaluate(
    predictions: str | os.PathLike[str] | pd.DataFrame,
    *,
    positive: str | None = None,
    threshold: float | OperatingPoint | None = None,
    prevalence: float | None = None,
    min_specificity: float | None = None,
    interval: str = "wilson",
    level: float = 0.95,
    columns: Sequence[str] | None = None,
    covariates: pd.DataFrame | None = None,
    label_column: str | None = None,
    score_column: str | None = None,
) -> Evaluation:
    """Judge predictions.

    Args:
        predictions: a predictions CSV or the table that `read_predictions` gives.
        positive: the positive class of two; by default the last ``p_`` column.
        threshold: the frozen operating point, or a threshold of the positive class; None for the one that a column
            ``predicted`` was made with, else 0.5 (two classes, findings), or the most probable class (more).
        prevalence: also give PPV and NPV at this share of positives.
        min_specificity: also give the partial area between this specificity and 1 (standardised).
        interval: of proportions: "wilson" or "exact" (Clopper-Pearson).
        level: confidence level of all intervals.
        columns: columns to divide by for subgroups; None for those with a known name (sex, age, site, manufacturer,
            kernel, slice thickness, view, …).
        covariates: further columns for subgroups, joined by ``case_id`` (or ``scan_id``).
        label_column: see `read_predictions`.
        score_column: see `read_predictions`.

    Returns:
        All figures; prints as a few lines, shows as a table in Jupyter, writes ``metrics.json`` and the report.

    Raises:
        MedloraError: the predictions cannot be used; see `read_predictions`.
    """
    if not isinstance(predictions, pd.DataFrame):
        predictions = read_predictions(
            predictions, label_column=label_column, score_column=score_column, positive=positive
        )
    elif label_column is not None or score_column is not None:
        raise MedloraError("label_column and score_column are for files", "rename the table's columns to y and p_CLASS")
    if not 0 < level < 1:
        raise MedloraError(f"a confidence level of {level:g} is not between 0 and 1", "give a share such as 0.95")
    if covariates is not None:
        predictions = with_covariates(predictions, covariates)
    checked = check_predictions(predictions, positive=positive)
    notes = list(checked.notes)
    point = _operating_point(checked, threshold)
    answers = None if point is None else point.predict(checked.p, checked.classes)
    if point is None:
        notes.append("Scores are no probabilities and no threshold was given: figures of discrimination only.")
    metrics: list[Metric] = []
    for name in judged(checked):
        metrics += _of_class(checked, name, point, answers, prevalence, interval, level)
        if min_specificity is not None:
            metrics += _partial(checked, name, min_specificity, level)
    metrics += _overall(checked, answers, point, interval, level)
    notes += _disagreement(checked, answers)
    hits = None if answers is None else {c: called(checked, answers, c) for c in judged(checked)}
    repeats = trainings(checked)
    if repeats is not None:
        notes.append(
            f"Predictions of {int(repeats.max()) + 1} trainings: each AUC is the mean of theirs, not of pooled scores; "
            "the other figures count the answers of all, with intervals by patient. No subgroups are given."
        )
    parts = subgroups(checked, hits, columns, level=level) if repeats is None else []
    return Evaluation(metrics, checked, point, answers, tuple(notes), level, parts)


def _operating_point(checked: Predictions, threshold: float | OperatingPoint | None) -> OperatingPoint | None:
    if isinstance(threshold, OperatingPoint):
        if checked.kind == "binary" and threshold.positive is None and isinstance(threshold.value, float):
            return OperatingPoint(**{**threshold.to_dict(), "positive": checked.positive})
        return threshold
    if threshold is not None:
        if checked.kind == "multilabel":
            return OperatingPoint(dict.fromkeys(checked.classes, float(threshold)))
        if checked.kind == "multiclass":
            raise MedloraError(
                f"one threshold for {len(checked.classes)} classes does not say which class it is for",
                "leave it out (the most probable class is the answer), or give an OperatingPoint with its class",
            )
        return OperatingPoint(float(threshold), positive=checked.positive)
    if not checked.probability:
        return None
    if checked.kind == "multiclass":
        return OperatingPoint(None, "default")
    given = {name: _threshold_given(checked, name) for name in judged(checked)}
    rule = "default" if set(given.values()) <= {None, 0.5} else "that of the column 'predicted'"
    values = {name: 0.5 if value is None else value for name, value in given.items()}
    if checked.kind == "multilabel":
        return OperatingPoint(values, rule)
    return OperatingPoint(values[checked.positive], rule, positive=checked.positive)


def _threshold_given(checked: Predictions, name: str) -> float | None:
    """A threshold at which ``name`` is answered just where the file's own column ``predicted`` says it; 0.5 if it is
    one, None where there is no such column or no such threshold."""
    if "predicted" not in checked.frame.columns:
        return None
    words = checked.frame["predicted"].fillna("").astype(str)
    if words.eq("").any():
        return None
    several = checked.kind == "multilabel"
    split = words.map(lambda word: word.split(SEPARATOR) if several else [word])
    known = {*checked.classes, NOTHING} if several else {*checked.classes}
    if not split.map(known.issuperset).all():
        return None
    said = split.map(lambda parts: name in parts).to_numpy()
    score = checked.score(name)
    above = float(score[said].min()) if said.any() else float(np.nextafter(score.max(), 2))
    below = float(score[~said].max()) if not said.all() else -np.inf
    if not below < above:
        return None
    return 0.5 if below < 0.5 <= above else above


def judged(checked: Predictions) -> list[str]:
    """The classes that figures are given for: the positive one of two, else all."""
    return [checked.positive] if checked.kind == "binary" else list(checked.classes)


def called(checked: Predictions, answers: NDArray, name: str) -> NDArray[np.bool_]:
    """Which cases were answered with class (or finding) ``name``."""
    if checked.kind == "multilabel":
        return answers[:, checked.classes.index(name)].astype(bool)
    return answers == name


def _of_class(
    checked: Predictions,
    name: str,
    point: OperatingPoint | None,
    answers: NDArray | None,
    prevalence: float | None,
    interval: str,
    level: float,
) -> list[Metric]:
    truth = checked.truth(name)
    known = ~np.isnan(truth)
    y, s, who = truth[known] == 1, checked.score(name)[known], checked.patients[known]
    # A case that several trainings answered is one case.
    m, n = (len(np.unique(checked.case[known][side])) for side in (y, ~y))
    patients = who if checked.clustered else None
    if 0 in (m, n):
        why = f"not estimable: {m} positive and {n} negative cases"
        return [Metric(name, "auc", None, None, None, why, m, n, None)]
    repeats = trainings(checked)
    area = (
        auc(y, s, patients, level=level)
        if repeats is None
        else mean_auc(y[:, None], s[:, None], repeats[known], checked.patients[known], level=level)
    )
    made: list[Metric] = [Metric.of(name, "auc", area, m, n, None)]
    if answers is not None and point is not None:
        hit = called(checked, answers, name)[known]
        everyone = np.ones_like(y)
        at = point.describe(name)

        def share(metric: str, x: NDArray, among: NDArray) -> Estimate:
            estimate = proportion(x, among, patients, interval=interval, level=level)
            made.append(Metric.of(name, metric, estimate, m, n, at))
            return estimate

        sensitivity, specificity = share("sensitivity", hit, y), share("specificity", ~hit, ~y)
        share("ppv", y, hit)
        share("npv", ~y, ~hit)
        if checked.kind != "multiclass":
            share("accuracy", hit == y, everyone)
        # F1 = 2J/(1+J) of the Jaccard index J = TP/(TP+FP+FN), which is a proportion.
        jaccard = proportion(hit & y, hit | y, patients, interval=interval, level=level)
        made.append(Metric.of(name, "f1", _f1(jaccard), m, n, at))
        positive_ratio, negative_ratio, odds = likelihood_ratios(hit, y, patients, level=level)
        made.append(Metric.of(name, "lr_positive", positive_ratio, m, n, at))
        made.append(Metric.of(name, "lr_negative", negative_ratio, m, n, at))
        made.append(Metric.of(name, "diagnostic_odds_ratio", odds, m, n, at))
        if prevalence is not None:
            pair = _at_prevalence(hit, y, patients, sensitivity, specificity, prevalence, level)
            for metric, estimate in zip(("ppv", "npv"), pair, strict=True):
                made.append(
                    Metric.of(name, f"{metric}_at_prevalence", estimate, m, n, f"{at}; prevalence {prevalence:g}")
                )
    if checked.probability:
        made.append(Metric.of(name, "brier", brier(s, y, patients, level=level), m, n, None))
        intercept, slope = calibration_intercept_slope(s, y, patients, level=level)
        made.append(Metric.of(name, "calibration_intercept", intercept, m, n, None))
        made.append(Metric.of(name, "calibration_slope", slope, m, n, None))
    return made


def _partial(checked: Predictions, name: str, min_specificity: float, level: float) -> list[Metric]:
    truth = checked.truth(name)
    known = ~np.isnan(truth)
    y, s, who = truth[known] == 1, checked.score(name)[known], checked.patients[known]
    if trainings(checked) is not None or y.all() or not y.any():
        return []
    part = partial_auc(y, s, who, min_specificity=min_specificity, standardised=True, level=level)
    return [
        Metric.of(name, "partial_auc", part, part.n_pos, part.n_neg, f"specificity ≥ {min_specificity:g}, standardised")
    ]


def _f1(jaccard: Estimate) -> Estimate:
    def turn(j: float | None) -> float | None:
        return None if j is None else 2 * j / (1 + j)

    return Estimate(turn(jaccard.value), turn(jaccard.low), turn(jaccard.high), f"{jaccard.method}, of TP/(TP+FP+FN)")


def _at_prevalence(
    hit: NDArray, y: NDArray, patients: NDArray | None, se: Estimate, sp: Estimate, prevalence: float, level: float
) -> tuple[Estimate, Estimate]:
    m, n = effective_n(hit, y, patients), effective_n(~hit, ~y, patients)
    return predictive_values((float(se) * m, m), (float(sp) * n, n), prevalence, level)


def _overall(
    checked: Predictions, answers: NDArray | None, point: OperatingPoint | None, interval: str, level: float
) -> list[Metric]:
    """Figures over all classes."""
    if checked.kind == "binary":
        return []
    truths = np.column_stack([checked.truth(c) for c in checked.classes])
    known = ~np.isnan(truths)
    both = [j for j in range(truths.shape[1]) if len(set(truths[known[:, j], j])) == 2]
    made: list[Metric] = []
    y, s, seen = truths[:, both] == 1, checked.p[:, both], known[:, both]
    repeats = trainings(checked)
    groups = np.zeros(checked.n, dtype=np.intp) if repeats is None else repeats
    patients = checked.patients
    m, n = int(y[seen].sum()), int((~y)[seen].sum())
    if len(both) > 1:
        what = "findings" if checked.kind == "multilabel" else "classes"
        macro = mean_auc(y, s, groups, patients, seen, level=level, what=what)
        made.append(Metric.of("macro", "auc", macro, m, n, None))
    if len(both) > 1 and repeats is None:
        who = np.repeat(patients, len(both))
        use = seen.reshape(-1)
        micro = auc(y.reshape(-1)[use], s.reshape(-1)[use], who[use], level=level)
        made.append(Metric.of("micro", "auc", micro, m, n, None))
    if checked.kind == "multiclass" and answers is not None and point is not None:
        right = answers == np.array(checked.classes, dtype=object)[checked.y]
        share = proportion(right, np.ones(checked.n), checked.groups, interval=interval, level=level)
        made.append(Metric.of("all", "accuracy", share, None, None, point.describe()))
        summed = brier(checked.p, checked.y, checked.groups, level=level)
        made.append(Metric.of("all", "brier", summed, None, None, None))
    return made


def trainings(checked: Predictions) -> NDArray[np.intp] | None:
    """Number of every row's seed and fold, when there are several: they are never pooled into one curve."""
    columns = [c for c in ("seed", "fold") if c in checked.frame.columns]
    if not columns:
        return None
    keys = checked.frame[columns].astype(str).agg("/".join, axis=1)
    codes, count = patient_codes(keys.to_numpy(dtype=str), checked.n)
    return codes if count > 1 else None


def mean_auc(
    y: NDArray,
    scores: NDArray,
    groups: NDArray[np.intp],
    patients: NDArray[np.intp],
    known: NDArray[np.bool_] | None = None,
    *,
    level: float = 0.95,
    what: str = "classes",
) -> Estimate:
    """Mean area over classes, seeds and folds, each with its own curve; the interval is of patients.

    Args:
        y: shape (n, k), one column for each class.
        scores: shape (n, k).
        groups: number of each row's training (seed, fold), shape (n,).
        patients: number of each row's patient, shape (n,).
        known: which truths are known, shape (n, k); None for all. Each curve is of the cases where it is.
        level: confidence level.
        what: what the columns are, for the method's name.
    """
    count = int(groups.max()) + 1
    k = y.shape[1]
    where = np.zeros((len(y), count * k), dtype=bool)
    seen = np.ones(y.shape, dtype=bool) if known is None else known
    for g in range(count):
        within = (groups == g)[:, None] & seen
        if not ((within & y).any(axis=0) & (within & ~y).any(axis=0)).all():
            raise MedloraError(
                f"training {g + 1} of {count} (column seed or fold) has cases of one class only",
                "its area cannot be estimated: divide into fewer, stratified folds",
            )
        where[:, g * k : (g + 1) * k] = within
    areas, cov = auc_covariance(np.tile(y, count), np.tile(scores, count), patients, where)
    m, n = int(y[seen].sum()), int((~y)[seen].sum())
    weights = np.full(len(areas), 1 / len(areas))
    label = " and ".join(([f"{k} {what}"] if k > 1 else []) + ([f"{count} trainings"] if count > 1 else []))
    # The rule and method 5 see the smallest class of all, counted in patients.
    people = [[len(np.unique(patients[side[:, j]])) for j in range(k)] for side in (y & seen, ~y & seen)]
    fewest = min(people[0]), min(people[1])
    estimate = auc_interval(float(areas.mean()), float(weights @ cov @ weights), *fewest, patients=fewest, level=level)
    return Estimate(
        estimate.value, estimate.low, estimate.high, f"mean over {label}, {estimate.method}", m, n, estimate.se
    )


def _disagreement(checked: Predictions, answers: NDArray | None) -> list[str]:
    """Say when the file's own answers are not those of the operating point used here."""
    if answers is None or checked.kind == "multilabel" or "predicted" not in checked.frame.columns:
        return []
    given = checked.frame["predicted"].fillna("").astype(str).to_numpy()
    other = (given != "") & (given != answers.astype(str))
    if not other.any():
        return []
    return [
        f"{int(other.sum())} of {checked.n} answers in the column 'predicted' differ from those at the operating "
        "point used here: the file was made with another one."
    ]
