"""How many cases a study needs.

Sources:
    Obuchowski NA. Acad Radiol 2004;11:1123 (variance of an expected area, formula 3).
    Hanley JA, McNeil BJ. Radiology 1982;143:29 (variance) and 1983;148:839 (correlated areas).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import ceil

import numpy as np
from scipy.special import ndtr, ndtri, owens_t

from medlora.errors import MedloraError
from medlora.evaluation.estimate import normal_quantile


def obuchowski_variance(area: float, ratio: float) -> float:
    """Obuchowski's approximate variance of an expected area, times the number of positives.

    Args:
        area: expected area under the curve, strictly between 0 and 1.
        ratio: negatives per positive.
    """
    if not 0 < area < 1:
        raise MedloraError(f"an expected area of {area:g} is not strictly between 0 and 1")
    if not ratio > 0:
        raise MedloraError(f"{ratio:g} negatives per positive is not possible")
    a = float(ndtri(area)) * 1.414  # as printed in the paper (and used by pROC), not √2
    return float(0.0099 * np.exp(-a * a / 2) * (5 * a * a + 8 + (a * a + 8) / ratio))


def power_of_area(area: float, n_pos: int, n_neg: int, *, alpha: float = 0.05) -> float:
    """Power to show that an expected area differs from 0.5 (two-sided test at ``alpha``)."""
    ratio = n_neg / n_pos
    null, expected = obuchowski_variance(0.5, ratio), obuchowski_variance(area, ratio)
    gap = np.sqrt(n_pos) * abs(area - 0.5) - normal_quantile(1 - alpha) * np.sqrt(null)
    return float(ndtr(gap / np.sqrt(expected)))


def binormal_variance(area: float, n_pos: float, n_neg: float) -> float:
    """Exact variance of the estimated area for normal scores of equal variance in both classes.

    Hanley and McNeil's Q (the chance that two positives both exceed one negative) is a bivariate normal probability
    with correlation ½, from Owen's T function.
    """
    if not 0 < area < 1:
        raise MedloraError(f"an expected area of {area:g} is not strictly between 0 and 1")
    h = float(ndtri(area))
    q = area - 2 * float(owens_t(h, 1 / np.sqrt(3))) - area * area
    return (area * (1 - area) + (n_pos + n_neg - 2) * q) / (n_pos * n_neg)


def _smallest(reached: Callable[[int], bool], ratio: float) -> tuple[int, int]:
    """The smallest number of positives with which ``reached``, and the negatives that go with them."""
    if not ratio > 0:
        raise MedloraError(f"{ratio:g} negatives per positive is not possible")
    most = 2
    while not reached(most):
        most *= 2
        if most > 10**9:
            raise MedloraError("no study of any size reaches this")
    n_pos = bisect_left(range(most + 1), True, lo=2, key=reached)
    return n_pos, ceil(n_pos * ratio)


def sample_size_for_width(
    area: float, width: float, *, ratio: float = 1.0, level: float = 0.95, design_effect: float = 1.0
) -> tuple[int, int]:
    """Positives and negatives for an interval of at most this width around an expected area.

    Args:
        area: expected area under the curve.
        width: whole width of the interval.
        ratio: negatives per positive.
        level: confidence level.
        design_effect: how many times larger the variance is because patients have several cases.
    """
    if not 0 < width < 1:
        raise MedloraError(f"a width of {width:g} is not between 0 and 1")
    z = normal_quantile(level)

    def reached(m: int) -> bool:
        return 2 * z * np.sqrt(design_effect * binormal_variance(area, m, m * ratio)) <= width

    return _smallest(reached, ratio)


def sample_size_for_margin(
    area: float,
    margin: float,
    *,
    difference: float = 0.0,
    correlation: float = 0.5,
    ratio: float = 1.0,
    power: float = 0.8,
    level: float = 0.95,
    design_effect: float = 1.0,
) -> tuple[int, int]:
    """Positives and negatives to show that a new model is not worse than the old one by ``margin``, on the same cases.

    Args:
        area: expected area of the old model.
        margin: how much worse is still acceptable.
        difference: expected area of the new model minus that of the old one; above −margin.
        correlation: between the two estimated areas (0.5 is usual for models of one kind; Hanley and McNeil 1983).
        ratio: negatives per positive.
        power: wanted power.
        level: confidence level of the two-sided interval whose lower end is compared with −margin.
        design_effect: see `sample_size_for_width`.
    """
    if not margin > 0 or not difference > -margin:
        raise MedloraError(f"a margin of {margin:g} cannot be shown with an expected difference of {difference:g}")
    if not 0 < power < 1 or not -1 < correlation < 1:
        raise MedloraError(f"a power of {power:g} and a correlation of {correlation:g} are not possible together")
    z = normal_quantile(level) + float(ndtri(power))

    def reached(m: int) -> bool:
        old, new = (binormal_variance(a, m, m * ratio) for a in (area, area + difference))
        variance = old + new - 2 * correlation * np.sqrt(old * new)
        return z * np.sqrt(design_effect * variance) <= margin + difference

    return _smallest(reached, ratio)
