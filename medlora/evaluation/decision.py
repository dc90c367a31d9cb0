"""Decision curves: what acting on the model is worth, against acting on all or on none.

Source: Vickers AJ, Elkin EB. Med Decis Making 2006;26:565.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlora.errors import MedloraError


def net_benefit(p: ArrayLike, y: ArrayLike, thresholds: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Net benefit TP/n − FP/n · t/(1 − t) of the model and of calling all positive.

    Args:
        p: probability of the positive class, shape (n,).
        y: 1 for a positive, 0 for a negative; shape (n,).
        thresholds: threshold probabilities strictly between 0 and 1, shape (k,): at t a false alarm counts
            t/(1 − t) of a found positive.

    Returns:
        net benefit of the model and of "all positive", each of shape (k,); that of "none positive" is 0.

    Raises:
        MedloraError: probabilities or thresholds outside their range.
    """
    q, truth, t = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=bool), np.asarray(thresholds, dtype=np.float64)
    if not ((q >= 0) & (q <= 1)).all():
        raise MedloraError(f"net benefit needs probabilities; they range from {q.min():.4g} to {q.max():.4g}")
    if not ((t > 0) & (t < 1)).all():
        raise MedloraError("thresholds of a decision curve lie strictly between 0 and 1")
    tp = truth.sum() - np.searchsorted(np.sort(q[truth]), t, "left")
    fp = (~truth).sum() - np.searchsorted(np.sort(q[~truth]), t, "left")
    odds = t / (1 - t)
    return (tp - fp * odds) / len(q), (truth.sum() - (~truth).sum() * odds) / len(q)
