"""Logits to calibrated probabilities, as frozen with an adapter: a softmax of classes, or a sigmoid for each finding.

Sources:
    Guo C et al. ICML 2017 (temperature scaling).
    Platt J. Probabilistic outputs for support vector machines, 1999 (a slope, an intercept, and softened targets).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from medlora.errors import MedloraError
from medlora.evaluation.calibration import apply_temperature

_STEEPEST = 20.0  # and 1/20 is the flattest, as of temperatures: a slope never turns the ranking round


@dataclass(frozen=True)
class Temperature:
    """Softmax of the logits divided by ``value``: classes that exclude each other."""

    value: float = 1.0

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Logits (N, K) → probabilities (N, K), each row summing to 1."""
        return apply_temperature(logits, self.value)

    def neutral(self) -> Temperature:
        """The probabilities as they are without calibration."""
        return Temperature()

    def describe(self) -> str:
        """In words."""
        return f"temperature {self.value:.3f}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``medlora.json``."""
        return {"temperature": self.value}


@dataclass(frozen=True)
class Sigmoids:
    """For each finding the sigmoid of slope · logit + intercept: findings that can occur together.

    Attributes:
        scales: finding → slope and intercept, in the order of the outputs.
    """

    scales: Mapping[str, tuple[float, float]]

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Logits (N, K) → probabilities (N, K), each for itself."""
        slopes, intercepts = np.array(list(self.scales.values()), dtype=np.float64).T
        return expit(np.asarray(logits, dtype=np.float64) * slopes + intercepts)

    def neutral(self) -> Sigmoids:
        """The probabilities as they are without calibration."""
        return Sigmoids(dict.fromkeys(self.scales, (1.0, 0.0)))

    def describe(self) -> str:
        """In words."""
        each = (f"{name} {slope:.3f} · logit {shift:+.3f}" for name, (slope, shift) in self.scales.items())
        return f"Platt scaling, {'; '.join(each)}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``medlora.json``."""
        return {"scaling": {name: {"slope": a, "intercept": b} for name, (a, b) in self.scales.items()}}


Calibration = Temperature | Sigmoids


def calibration_from(task: Mapping[str, Any]) -> Calibration:
    """What ``to_dict`` wrote among other things.

    Raises:
        KeyError, TypeError, ValueError: it is not there, or not as it was written.
    """
    if "scaling" not in task:
        return Temperature(float(task["temperature"]))
    return Sigmoids({str(n): (float(s["slope"]), float(s["intercept"])) for n, s in task["scaling"].items()})


def fit_sigmoid(logits: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Platt's slope and intercept of one finding; fit them on the tuning split.

    The targets are softened as Platt has it, (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), so that there is an answer where the
    logits separate the classes. The intercept takes back what class weights did to the prior.

    Args:
        logits: shape (n,).
        y: 1 present, 0 absent; shape (n,).

    Returns:
        The slope, between 1/20 and 20, and the intercept.

    Raises:
        MedloraError: one class only, or logits that are not finite.
    """
    x, truth = np.asarray(logits, dtype=np.float64), np.asarray(y).astype(bool)
    n_pos, n_neg = int(truth.sum()), int((~truth).sum())
    if not np.isfinite(x).all():
        raise MedloraError(f"{int((~np.isfinite(x)).sum())} of {x.size} outputs are NaN or infinite")
    if not n_pos or not n_neg:
        raise MedloraError(f"one class only among {len(x)} cases: a sigmoid cannot be fitted")
    target = np.where(truth, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * x + parameters[1]
        residual = (expit(z) - target) / len(x)
        return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([residual @ x, residual.sum()])

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1 / _STEEPEST, _STEEPEST), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000},
    )  # fmt: skip
    return float(found.x[0]), float(found.x[1])
