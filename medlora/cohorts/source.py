"""How well the source of an image alone tells the classes apart: the trap that a model falls into first.

A label often follows the hospital, the scanner or the way of exporting (Zech et al. 2018, doi
10.1371/journal.pmed.1002683; DeGrave et al. 2021, doi 10.1038/s42256-021-00338-7). Here a small classifier sees the
acquisition tags only, or the outermost 3 % of the image only, where there is next to no anatomy. What it reaches is
the part of a model's AUC that may be owed to the source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from medlora.cohorts.labelling import labelling
from medlora.progress import say

WARN_ABOVE = 0.6
FOLDS = 5
DRAWS = 1000
MOST_CASES = 4000  # more would not make the interval narrower in a way that matters
MOST_CATEGORIES = 20


def sources_of(
    table: pd.DataFrame, acquisition: pd.DataFrame, small: Sequence[np.ndarray | None]
) -> list[dict[str, Any]]:
    """`source_check` for all that the labels of a cohort's table ask: classes against the rest, or finding by finding.

    Args:
        table: of the cohort.
        acquisition: its columns of acquisition tags.
        small: one 32 × 32 image in 0..1 per case, or None.

    Returns:
        As `source_check`; the class is a finding, judged on the cases where it is known, where there are findings.
    """
    questions = [
        ([int(row) for row in np.flatnonzero(known)], labels, told)
        for known, labels, told in labelling(table).questions()
        if len({label for label, asked in zip(labels, known, strict=True) if asked}) > 1
    ]
    if questions:
        say("checking whether the source of the images tells the classes apart")
    results = []
    for rows, labels, told in questions:
        part = table.iloc[rows]
        found = source_check(
            list(part["scan_id"]), list(part["patient"]), [labels[row] for row in rows], acquisition.iloc[rows],
            [small[row] for row in rows],
        )  # fmt: skip
        results += [result for result in found if result["class"] in told]
    return results


def source_check(
    scan_ids: Sequence[str],
    patients: Sequence[str],
    labels: Sequence[str],
    acquisition: pd.DataFrame,
    small: Sequence[np.ndarray | None],
) -> list[dict[str, Any]]:
    """The AUC that acquisition tags alone, and the image border alone, reach for each class against the rest.

    Scores come from patient-wise, stratified cross-validation; only scores of one fold are compared with each other.
    The interval is the percentile interval of a bootstrap over patients (the classifiers are not fitted again).

    Args:
        scan_ids: one per case.
        patients: the patient of each case.
        labels: the class of each case.
        acquisition: one row per case, one column per tag; text or numbers, missing values allowed.
        small: one 32 × 32 image in 0..1 per case, or None.

    Returns:
        One dict per class and source, with ``class``, ``from`` (``acquisition`` or ``border``), ``auc``, ``low``,
        ``high``, ``method``, ``n_pos``, ``n_neg``; nothing for a source that does not vary, or where a class has
        fewer than 5 patients.
    """
    order = sorted(range(len(scan_ids)), key=lambda i: hashlib.sha256(scan_ids[i].encode()).digest())[:MOST_CASES]
    patient = np.asarray(patients, dtype=object)[order]
    label = np.asarray(labels, dtype=object)[order]
    classes = sorted(set(label))
    tags = _encode(acquisition.iloc[order])
    ring = _rings([small[i] for i in order])
    sources: list[tuple[str, np.ndarray, Callable[[], Any], str]] = []
    if tags.size:
        sources.append(("acquisition", tags, _boosting, "gradient boosting on acquisition tags"))
    if ring.size:
        sources.append(("border", ring, _logistic, "logistic regression on the outer 3 % of the image"))
    results = []
    for name, features, model, what in sources:
        for positive in classes[:1] if len(classes) == 2 else classes:
            with threadpool_limits(1):  # the data are small: threads would spend their time waiting for each other
                found = _auc(features, label == positive, patient, model)
            if found is None:
                continue
            auc, low, high, folds = found
            method = (
                f"{what}, {folds}-fold cross-validation by patient, "
                f"95 % percentile interval of {DRAWS} bootstrap draws of patients"
            )
            for told in classes if len(classes) == 2 else [positive]:  # of two classes both have the same AUC
                n = int((label == told).sum())
                results.append(
                    {"class": told, "from": name, "auc": auc, "low": low, "high": high, "method": method,
                     "n_pos": n, "n_neg": len(label) - n}
                )  # fmt: skip
    return results


def source_warnings(results: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for each class that its source alone tells from the rest."""
    means = {"acquisition": "the acquisition tags", "border": "the border of the image"}
    said = set()
    lines = []
    for result in results:
        if result["auc"] <= WARN_ABOVE or result["low"] <= 0.5:
            continue
        key = (result["from"], result["auc"], result["low"], result["high"])
        if key in said:  # the other one of two classes
            continue
        said.add(key)
        lines.append(
            f"{result['class']!r} is partly told by its source: {means[result['from']]} alone "
            f"reach{'es' if result['from'] == 'border' else ''} AUC {result['auc']:.2f} "
            f"[{result['low']:.2f}, {result['high']:.2f}] against the rest, and a model may use that, too"
        )
    return lines


