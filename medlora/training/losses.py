"""The loss of a step, and what is done about classes of unequal size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Balance = Literal["balanced", "sampler", "logit_adjustment", "none"]


class Loss:
    """Cross-entropy of a batch.

    Args:
        labels: class index of each training image, int64 (N,).
        classes: number of classes K.
        balance: ``balanced`` weighs each image by the inverse frequency of its class; ``logit_adjustment`` adds the
            logarithm of the class frequencies to the logits (Menon et al. 2021, arXiv 2007.07314); ``sampler`` leaves
            the loss alone and draws images so that classes come equally often.
        label_smoothing: probability taken from the true class and spread over all.
    """

    def __init__(self, labels: Tensor, classes: int, balance: Balance, label_smoothing: float) -> None:
        counts = torch.bincount(labels, minlength=classes).double()
        self.weights = (counts.sum() / (classes * counts)).float() if balance == "balanced" else None
        self.offsets = (counts / counts.sum()).log().float() if balance == "logit_adjustment" else None
        self.label_smoothing = label_smoothing
        self.drawing = (1 / counts)[labels].numpy() if balance == "sampler" else None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K) and class indices (N,) → mean over the images. Weights have mean 1 over the training images."""
        if self.offsets is not None:
            logits = logits + self.offsets.to(logits)
        losses = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        return losses.mean() if self.weights is None else (losses * self.weights.to(losses)[labels]).mean()


def mixed(images: Tensor, strength: float) -> tuple[Tensor, Tensor, float]:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412): each image with another of the batch.

    Args:
        images: (N, …).
        strength: both parameters of the Beta distribution of the share.

    Returns:
        The mixed images, the index of each image's partner (N,), and the share of the image itself.
    """
    share = float(torch.distributions.Beta(strength, strength).sample())
    partner = torch.randperm(len(images), device=images.device)
    return share * images + (1 - share) * images[partner], partner, share


def macro_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the one-versus-rest AUCs over the classes present; (N, K) and (N,) → 0…1."""
    from sklearn.metrics import roc_auc_score

    present = [k for k in range(probabilities.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    if not present:
        return float("nan")
    return float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in present]))
