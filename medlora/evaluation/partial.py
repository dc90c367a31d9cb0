"""Partial area under the ROC curve, where only high specificities matter.

Sources: McClish DK. Med Decis Making 1989;9:190. Efron B. Ann Stat 1979;7:1 (bootstrap).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlora.errors import MedloraError
from medlora.evaluation.discrimination import check_scores, patient_codes
from medlora.evaluation.estimate import Estimate


def partial_auc(
    y: ArrayLike,
    score: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    min_specificity: float = 0.9,
    standardised: bool = False,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Area under the ROC curve between ``min_specificity`` and 1, with a percentile interval over patients.

    Args:
        y: 1 for a positive, 0 for a negative; shape (n,).
        score: higher means more suspicious; shape (n,).
        patients: who each case belongs to: whole patients are drawn.
        min_specificity: lower end of the range, in [0, 1).
        standardised: McClish's form: 0.5 for a coin and 1 for a perfect model.
        draws: bootstrap samples; those without a positive or a negative are drawn again.
        seed: of the bootstrap.
        level: confidence level.
    """
    if not 0 <= min_specificity < 1:
        raise MedloraError(f"a specificity of {min_specificity:g} is not in [0, 1)")
    truth, s = check_scores(y, score)
    codes, count = patient_codes(patients, len(truth))
    # Cases from the highest score down, ties together: cumulative weights give the curve of any resample.
    order = np.argsort(-s, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(s[order]) != 0, True])
    positive, who = truth[order], codes[order]
    most = 1 - min_specificity
    value = _area(np.ones(len(s)), positive, last, most)
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(draws * 20):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)[who].astype(float)
        if 0 < weights[positive].sum() < weights.sum():
            found.append(_area(weights, positive, last, most))
        if len(found) == draws:
            break
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    values = np.array([value, low, high])
    if standardised:
        least = most**2 / 2
        values = (1 + (values - least) / (most - least)) / 2
    return Estimate(
        float(values[0]),
        float(values[1]),
        float(values[2]),
        f"bootstrap of patients ({draws})",
        int(truth.sum()),
        int((~truth).sum()),
    )


def _area(weights: NDArray, positive: NDArray, last: NDArray, most: float) -> float:
    tpr = np.r_[0.0, np.cumsum(weights * positive)[last]]
    fpr = np.r_[0.0, np.cumsum(weights * ~positive)[last]]
    tpr, fpr = tpr / tpr[-1], fpr / fpr[-1]
    end = int(np.searchsorted(fpr, most, "right"))
    x, h = fpr[:end], tpr[:end]
    if end < len(fpr):
        step = (most - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
        x, h = np.r_[x, most], np.r_[h, tpr[end - 1] + step * (tpr[end] - tpr[end - 1])]
    return float(np.sum(np.diff(x) * (h[1:] + h[:-1]) / 2))
