"""A figure with its interval, and the little arithmetic that all of them share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval; ``None`` stands for "cannot be estimated", and ``method`` says why.

    Attributes:
        value: the point estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        method: the interval's name ("logit-DeLong", "Wilson", …).
        n_pos: positives that the figure rests on.
        n_neg: negatives that the figure rests on.
        se: standard error on the figure's own scale, where there is one.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    n_pos: int | None = None
    n_neg: int | None = None
    se: float | None = None

    def __float__(self) -> float:
        return float("nan") if self.value is None else float(self.value)

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{number(self.low)}, {number(self.high)}]"
        return f"{number(self.value)}{interval}" + (f" ({self.method})" if self.method else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def number(value: float | None, digits: int = 2) -> str:
    """``value`` as a reader wants it: two decimals, a third where two would claim perfection, "–" for none."""
    if value is None or not np.isfinite(value):
        return "–" if value is None or np.isnan(value) else ("∞" if value > 0 else "−∞")
    if abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.{digits}f}"
    if abs(value) < 1 and abs(float(text)) in (0.0, 1.0) and value != 0:
        text = f"{value:.{digits + 1}f}"
    return text.replace("-", "−")


def normal_quantile(level: float) -> float:
    """The two-sided normal quantile of a confidence level (1.96 for 0.95)."""
    return float(ndtri(0.5 + level / 2))


def expit(x: float) -> float:
    """Inverse logit without overflow."""
    return float(1 / (1 + np.exp(-x))) if x >= 0 else float(np.exp(x) / (1 + np.exp(x)))


def wilson(x: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of x out of n; both may be effective (not whole) numbers."""
    z2 = normal_quantile(level) ** 2
    p = x / n
    centre, half = p + z2 / (2 * n), np.sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n)
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return (0.0 if x <= 0 else float(low)), (1.0 if x >= n else float(high))


def finite(value: float | None) -> float | None:
    """``value`` as a float, or None where it is NaN or infinite (JSON has neither)."""
    return None if value is None or not np.isfinite(value) else float(value)