def _boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, min_samples_leaf=5, learning_rate=0.1, early_stopping=False, random_state=0
    )


def _logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=500))


def _encode(acquisition: pd.DataFrame) -> np.ndarray:
    """Numbers as they are (missing as NaN), text as one column per value, what does not vary left out."""
    columns = []
    for name in acquisition.columns:
        values = acquisition[name]
        if values.nunique(dropna=False) < 2:
            continue
        if pd.api.types.is_numeric_dtype(values):
            columns.append(values.to_numpy(dtype=float, na_value=np.nan))
            continue
        text = values.astype("string").fillna("")
        for value in text.value_counts().index[:MOST_CATEGORIES]:
            columns.append((text == value).to_numpy(dtype=float))
    return np.column_stack(columns) if columns else np.empty((len(acquisition), 0))


def _rings(small: Sequence[np.ndarray | None]) -> np.ndarray:
    """The outermost pixels of each 32 × 32 image, black where there is none."""
    if not any(image is not None for image in small):
        return np.empty((len(small), 0))
    side = next(image.shape[0] for image in small if image is not None)
    outer = np.ones((side, side), dtype=bool)
    outer[1:-1, 1:-1] = False
    return np.stack([np.zeros(outer.sum()) if image is None else image[outer] for image in small])


def _auc(
    features: np.ndarray, positive: np.ndarray, patient: np.ndarray, model: Callable[[], Any]
) -> tuple[float, float, float, int] | None:
    n = min(len(set(patient[positive])), len(set(patient[~positive])))
    if n < FOLDS:
        return None
    group, names = pd.factorize(patient)  # numbered as they come: the names are salted and must not matter
    n_patients = len(names)
    scores = np.full(len(positive), np.nan)
    fold_of = np.full(len(positive), -1)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(features, positive, group)
    for fold, (train, test) in enumerate(folds):
        if len(set(positive[train])) < 2:
            return None
        fitted = model().fit(features[train], positive[train])
        scores[test] = fitted.predict_proba(features[test])[:, 1]
        fold_of[test] = fold
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=DRAWS)
    weights = np.vstack([np.ones(n_patients), draws]).astype(np.float32)  # the first is the sample itself
    concordant = pairs = np.zeros(len(weights))
    for fold in range(FOLDS):
        pos, neg = (np.flatnonzero((fold_of == fold) & side) for side in (positive, ~positive))
        if not len(pos) or not len(neg):
            continue
        difference = scores[pos][:, None] - scores[neg][None, :]
        wins = ((difference > 0) + 0.5 * (difference == 0)).astype(np.float32)
        of_pos, of_neg = weights[:, group[pos]], weights[:, group[neg]]
        concordant = concordant + ((of_pos @ wins) * of_neg).sum(axis=1)
        pairs = pairs + of_pos.sum(axis=1) * of_neg.sum(axis=1)
    if not pairs[0]:
        return None
    aucs = concordant[pairs > 0] / pairs[pairs > 0]
    low, high = np.percentile(aucs[1:], (2.5, 97.5))
    return float(aucs[0]), float(low), float(high), FOLDS
