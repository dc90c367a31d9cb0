"""The loss of a step, and what is done about classes of unequal size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medlora.errors import MedloraError

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


class MaskedLoss:
    """Binary cross-entropy of several findings, those that are unknown left out.

    The mean is over the known entries of the training images, each of which counts the same whatever batch it comes in:
    a batch's sum is divided by its images times the known entries that a training image has on the average. So the
    gradients of parts of a batch (several processes, accumulated steps) add up to those of the whole.

    Args:
        labels: 1 present, 0 absent, NaN unknown; float (N, K) of the training images.
        balance: ``balanced`` weighs presence and absence of each finding by their inverse frequencies among its known
            entries; ``logit_adjustment`` adds the logarithm of its odds to the logits; ``none``.
        label_smoothing: probability taken from the truth and spread over present and absent.

    Raises:
        MedloraError: ``sampler``, which draws an image for its one class.
    """

    def __init__(self, labels: Tensor, balance: Balance, label_smoothing: float) -> None:
        if balance == "sampler":
            raise MedloraError(
                "train.class_weights=sampler draws an image for its one class, and here an image has several findings",
                "use balanced, logit_adjustment or none",
            )
        present, absent = (labels == 1).sum(0).double(), (labels == 0).sum(0).double()
        known = present + absent
        self.weights = None
        if balance == "balanced":
            self.weights = torch.stack([known / (2 * absent), known / (2 * present)]).float()  # absent, present
        self.offsets = (present / absent).log().float() if balance == "logit_adjustment" else None
        self.label_smoothing = label_smoothing
        self.per_image = float(known.sum()) / len(labels)
        self.drawing = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits and labels (N, K) → the mean. Weights have mean 1 over the known training entries of a finding."""
        if self.offsets is not None:
            logits = logits + self.offsets.to(logits)
        known = ~labels.isnan()
        truth = labels[known].to(logits)
        target = truth * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits[known], target, reduction="none")
        if self.weights is not None:
            absent, present = self.weights.to(losses)[:, None].expand(-1, *labels.shape)
            losses = losses * torch.where(truth == 1, present[known], absent[known])
        return losses.sum() / (len(labels) * self.per_image)


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


def masked_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean AUC of the findings that are known to be present in some cases and absent in others; both (N, K) → 0…1.

    Args:
        scores: higher is more for the finding.
        labels: 1 present, 0 absent, NaN unknown.
    """
    from sklearn.metrics import roc_auc_score

    areas = []
    for score, label in zip(scores.T, labels.T, strict=True):
        known = ~np.isnan(label)
        if len(set(label[known])) == 2:
            areas.append(roc_auc_score(label[known], score[known]))
    return float(np.mean(areas)) if areas else float("nan")
