"""Area under the ROC curve: estimate, covariance (DeLong, Obuchowski), intervals by a written rule.

Sources:
    DeLong ER, DeLong DM, Clarke-Pearson DL. Biometrics 1988;44:837 (variance and covariance).
    Sun X, Xu W. IEEE Signal Process Lett 2014;21:1389 (placements from ranks).
    Obuchowski NA. Biometrics 1997;53:567 (several cases per patient).
    Wilson EB. JASA 1927;22:209 (score interval).
    Newcombe RG. Stat Med 2006;25:559 (method 5, for small samples and areas near 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medlora.errors import MedloraError
from medlora.evaluation.estimate import Estimate, expit, normal_quantile, wilson

# Members of the smaller class on the wrong side from which on the score and the logit interval hold (`auc_interval`).
ENOUGH_FOR_SCORE, ENOUGH_FOR_LOGIT = 3, 6


def check_scores(y: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return ``y`` as booleans and ``score`` as finite float64, or say what is wrong with them.

    Raises:
        MedloraError: lengths differ, ``y`` is not 0/1, scores are not finite, or only one class is there.
    """
    truth, values = np.asarray(y), np.asarray(score, dtype=np.float64)
    if truth.ndim != 1 or len(truth) != len(values):
        raise MedloraError(f"{truth.shape} labels for scores of shape {values.shape}: one label per row is needed")
    if truth.dtype != bool:
        odd = np.flatnonzero(~np.isin(truth, (0, 1)))
        if len(odd):
            raise MedloraError(f"{len(odd)} labels are neither 0 nor 1, the first at position {odd[0]}")
        truth = truth.astype(bool)
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise MedloraError(
            f"{len(bad)} of {len(values)} scores are NaN or infinite, the first at position {bad[0]}",
            "find out why the model gave no number for them; such cases are not dropped silently",
        )
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        raise MedloraError(
            f"one class only: {positives} positive and {len(truth) - positives} negative cases",
            "sensitivity needs positives, specificity needs negatives; the area under the curve needs both",
        )
    return truth, values


