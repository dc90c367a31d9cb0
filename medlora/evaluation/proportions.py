"""Proportions and likelihood ratios at an operating point, with intervals that follow patients.

Sources:
    Wilson EB. JASA 1927;22:209. Clopper CJ, Pearson ES. Biometrika 1934;26:404.
    Rao JNK, Scott AJ. Biometrics 1992;48:577 (effective sample size of clustered proportions).
    Mercaldo ND, Lau KF, Zhou XH. Stat Med 2007;26:2170 (predictive values at a stated prevalence).
    Simel DL, Samsa GP, Matchar DB. J Clin Epidemiol 1991;44:763 (likelihood ratios, log method).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from medlora.errors import MedloraError
from medlora.evaluation.discrimination import patient_codes
from medlora.evaluation.estimate import Estimate, expit, normal_quantile, wilson


def clopper_pearson(x: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of x out of n."""
    tail = (1 - level) / 2
    low = 0.0 if x <= 0 else float(betaincinv(x, n - x + 1, tail))
    return low, (1.0 if x >= n else float(betaincinv(x + 1, n - x, 1 - tail)))


_INTERVALS = {"wilson": ("Wilson", wilson), "exact": ("Clopper-Pearson", clopper_pearson)}


def ratio_covariance(
    counts: Sequence[tuple[NDArray, NDArray]], patients: NDArray[np.intp], patient_count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Several ratios of sums (each Σx/Σn) and their covariance between patients.

    Args:
        counts: for each ratio the numerator and the denominator of every case, shape (cases,).
        patients: the patient's number of every case.
        patient_count: number of patients.

    Returns:
        ratios (k,) and covariance (k, k), with the factor I/(I−1) over the I patients that have a denominator.
    """
    ratios, residuals = [], []
    for x, n in counts:
        px, pn = np.bincount(patients, x, patient_count), np.bincount(patients, n, patient_count)
        ratio = px.sum() / pn.sum()
        having = int((pn > 0).sum())
        factor = having / (having - 1) if having > 1 else np.nan
        ratios.append(ratio)
        residuals.append((px - ratio * pn) / pn.sum() * np.sqrt(factor))
    stacked = np.stack(residuals)
    return np.array(ratios), stacked @ stacked.T


def proportion(
    hits: ArrayLike,
    among: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    interval: str = "wilson",
    level: float = 0.95,
) -> Estimate:
    """The share of ``hits`` among the cases ``among``; its interval at the effective n where patients repeat.

    The effective n is n divided by the design effect: the variance between patients over the binomial one, at least
    1. Where every case is a hit, or none is, that variance tells nothing and the number of patients is taken.

    Args:
        hits: 1 where the case counts in the numerator; shape (n,).
        among: 1 where the case counts in the denominator; shape (n,).
        patients: who each case belongs to, shape (n,).
        interval: "wilson" or "exact" (Clopper-Pearson).
        level: confidence level.
    """
    if interval not in _INTERVALS:
        raise MedloraError(f"there is no interval {interval!r}", 'choose "wilson" or "exact"')
    name, formula = _INTERVALS[interval]
    use = np.asarray(among, dtype=bool)
    hit = np.asarray(hits, dtype=bool) & use
    x, n = int(hit.sum()), int(use.sum())
    if n == 0:
        return Estimate(None, method="not estimable: no case in the denominator")
    effective = effective_n(hit, use, patients)
    if patients is not None and len(np.unique(np.asarray(patients)[use])) < n:
        name = f"{name} at effective n {effective:.4g}"
    low, high = formula(x / n * effective, effective, level)
    return Estimate(x / n, low, high, name)


def effective_n(hits: ArrayLike, among: ArrayLike, patients: ArrayLike | None = None) -> float:
    """How many independent cases tell as much about a proportion as these do; see `proportion`."""
    use = np.asarray(among, dtype=bool)
    hit, n = np.asarray(hits, dtype=bool)[use], int(use.sum())
    codes, count = patient_codes(None if patients is None else np.asarray(patients)[use], n)
    if count == n:
        return float(n)
    p = hit.mean()
    if p in (0.0, 1.0) or count < 2:
        return float(count)
    variance = float(ratio_covariance([(hit.astype(float), np.ones(n))], codes, count)[1][0, 0])
    return max(n / max(variance / (p * (1 - p) / n), 1.0), 1.0)


def predictive_values(
    sensitivity: tuple[float, float], specificity: tuple[float, float], prevalence: float, level: float = 0.95
) -> tuple[Estimate, Estimate]:
    """PPV and NPV at a stated prevalence, with Mercaldo's logit interval.

    Args:
        sensitivity: true positives and (effective) number of positives.
        specificity: true negatives and (effective) number of negatives.
        prevalence: share of positives where the model will be used, strictly between 0 and 1.
        level: confidence level.

    Raises:
        MedloraError: the prevalence is not strictly between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise MedloraError(f"a prevalence of {prevalence:g} is not between 0 and 1", "give a share such as 0.05")
    (tp, m), (tn, n) = sensitivity, specificity
    name = "Mercaldo logit"
    if tp in (0, m) or tn in (0, n):
        tp, m, tn, n, name = tp + 0.5, m + 1, tn + 0.5, n + 1, f"{name}, ½ added"
    se, sp, z = tp / m, tn / n, normal_quantile(level)
    ppv = se * prevalence / (se * prevalence + (1 - sp) * (1 - prevalence))
    npv = sp * (1 - prevalence) / (sp * (1 - prevalence) + (1 - se) * prevalence)
    half_ppv = z * np.sqrt((1 - se) / (se * m) + sp / ((1 - sp) * n))
    half_npv = z * np.sqrt(se / ((1 - se) * m) + (1 - sp) / (sp * n))
    made = []
    for value, half in ((ppv, half_ppv), (npv, half_npv)):
        centre = np.log(value / (1 - value))
        made.append(Estimate(float(value), expit(centre - half), expit(centre + half), name))
    return made[0], made[1]


def likelihood_ratios(
    predicted: ArrayLike, y: ArrayLike, patients: ArrayLike | None = None, *, level: float = 0.95
) -> tuple[Estimate, Estimate, Estimate]:
    """Positive and negative likelihood ratio and diagnostic odds ratio, with intervals by the log method.

    Where patients repeat, the variance is that of the ratio's logarithm between patients. A ratio with an empty cell
    has no interval by this method; ½ is then added to each cell, and the method says so.

    Args:
        predicted: 1 where the case is called positive; shape (n,).
        y: 1 for a positive; shape (n,).
        patients: who each case belongs to, shape (n,).
        level: confidence level.
    """
    called, truth = np.asarray(predicted, dtype=bool), np.asarray(y, dtype=bool)
    tp, fn = float((called & truth).sum()), float((~called & truth).sum())
    fp, tn = float((called & ~truth).sum()), float((~called & ~truth).sum())
    codes, count = patient_codes(patients, len(truth))
    name = "log method"
    empty = 0 in (tp, fn, fp, tn)
    if empty:
        tp, fn, fp, tn, name = tp + 0.5, fn + 0.5, fp + 0.5, tn + 0.5, f"{name}, ½ added"
    if count < len(truth) and not empty:
        name = f"{name}, by patient"
        pos, neg = truth.astype(float), (~truth).astype(float)
        (se, fpr), cov = ratio_covariance([(called * pos, pos), (called * neg, neg)], codes, count)
        gradients = np.array([
            [1 / se, -1 / fpr],
            [-1 / (1 - se), 1 / (1 - fpr)],
            [1 / (se * (1 - se)), -1 / (fpr * (1 - fpr))],
        ])  # fmt: skip
        variances = np.einsum("ij,jk,ik->i", gradients, cov, gradients)
    else:
        m, n = tp + fn, fp + tn
        variances = np.array([
            1 / tp - 1 / m + 1 / fp - 1 / n,
            1 / fn - 1 / m + 1 / tn - 1 / n,
            1 / tp + 1 / fn + 1 / fp + 1 / tn,
        ])  # fmt: skip
    values = ((tp / (tp + fn)) / (fp / (fp + tn)), (fn / (tp + fn)) / (tn / (fp + tn)), tp * tn / (fp * fn))
    z = normal_quantile(level)
    return tuple(  # type: ignore[return-value]
        Estimate(v, float(v * np.exp(-z * s)), float(v * np.exp(z * s)), name, se=float(s))
        for v, s in zip(values, np.sqrt(variances), strict=True)
    )
