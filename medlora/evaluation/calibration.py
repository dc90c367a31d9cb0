"""Calibration: intercept, slope, Brier score, a flexible curve with its band, temperature scaling.

Sources:
    Van Calster B et al. BMC Med 2019;17:230 (calibration in the large, slope, flexible curves).
    Guo C et al. ICML 2017 (temperature scaling).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logsumexp

from medlora.errors import MedloraError
from medlora.evaluation.discrimination import patient_codes
from medlora.evaluation.estimate import Estimate, normal_quantile
from medlora.evaluation.proportions import proportion

_TINY = 1e-7  # float32 softmax rounds to 0 and 1; a logit needs something between


def logit(p: ArrayLike) -> NDArray[np.float64]:
    """Log odds, with probabilities of exactly 0 and 1 moved inwards by 1e-7."""
    q = np.clip(np.asarray(p, dtype=np.float64), _TINY, 1 - _TINY)
    return np.log(q / (1 - q))


def _as_logits(values: ArrayLike) -> NDArray[np.float64]:
    """Logits (n, k) of logits or probabilities (n, k), or of the positive's logits or probabilities (n,)."""
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise MedloraError(f"{int((~np.isfinite(x)).sum())} of {x.size} outputs are NaN or infinite")
    if x.ndim == 1:
        x = logit(x) if ((x >= 0) & (x <= 1)).all() else x
        return np.column_stack([np.zeros(len(x)), x])
    if ((x >= 0) & (x <= 1)).all() and np.abs(x.sum(axis=1) - 1).max() < 1e-3:
        return np.log(np.clip(x, 1e-12, 1))
    return x


