"""Two models or more: paired and unpaired tests, non-inferiority, paired proportions, corrected p values.

Sources:
    DeLong 1988 and Obuchowski 1997 (see `discrimination`). McNemar Q. Psychometrika 1947;12:153.
    Newcombe RG. Stat Med 1998;17:2635 (method 10, paired difference of proportions).
    Holm S. Scand J Stat 1979;6:65.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, stdtr, stdtrit

from medlora.errors import MedloraError
from medlora.evaluation.discrimination import auc_covariance, patient_codes
from medlora.evaluation.estimate import normal_quantile, wilson
from medlora.evaluation.proportions import ratio_covariance


@dataclass(frozen=True)
class Difference:
    """A difference between two models, with its interval and test.

    Attributes:
        value: A minus B.
        low: lower end of the interval.
        high: upper end of the interval.
        p: two-sided p value of no difference.
        method: name of the test.
        a: figure of A.
        b: figure of B.
        se: standard error of the difference.
        statistic: z, or t with ``df``.
        df: degrees of freedom, None for z.
        margin: margin of non-inferiority, when asked for.
        p_noninferior: one-sided p value of "A is worse than B by the margin or more".
        noninferior: whether the lower end lies above minus the margin.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    method: str
    a: float
    b: float
    se: float | None = None
    statistic: float | None = None
    df: float | None = None
    margin: float | None = None
    p_noninferior: float | None = None
    noninferior: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def delong_test(
    y: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    margin: float | None = None,
    level: float = 0.95,
) -> Difference:
    """Compare the areas of two models on the same cases (DeLong; Obuchowski where patients have several cases).

    Args:
        y: 1 for a positive, 0 for a negative; shape (n,).
        a: scores of model A, shape (n,).
        b: scores of model B on the same cases, shape (n,).
        patients: who each case belongs to, shape (n,).
        margin: also test that A is not worse than B by this much (non-inferiority).
        level: confidence level; non-inferiority uses the lower end, one-sided at (1 − level)/2.

    Raises:
        MedloraError: one class only, scores that are not finite.
    """
    codes, count = patient_codes(patients, len(np.asarray(y)))
    clustered = count < len(codes)
    areas, cov = auc_covariance(y, np.column_stack([a, b]), codes if clustered else None)
    variance = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    # Equal placements cancel to rounding error, not to zero.
    se = 0.0 if variance < 1e-15 else float(np.sqrt(variance))
    name = "Obuchowski" if clustered else "DeLong"
    return area_difference(float(areas[0]), float(areas[1]), se, f"{name}, paired", margin=margin, level=level)


def delong_test_unpaired(
    y_a: ArrayLike,
    a: ArrayLike,
    y_b: ArrayLike,
    b: ArrayLike,
    patients_a: ArrayLike | None = None,
    patients_b: ArrayLike | None = None,
    *,
    margin: float | None = None,
    level: float = 0.95,
) -> Difference:
    """Compare areas on different patients, by t with Welch's degrees of freedom (as pROC does).

    Args:
        y_a: labels of the first group, shape (n_a,).
        a: scores of the first group.
        y_b: labels of the second group, shape (n_b,).
        b: scores of the second group.
        patients_a: patients of the first group.
        patients_b: patients of the second group; no patient may be in both.
        margin: as in `delong_test`.
        level: confidence level.
    """
    areas, variances, units = [], [], []
    for y, s, who in ((y_a, a, patients_a), (y_b, b, patients_b)):
        codes, count = patient_codes(who, len(np.asarray(y)))
        area, cov = auc_covariance(y, s, codes if count < len(codes) else None)
        areas.append(float(area[0]))
        variances.append(float(cov[0, 0]))
        units.append(count)
    total = sum(variances)
    df = total**2 / sum(v**2 / (u - 1) for v, u in zip(variances, units, strict=True)) if total > 0 else None
    clustered = units[0] < len(np.asarray(y_a)) or units[1] < len(np.asarray(y_b))
    name = "Obuchowski" if clustered else "DeLong"
    return area_difference(
        areas[0], areas[1], float(np.sqrt(total)), f"{name}, unpaired", df=df, margin=margin, level=level
    )


