"""How many cases a study needs.

Sources:
    Obuchowski NA. Acad Radiol 2004;11:1123 (variance of an expected area, formula 3).
    Hanley JA, McNeil BJ. Radiology 1982;143:29.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from scipy.special import ndtr, ndtri

from medlora.errors import MedloraError
from medlora.evaluation.estimate import normal_quantile


def area_variance(area: float, ratio: float) -> float:
    """Obuchowski's variance of an expected area, times the number of positives.

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
    null, expected = area_variance(0.5, ratio), area_variance(area, ratio)
    gap = np.sqrt(n_pos) * abs(area - 0.5) - normal_quantile(1 - alpha) * np.sqrt(null)
    return float(ndtr(gap / np.sqrt(expected)))


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
    n_pos = area_variance(area, ratio) * design_effect * (2 * normal_quantile(level) / width) ** 2
    return ceil(n_pos), ceil(ceil(n_pos) * ratio)


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
    old, new = area_variance(area, ratio), area_variance(area + difference, ratio)
    variance = (old + new - 2 * correlation * np.sqrt(old * new)) * design_effect
    n_pos = variance * ((normal_quantile(level) + float(ndtri(power))) / (margin + difference)) ** 2
    return ceil(n_pos), ceil(ceil(n_pos) * ratio)