def fit_temperature(outputs: ArrayLike, y: ArrayLike) -> float:
    """The temperature T that makes softmax(logits / T) most likely; fit it on the tuning split.

    Args:
        outputs: logits or probabilities, shape (n, classes); or those of the positive class, shape (n,).
        y: class numbers 0…k−1, shape (n,).

    Returns:
        T between 0.05 and 20; above 1 the model was over-confident. It changes no ranking of two classes.

    Raises:
        MedloraError: outputs that are not finite, labels outside the classes, one class only.
    """
    logits, labels = _as_logits(outputs), np.asarray(y)
    if len(labels) != len(logits):
        raise MedloraError(f"{len(labels)} labels for {len(logits)} rows of outputs")
    labels = labels.astype(np.intp)
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise MedloraError(f"labels from {labels.min()} to {labels.max()} for {logits.shape[1]} classes")
    if len(np.unique(labels)) < 2:
        raise MedloraError(f"one class only among {len(labels)} cases: a temperature cannot be fitted")
    row = np.arange(len(labels))

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[row, labels]))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def apply_temperature(outputs: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities at a temperature; shapes as in `fit_temperature`, the shape of the answer is that of the input."""
    if not temperature > 0:
        raise MedloraError(f"a temperature of {temperature} is not positive")
    scaled = _as_logits(outputs) / temperature
    p = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
    return p[:, 1] if np.ndim(outputs) == 1 else p


def brier(p: ArrayLike, y: ArrayLike, patients: ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """Mean squared distance of the probability from the truth, with a normal interval that follows patients.

    Args:
        p: probabilities, shape (n,) for the positive class or (n, classes) (squared distances are then summed).
        y: 0/1 of shape (n,), or class numbers for several classes.
        patients: who each case belongs to, shape (n,).
        level: confidence level.
    """
    q, labels = np.asarray(p, dtype=np.float64), np.asarray(y)
    truth = labels[:, None] if q.ndim == 1 else np.eye(q.shape[1])[labels.astype(np.intp)]
    errors = ((q.reshape(len(labels), -1) - truth) ** 2).sum(axis=1)
    codes, count = patient_codes(patients, len(errors))
    mean = float(errors.mean())
    if count < 2:
        return Estimate(mean, method="no interval: one patient")
    residual = np.bincount(codes, errors - mean, count) / len(errors)
    se = float(np.sqrt(count / (count - 1) * (residual**2).sum()))
    half = normal_quantile(level) * se
    name = "normal, by patient" if count < len(errors) else "normal"
    return Estimate(mean, max(mean - half, 0.0), mean + half, name, se=se)


def calibration_intercept_slope(
    p: ArrayLike, y: ArrayLike, patients: ArrayLike | None = None, *, level: float = 0.95
) -> tuple[Estimate, Estimate]:
    """Calibration in the large (intercept at slope 1) and calibration slope.

    The intercept is 0 where the mean risk is right (below 0: risks are too high); the slope is 1 where risks are
    spread rightly (below 1: too extreme, as an overfitted model's).

    Args:
        p: probability of the positive class, shape (n,).
        y: 1 for a positive, 0 for a negative; shape (n,).
        patients: who each case belongs to: standard errors are then robust to clustering.
        level: confidence level.

    Returns:
        Intercept and slope; without a value where the probabilities separate the classes or are all alike.
    """
    import warnings

    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError, PerfectSeparationWarning

    truth, x = np.asarray(y, dtype=np.float64), logit(p)
    codes, count = patient_codes(patients, len(truth))
    robust = {"cov_type": "cluster", "cov_kwds": {"groups": codes}} if count < len(truth) else {}
    name = "logistic regression" + (", robust by patient" if robust else "")
    ones, z, made = np.ones((len(truth), 1)), normal_quantile(level), []
    for design, offset in ((ones, x), (np.column_stack([ones, x]), None)):
        if offset is None and (np.ptp(x) == 0 or _separated(x, truth == 1)):
            why = "all probabilities are equal" if np.ptp(x) == 0 else "the probabilities separate the classes"
            made.append(Estimate(None, method=f"not estimable: {why}"))
            continue
        try:
            with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                warnings.simplefilter("error", PerfectSeparationWarning)
                fit = sm.GLM(truth, design, family=sm.families.Binomial(), offset=offset).fit(tol=1e-12, **robust)
        except (PerfectSeparationError, PerfectSeparationWarning, np.linalg.LinAlgError):
            made.append(Estimate(None, method="not estimable: the regression does not converge"))
            continue
        value, se = float(fit.params[-1]), float(fit.bse[-1])
        if not np.isfinite([value, se]).all():
            made.append(Estimate(None, method="not estimable: the regression does not converge"))
            continue
        made.append(Estimate(value, value - z * se, value + z * se, name, se=se))
    return made[0], made[1]


def _separated(x: NDArray[np.float64], truth: NDArray[np.bool_]) -> bool:
    """Whether a threshold divides the classes wholly, so that a slope would be infinite."""
    return bool(x[truth].min() >= x[~truth].max() or x[truth].max() <= x[~truth].min())


@dataclass(frozen=True)
class Reliability:
    """Stated probabilities against what was observed.

    Attributes:
        label: name of the curve.
        mean: mean stated probability of each group (equal numbers of cases), shape (groups,).
        observed: share of positives in each group.
        group_low: lower end of its Wilson interval.
        group_high: upper end.
        x: probabilities of the smooth curve; None where it cannot be fitted.
        smooth: smooth observed share at ``x``.
        low: lower end of its pointwise band.
        high: upper end.
    """

    label: str
    mean: NDArray[np.float64]
    observed: NDArray[np.float64]
    group_low: NDArray[np.float64]
    group_high: NDArray[np.float64]
    x: NDArray[np.float64] | None = None
    smooth: NDArray[np.float64] | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def reliability(
    p: ArrayLike,
    y: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    groups: int = 10,
    label: str = "model",
    level: float = 0.95,
) -> Reliability:
    """Grouped and smooth calibration curve.

    The smooth curve is a logistic regression on restricted cubic splines (4 knots) of the log odds, as in R's rms
    and CalibrationCurves; its band is robust to clustering by patient.

    Args:
        p: probability of the positive class, shape (n,).
        y: 1 for a positive, 0 for a negative; shape (n,).
        patients: who each case belongs to, shape (n,).
        groups: at most this many groups of equal size, at least 10 cases each.
        label: name of the curve.
        level: confidence level.
    """
    q, truth = np.asarray(p, dtype=np.float64), np.asarray(y).astype(bool)
    edges = np.unique(np.quantile(q, np.linspace(0, 1, max(1, min(groups, len(q) // 10)) + 1), method="lower"))
    group = np.searchsorted(edges[1:-1], q, "left")  # equal probabilities stay together
    made = []
    for g in np.unique(group):
        part = np.flatnonzero(group == g)
        share = proportion(
            truth[part], np.ones(len(part)), None if patients is None else np.asarray(patients)[part], level=level
        )
        made.append(
            (q[part].mean(), float(share), float(share.low or 0), float(1 if share.high is None else share.high))
        )
    points = np.array(made).T
    smooth = _smooth(q, truth, patients, level)
    return Reliability(label, *points, *smooth)


def _smooth(q: NDArray, truth: NDArray, patients: ArrayLike | None, level: float) -> tuple[NDArray | None, ...]:
    import warnings

    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError, PerfectSeparationWarning

    x = logit(q)
    knots = np.unique(np.quantile(x, [0.05, 0.35, 0.65, 0.95]))
    if len(np.unique(x)) < 10 or len(knots) < 4 or min(truth.sum(), (~truth).sum()) < 10 or _separated(x, truth):
        return None, None, None, None
    codes, count = patient_codes(patients, len(x))
    robust = {"cov_type": "cluster", "cov_kwds": {"groups": codes}} if count < len(x) else {}
    first, last = np.quantile(q, [0.01, 0.99])
    grid = np.linspace(first, last, 80)
    try:
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            warnings.simplefilter("error", PerfectSeparationWarning)
            fit = sm.GLM(truth.astype(float), _splines(x, knots), family=sm.families.Binomial()).fit(**robust)
    except (PerfectSeparationError, PerfectSeparationWarning, np.linalg.LinAlgError):
        return None, None, None, None
    if not (np.isfinite(fit.params).all() and np.isfinite(fit.cov_params()).all()):
        return None, None, None, None
    design = _splines(logit(grid), knots)
    centre = design @ fit.params
    half = normal_quantile(level) * np.sqrt(np.einsum("ij,jk,ik->i", design, fit.cov_params(), design))
    return grid, expit(centre), expit(centre - half), expit(centre + half)


def _splines(x: NDArray, knots: NDArray) -> NDArray[np.float64]:
    """Harrell's restricted cubic splines: intercept, x, and len(knots) − 2 terms linear beyond the outer knots."""
    t = knots
    scale = (t[-1] - t[0]) ** 2

    def cube(u: NDArray) -> NDArray:
        return np.maximum(u, 0) ** 3

    terms = [
        (
            cube(x - t[j])
            - cube(x - t[-2]) * (t[-1] - t[j]) / (t[-1] - t[-2])
            + cube(x - t[-1]) * (t[-2] - t[j]) / (t[-1] - t[-2])
        )
        / scale
        for j in range(len(t) - 2)
    ]
    return np.column_stack([np.ones_like(x), x, *terms])