def area_difference(
    a: float,
    b: float,
    se: float,
    method: str,
    *,
    df: float | None = None,
    margin: float | None = None,
    level: float = 0.95,
) -> Difference:
    """The test of two estimates whose difference has standard error ``se``."""
    if margin is not None and not margin > 0:
        raise MedloraError(
            f"a margin of {margin:g} is not positive", "give how much worse is still acceptable, such as 0.03"
        )
    value = a - b
    if not np.isfinite(se):
        return Difference(value, None, None, None, f"{method}: not estimable, too few patients", a, b)
    if se == 0:
        same = value == 0
        if not same:
            return Difference(value, None, None, None, f"{method}: not estimable, the areas do not vary", a, b, se)
        # Identical models: no difference, no doubt about it.
        noninferior = None if margin is None else True
        worse = None if margin is None else 0.0
        return Difference(0.0, 0.0, 0.0, 1.0, method, a, b, 0.0, 0.0, df, margin, worse, noninferior)

    def tail(x: float) -> float:
        return float(ndtr(x) if df is None else stdtr(df, x))

    quantile = normal_quantile(level) if df is None else float(stdtrit(df, 0.5 + level / 2))
    low, high, statistic = value - quantile * se, value + quantile * se, value / se
    p_worse = None if margin is None else tail(-(value + margin) / se)
    return Difference(
        value,
        low,
        high,
        2 * tail(-abs(statistic)),
        method,
        a,
        b,
        se,
        statistic,
        df,
        margin,
        p_worse,
        None if margin is None else low > -margin,
    )


def paired_proportions(
    hits_a: ArrayLike,
    hits_b: ArrayLike,
    among: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    level: float = 0.95,
) -> Difference:
    """Difference of two proportions on the same cases (sensitivities, specificities of two models).

    Without repeated patients: McNemar's exact test and Newcombe's method 10 for the interval. With them: the
    difference's variance between patients, by z; where that is 0, method 10 at the number of patients.

    Args:
        hits_a: 1 where A is right; shape (n,).
        hits_b: 1 where B is right; shape (n,).
        among: 1 for the cases that count (the positives, for sensitivity); shape (n,).
        patients: who each case belongs to, shape (n,).
        level: confidence level.
    """
    use = np.asarray(among, dtype=bool)
    a, b = np.asarray(hits_a, dtype=bool)[use], np.asarray(hits_b, dtype=bool)[use]
    n = len(a)
    if n == 0:
        raise MedloraError("no case counts: a difference of proportions cannot be estimated")
    codes, count = patient_codes(None if patients is None else np.asarray(patients)[use], n)
    pa, pb = float(a.mean()), float(b.mean())
    if count < n:
        ones = np.ones(n)
        _, cov = ratio_covariance([(a - b.astype(float), ones)], codes, count)
        if cov[0, 0] < 1e-15:  # every patient alike: no variance to see, though agreement of few proves little
            low, high = _newcombe10(_table(a, b) * count / n, level)
            method = f"Newcombe method 10 at effective n {count}"
            return Difference(pa - pb, low, high, 1.0 if pa == pb else None, method, pa, pb)
        return area_difference(pa, pb, float(np.sqrt(cov[0, 0])), "ratio estimator by patient")
    table = _table(a, b)
    _, only_a, only_b, _ = table.astype(int)
    discordant = only_a + only_b
    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), discordant, 0.5))) if discordant else 1.0
    low, high = _newcombe10(table, level)
    return Difference(pa - pb, low, high, p, "McNemar exact; Newcombe method 10", pa, pb)


def _table(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Cases right in both, in A only, in B only, in neither."""
    return np.array([(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()], dtype=np.float64)


def _newcombe10(table: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Square-and-add of two Wilson intervals, with the correlation of the pair (continuity-corrected phi)."""
    both, only_a, only_b, neither = table
    n = both + only_a + only_b + neither
    a, b = both + only_a, both + only_b
    (low_a, high_a), (low_b, high_b) = wilson(a, n, level), wilson(b, n, level)
    pa, pb = a / n, b / n
    product = a * (n - a) * b * (n - b)
    excess = both * neither - only_a * only_b
    phi = 0.0 if product == 0 else (max(excess - n / 2, 0) if excess > 0 else excess) / np.sqrt(product)
    low = (pa - low_a) ** 2 - 2 * phi * (pa - low_a) * (high_b - pb) + (high_b - pb) ** 2
    high = (high_a - pa) ** 2 - 2 * phi * (high_a - pa) * (pb - low_b) + (pb - low_b) ** 2
    return float(pa - pb - np.sqrt(low)), float(pa - pb + np.sqrt(high))


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's corrected p values, in the order given; NaN stays NaN and does not count."""
    values = np.asarray(p, dtype=np.float64)
    made = np.full(len(values), np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * values[i]))
        made[i] = running
    return made
