"""The linear probe: logistic regression on the frozen backbone's features, written into the model's own classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from medlora.training.losses import macro_auc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sklearn.preprocessing import StandardScaler
    from torch import nn

# Inverse strengths of the L2 penalty tried on the tune split, weakest last.
_STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass
class Probe:
    """A linear classifier on features as they come from the backbone.

    Attributes:
        weight, bias: (K, F) and (K,); logits are ``features @ weight.T + bias``.
        strength: inverse L2 penalty on standardised features, chosen on the tune split; of several findings one each.
        tune_auc: what it reaches there.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float | tuple[float, ...]
    tune_auc: float


def classifier_of(model: nn.Module) -> nn.Linear | None:
    """The one linear layer at the end of a timm model, or none where its classifier is something else."""
    head = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    return head if isinstance(head, torch.nn.Linear) else None


def features(model: nn.Module, batches: Iterable[torch.Tensor], device: torch.device) -> np.ndarray:
    """What reaches the classifier of ``model`` in evaluation mode: batches of (N, C, H, W) → float32 (cases, F)."""
    head = classifier_of(model)
    assert head is not None
    seen: list[np.ndarray] = []
    hook = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].float().cpu().numpy()))
    training = model.training
    try:
        model.eval().to(device)
        with torch.inference_mode():
            for batch in batches:
                model(batch.to(device))
    finally:
        hook.remove()
        model.train(training)
    return np.concatenate(seen)


def fit(train: tuple[np.ndarray, np.ndarray], tune: tuple[np.ndarray, np.ndarray], classes: int) -> Probe:
    """Fit a class-balanced multinomial logistic regression; the penalty is chosen by the AUC on the tune split.

    Args:
        train, tune: features (N, F) and class indices (N,).
        classes: number of classes K.
    """
    score, strength, coefficients, intercepts, scaler = _chosen(train, tune)
    if classes == 2:  # scikit-learn keeps one row for two classes: log-odds of the second
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weight = coefficients / scaler.scale_
    bias = intercepts - weight @ scaler.mean_
    return Probe(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), strength, score)


def fit_findings(train: tuple[np.ndarray, np.ndarray], tune: tuple[np.ndarray, np.ndarray]) -> Probe:
    """Fit a class-balanced logistic regression for each finding, on the cases where it is known.

    Args:
        train, tune: features (N, F) and findings (N, K): 1 present, 0 absent, NaN unknown.
    """
    weights, biases, strengths, scores = [], [], [], []
    for finding in range(train[1].shape[1]):
        known = [
            (features[~np.isnan(y[:, finding])], y[~np.isnan(y[:, finding]), finding]) for features, y in (train, tune)
        ]
        score, strength, coefficients, intercepts, scaler = _chosen(known[0], known[1])
        weight = coefficients[0] / scaler.scale_
        weights.append(weight)
        biases.append(intercepts[0] - weight @ scaler.mean_)
        strengths.append(strength)
        scores.append(score)
    weight, bias = (torch.from_numpy(np.stack(parts)).float() for parts in (weights, biases))
    return Probe(weight, bias, tuple(strengths), float(np.mean(scores)))


def _chosen(
    train: tuple[np.ndarray, np.ndarray], tune: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float, np.ndarray, np.ndarray, StandardScaler]:
    """AUC on the tune split, strength, coefficients and intercepts on standardised features, and what standardises."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    scaler = StandardScaler().fit(train[0])
    scaled, held_out = scaler.transform(train[0]), scaler.transform(tune[0])
    best: tuple[float, float, LogisticRegression] | None = None
    with threadpool_limits(1, "blas"):  # the products are small: threads would spend their time waiting for each other
        for strength in _STRENGTHS:
            model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(scaled, train[1])
            score = macro_auc(model.predict_proba(held_out), tune[1])
            if best is None or score > best[0]:
                best = (score, strength, model)
    assert best is not None
    score, strength, model = best
    return float(score), strength, model.coef_, model.intercept_, scaler