def placements(pos: NDArray[np.float64], neg: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Placement values: for each positive the share of negatives below it, for each negative of positives above it.

    Ties count one half. The mean of either is the area under the curve.

    Args:
        pos: scores of the positives, shape (m,).
        neg: scores of the negatives, shape (n,).

    Returns:
        V10 of shape (m,) and V01 of shape (n,), both in [0, 1].
    """
    pos_order, neg_order = np.argsort(pos), np.argsort(neg)
    pos_sorted, neg_sorted = pos[pos_order], neg[neg_order]
    v10, v01 = np.empty(len(pos)), np.empty(len(neg))
    v10[pos_order] = np.searchsorted(neg_sorted, pos_sorted, "left") + np.searchsorted(neg_sorted, pos_sorted, "right")
    v01[neg_order] = np.searchsorted(pos_sorted, neg_sorted, "left") + np.searchsorted(pos_sorted, neg_sorted, "right")
    return v10 / (2 * len(neg)), 1 - v01 / (2 * len(pos))


def patient_codes(patients: ArrayLike | None, n: int) -> tuple[NDArray[np.intp], int]:
    """Number the patients 0…I−1; without patients each of the ``n`` cases is its own."""
    if patients is None:
        return np.arange(n), n
    names, codes = np.unique(np.asarray(patients), return_inverse=True)
    if len(codes) != n:
        raise MedloraError(f"{len(codes)} patients named for {n} cases: one per case is needed")
    return codes.reshape(-1), len(names)


def auc_covariance(
    y: ArrayLike, scores: ArrayLike, patients: ArrayLike | None = None, where: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas under k ROC curves and their covariance, with patients as the units of sampling.

    With every patient having one case this is DeLong's estimate, else Obuchowski's. The k curves may be k models on
    the same cases, k classes each against the rest, k seeds, or (through ``where``) k subgroups.

    Args:
        y: 1 for a positive, 0 for a negative; shape (n,), or (n, k) when the curves differ in their positives.
        scores: higher means more suspicious; shape (n,) or (n, k).
        patients: who each case belongs to, shape (n,); None when every case is its own patient.
        where: which cases each curve uses, shape (n, k); None for all.

    Returns:
        areas of shape (k,) and covariance of shape (k, k); NaN in the covariance where fewer than two patients
        have a positive, or a negative.

    Raises:
        MedloraError: see `check_scores`.
    """
    scores = np.asarray(scores, dtype=np.float64)
    scores = scores.reshape(len(scores), -1)
    n, k = scores.shape
    truth = np.asarray(y)
    columns = truth.ndim == 2 or where is not None
    truth = truth.reshape(n, -1)
    mask = None if where is None else np.asarray(where, dtype=bool)
    if not columns and patients is None:
        return _delong(truth[:, 0], scores)
    codes, patient_count = patient_codes(patients, n)
    areas, factors = np.empty(k), np.empty((3, k))
    x, z = np.zeros((patient_count, k)), np.zeros((patient_count, k))
    for j in range(k):
        use = slice(None) if mask is None else mask[:, j]
        t, s = check_scores(truth[use, j if truth.shape[1] > 1 else 0], scores[use, j])
        who = codes[use]
        v10, v01 = placements(s[t], s[~t])
        areas[j] = v10.mean()
        x[:, j] = np.bincount(who[t], v10 - areas[j], patient_count) / len(v10)
        z[:, j] = np.bincount(who[~t], v01 - areas[j], patient_count) / len(v01)
        counts = [len(np.unique(who[t])), len(np.unique(who[~t])), len(np.unique(who))]
        factors[:, j] = [i / (i - 1) if i > 1 else np.nan for i in counts]
    # Obuchowski's I/(I−1) of each curve; between curves of different patients, their geometric mean.
    f10, f01, f11 = (np.sqrt(np.outer(f, f)) for f in factors)
    cross = x.T @ z
    return areas, f10 * (x.T @ x) + f01 * (z.T @ z) + f11 * (cross + cross.T)


def _delong(y: NDArray[Any], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, scores = check_scores(y, scores)
    pairs = [placements(column[truth], column[~truth]) for column in scores.T]
    v10, v01 = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    m, n = v10.shape[1], v01.shape[1]
    areas = v10.mean(axis=1)
    if min(m, n) < 2:
        return areas, np.full((len(areas), len(areas)), np.nan)
    return areas, np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n


def newcombe_variance(t: float, m: float, n: float) -> float:
    """Hanley and McNeil's variance of an area whose true value is ``t``, in Newcombe's symmetric form."""
    return t * (1 - t) / (m * n) * (1 + ((m + n) / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t)))


def newcombe_interval(area: float, m: float, n: float, level: float = 0.95, scale: float = 1.0) -> tuple[float, float]:
    """Newcombe's method 5: solve |A − t| = z·√V(t), with Hanley and McNeil's variance at the true area t.

    Args:
        area: estimated area under the curve.
        m: number of positives (an effective number where patients have several).
        n: number of negatives, likewise.
        level: confidence level.
        scale: factor on V; 1 is the method as published.
    """
    z2 = normal_quantile(level) ** 2 * scale

    def distance(t: float) -> float:
        return (area - t) ** 2 - z2 * newcombe_variance(t, m, n)

    # V vanishes at 0 and 1, where the distance of an area of 0 or 1 has a second, spurious root.
    low = 0.0 if area <= 0 else brentq(distance, 0.0, min(area, 1 - 1e-12), xtol=1e-14)
    high = 1.0 if area >= 1 else brentq(distance, max(area, 1e-12), 1.0, xtol=1e-14)
    return float(low), float(high)


def logit_interval(value: float, se: float, level: float = 0.95) -> tuple[float, float]:
    """An interval symmetric on the logit scale, for a proportion-like value strictly between 0 and 1."""
    centre, half = np.log(value / (1 - value)), normal_quantile(level) * se / (value * (1 - value))
    return expit(centre - half), expit(centre + half)


def auc(
    y: ArrayLike,
    score: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    level: float = 0.95,
    method: str = "auto",
) -> Estimate:
    """Area under the ROC curve of one score, with its interval.

    Args:
        y: 1 for a positive, 0 for a negative; shape (n,).
        score: higher means more suspicious; shape (n,). It is used as it is: no sigmoid, no change of direction.
        patients: who each case belongs to, shape (n,).
        level: confidence level.
        method: "auto" (the rule of `auc_interval`), "wald", "logit", "wilson" or "newcombe".

    Raises:
        MedloraError: one class only, scores that are not finite, labels other than 0 and 1.

    Example:
        >>> auc([0, 0, 1, 1, 1, 0], [0.1, 0.4, 0.35, 0.8, 0.9, 0.2]).value
        0.8888888888888888
    """
    truth, values = check_scores(y, score)
    codes, count = patient_codes(patients, len(truth))
    clustered = count < len(truth)
    areas, covariance = auc_covariance(truth, values, codes if clustered else None)
    return auc_interval(
        float(areas[0]),
        float(covariance[0, 0]),
        int(truth.sum()),
        int((~truth).sum()),
        patients=(len(np.unique(codes[truth])), len(np.unique(codes[~truth]))) if clustered else None,
        independent_variance=float(auc_covariance(truth, values)[1][0, 0]) if clustered else None,
        level=level,
        method=method,
    )


def auc_interval(
    area: float,
    variance: float,
    m: int,
    n: int,
    *,
    patients: tuple[int, int] | None = None,
    independent_variance: float | None = None,
    level: float = 0.95,
    method: str = "auto",
) -> Estimate:
    """The interval of an area under the curve, by rule.

    The rule ("auto") goes by k·min(A, 1 − A), about the number of members of the smaller class on the wrong side of
    the other: k is the smaller class, counted in patients where they have several cases.

    - From 6 on the interval is symmetric on the logit scale: logit-DeLong; logit-Obuchowski where patients repeat.
    - From 3 to below 6 it is Wilson's score interval at the number of cases that the variance V amounts to,
      A(1 − A)/V: on the average narrower than the logit one, and not covering less.
    - Below 3, or where the standard error is 0, both cover too seldom (logit-DeLong 0.67 at A = 0.99 with 10
      positives), and it is Newcombe's method 5. By itself that covers too often (Hanley and McNeil's variance is too
      large near 1), so its variance is multiplied by r = (1 − w)·V/V₅(A) + w: the variance that the data show over
      the one that method 5 assumes, drawn towards 1 with the weight w = 1/(1 + √k). Where A is 0 or 1, or the
      standard error 0, the data show nothing and r = 1: the method as published.

    Where patients have several cases, V is Obuchowski's, and for method 5 m and n are divided by the design effect
    (Obuchowski's over DeLong's variance, at least 1; cases per patient where that cannot be seen), and w = 2/(2 + √k),
    because the design effect is an estimate too. ``scripts/coverage_intervals.py`` measures all of this.

    Args:
        area: the estimate.
        variance: its variance (DeLong or Obuchowski).
        m: positives.
        n: negatives.
        patients: patients with a positive and with a negative, when patients have several cases.
        independent_variance: DeLong's variance that ignores the patients, for the design effect.
        level: confidence level.
        method: "auto", "wald", "logit", "wilson" or "newcombe" (method 5 as published, at effective numbers).
    """
    if min(m, n) < 1:
        raise MedloraError(f"one class only: {m} positive and {n} negative cases")
    counts = {"n_pos": m, "n_neg": n}
    if patients is not None and min(patients) < 2:
        which = "positive" if patients[0] < 2 else "negative"
        return Estimate(area, method=f"no interval: every {which} case is of one patient", **counts)
    name = "DeLong" if patients is None else "Obuchowski"
    se = float(np.sqrt(max(variance, 0.0))) if np.isfinite(variance) else None
    if method == "auto":
        smaller = min(m, n) if patients is None else min(patients)
        misordered = smaller * min(area, 1 - area) if se else 0.0
        method = "logit" if misordered >= ENOUGH_FOR_LOGIT else "wilson" if misordered >= ENOUGH_FOR_SCORE else "scaled"
    if method in ("scaled", "newcombe"):
        me, ne = _effective(variance, independent_variance, m, n, patients)
        scale = _scale(area, variance, me, ne, patients) if method == "scaled" else 1.0
        low, high = newcombe_interval(area, me, ne, level, scale)
        at = "" if patients is None else f" at effective {me:.3g}+/{ne:.3g}−"
        name = f"Newcombe method 5{at}" + (f", variance scaled to {name}'s" if scale != 1 else "")
    elif se is None or (method in ("logit", "wilson") and not (se and 0 < area < 1)):
        return Estimate(area, method=f"no interval: {method}-{name} does not exist here", se=se, **counts)
    elif method == "logit":
        (low, high), name = logit_interval(area, se, level), f"logit-{name}"
    elif method == "wilson":
        number = area * (1 - area) / se**2
        (low, high), name = wilson(area * number, number, level), f"Wilson-{name} at effective n {number:.4g}"
    elif method == "wald":
        half = normal_quantile(level) * se
        low, high, name = area - half, area + half, f"Wald-{name}"
    else:
        raise MedloraError(f"there is no interval {method!r}", 'choose "auto", "wald", "logit", "wilson" or "newcombe"')
    return Estimate(area, low, high, name, se=se, **counts)


def _effective(
    variance: float, independent: float | None, m: int, n: int, patients: tuple[int, int] | None
) -> tuple[float, float]:
    """Positives and negatives, divided by the design effect where patients have several."""
    if patients is None:
        return m, n
    design = max(m / patients[0], n / patients[1])  # all cases of a patient alike
    if independent is not None and independent > 0 and np.isfinite(variance):
        design = variance / independent
    design = max(design, 1.0)
    return max(m / design, 1.0), max(n / design, 1.0)


def _scale(area: float, variance: float, m: float, n: float, patients: tuple[int, int] | None) -> float:
    if not 0 < area < 1 or not variance > 0:
        return 1.0
    weight, k = (1, min(m, n)) if patients is None else (2, min(patients))
    weight = weight / (weight + np.sqrt(k))
    return float((1 - weight) * variance / newcombe_variance(area, m, n) + weight)
