"""Several findings with unknown ones: loss, probe, calibration and figures against formulas and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from medlora.errors import MedloraError
from medlora.evaluation import fit_sigmoid
from medlora.training import probe
from medlora.training.config import Config
from medlora.training.losses import MaskedLoss, masked_auc
from medlora.training.task import EachOf, OneOf, task_from

NAN = float("nan")
LABELS = np.array(
    [[1, 0, NAN], [0, NAN, NAN], [NAN, 1, 0], [1, 0, 1], [0, 0, 1], [NAN, NAN, NAN], [0, 1, 0], [0, 0, NAN]]
)


def by_hand(z, y, balance, smoothing):
    """The mean over known entries, and its derivative, element by element."""
    present, absent = np.nansum(y == 1, axis=0), np.nansum(y == 0, axis=0)
    total, gradient, known = 0.0, np.zeros_like(z), 0
    for i in range(len(y)):
        for k in range(y.shape[1]):
            if np.isnan(y[i, k]):
                continue
            known += 1
            n, own = present[k] + absent[k], present[k] if y[i, k] == 1 else absent[k]
            weight = n / (2 * own) if balance == "balanced" else 1.0
            shift = np.log(present[k] / absent[k]) if balance == "logit_adjustment" else 0.0
            target = y[i, k] * (1 - smoothing) + smoothing / 2
            p = 1 / (1 + np.exp(-(z[i, k] + shift)))
            total -= weight * (target * np.log(p) + (1 - target) * np.log(1 - p))
            gradient[i, k] = weight * (p - target)
    return total / known, gradient / known


@pytest.mark.parametrize("balance", ["none", "balanced", "logit_adjustment"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_and_its_gradient_are_the_formula(balance, smoothing):
    z = np.random.default_rng(0).normal(size=LABELS.shape)
    logits = torch.tensor(z, requires_grad=True)
    labels = torch.tensor(LABELS)
    loss = MaskedLoss(labels, balance, smoothing)(logits, labels)
    loss.backward()
    value, gradient = by_hand(z, LABELS, balance, smoothing)
    assert float(loss.detach()) == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-6, atol=1e-12)
    assert (logits.grad.numpy()[np.isnan(LABELS)] == 0).all()


def test_an_unknown_entry_changes_nothing_whatever_the_network_says():
    labels = torch.tensor(LABELS)
    logits = torch.zeros(LABELS.shape, dtype=torch.float64)
    loss = MaskedLoss(labels, "balanced", 0.0)
    wild = logits.masked_fill(labels.isnan(), float("inf")).requires_grad_()
    found = loss(wild, labels)
    found.backward()
    assert float(found.detach()) == float(loss(logits, labels))
    assert torch.isfinite(wild.grad).all()


def test_parts_of_a_batch_add_up_to_it():
    """As several processes and accumulated steps have them, however many entries each part knows."""
    labels, logits = torch.tensor(LABELS), torch.randn(LABELS.shape, dtype=torch.float64)
    loss = MaskedLoss(labels, "balanced", 0.1)
    parts = [slice(0, 3), slice(3, 6), slice(6, 8)]
    together = sum(len(labels[part]) / len(labels) * loss(logits[part], labels[part]) for part in parts)
    assert float(together) == pytest.approx(float(loss(logits, labels)), rel=1e-12)
    assert float(loss(logits[5:6], labels[5:6])) == 0  # a batch of which nothing is known


def test_balanced_gives_present_and_absent_the_same_weight():
    labels = torch.tensor(LABELS)
    absent, present = MaskedLoss(labels, "balanced", 0.0).weights
    np.testing.assert_allclose((labels == 1).sum(0) * present, (labels == 0).sum(0) * absent)


def features(seed, n=60):
    random = np.random.default_rng(seed)
    x = random.normal(2, 3, size=(n, 5))
    y = (x[:, :3] + random.normal(0, 3, (n, 3)) > 2).astype(np.float32)
    y[random.random(y.shape) < 0.3] = np.nan
    return x, y


def test_the_probe_is_scikit_learns_finding_by_finding():
    train, tune = features(0), features(1)
    found = probe.fit_findings(train, tune)
    logits = tune[0] @ found.weight.double().numpy().T + found.bias.double().numpy()
    areas = []
    for k in range(3):
        known, held = ~np.isnan(train[1][:, k]), ~np.isnan(tune[1][:, k])
        scaler = StandardScaler().fit(train[0][known])
        model = LogisticRegression(C=found.strength[k], class_weight="balanced", max_iter=2000)
        model.fit(scaler.transform(train[0][known]), train[1][known, k])
        np.testing.assert_allclose(logits[:, k], model.decision_function(scaler.transform(tune[0])), atol=1e-5)
        areas.append(roc_auc_score(tune[1][held, k], logits[held, k]))
    assert found.tune_auc == pytest.approx(np.mean(areas), abs=1e-9)
    assert masked_auc(logits, tune[1]) == pytest.approx(np.mean(areas), abs=1e-9)


def test_platt_scaling_is_scikit_learns():
    from sklearn.calibration import _sigmoid_calibration

    random = np.random.default_rng(2)
    z = random.normal(1, 2, 200)
    y = random.random(200) < 1 / (1 + np.exp(-(0.6 * z - 2)))
    slope, intercept = fit_sigmoid(z, y)
    a, b = _sigmoid_calibration(z, y)  # 1 / (1 + exp(a · z + b))
    assert slope == pytest.approx(-a, abs=1e-4)
    assert intercept == pytest.approx(-b, abs=1e-4)
    separated = fit_sigmoid(np.array([-1.0, 1.0]), np.array([0, 1]))
    assert np.isfinite(separated).all()
    assert fit_sigmoid(-z, y)[0] > 0  # the ranking is never turned round


def test_calibration_and_threshold_are_each_findings_own():
    (_, y), task = features(3), EachOf(["a", "b", "c"])
    z = np.random.default_rng(4).normal(size=y.shape) + np.nan_to_num(y)
    calibration = task.calibrate(z, y)
    p = calibration.probabilities(z)
    point = task.operating_point("sensitivity>=0.9", p, y)
    for k, name in enumerate(task.classes):
        known = ~np.isnan(y[:, k])
        slope, intercept = fit_sigmoid(z[known, k], y[known, k])
        np.testing.assert_allclose(p[:, k], 1 / (1 + np.exp(-(slope * z[:, k] + intercept))), atol=1e-12)
        assert (p[known, k] >= point.value[name])[y[known, k] == 1].mean() >= 0.9
    odds = task.log_odds(torch.tensor(z), calibration).numpy()
    np.testing.assert_allclose(odds, np.log(p / (1 - p)), atol=1e-9)
    words = point.words(p[:4], task.classes)
    for row, said in zip(p[:4], words, strict=True):
        hits = [name for name, value in zip(task.classes, row, strict=True) if value >= point.value[name]]
        assert said == ("|".join(hits) or "none")


def test_tasks_are_told_and_refuse_what_has_no_meaning():
    assert isinstance(task_from(EachOf(["a"]).describe()), EachOf)
    assert isinstance(task_from({"classes": ["a", "b"]}), OneOf)
    config = Config.resolve(None, {"train.class_weights": "sampler"})
    with pytest.raises(MedloraError, match="sampler draws an image for its one class"):
        EachOf(["a", "b"]).check(config)
    OneOf(["a", "b"]).check(config)
    classes = pd.DataFrame({"label": ["a", "b"]})
    findings = pd.DataFrame({"label": ["", ""], "y_a": pd.array([1, None], dtype="Int64")})
    with pytest.raises(MedloraError, match="one label for each case"):
        EachOf(["a", "b"]).answerable(classes)
    with pytest.raises(MedloraError, match="can occur together"):
        OneOf(["a", "b"]).answerable(findings)
    assert list(EachOf(["a", "b"]).answerable(findings)["y_b"].isna()) == [True]
