"""Every number of the reference (R: pROC, epiR, survey, Obuchowski's program), to 1e-10; regressions to 1e-6."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medlora.evaluation import (
    auc,
    auc_covariance,
    brier,
    calibration_intercept_slope,
    delong_test,
    delong_test_unpaired,
    likelihood_ratios,
    paired_proportions,
    proportion,
)
from medlora.evaluation.discrimination import newcombe_interval
from medlora.evaluation.estimate import wilson
from medlora.evaluation.proportions import clopper_pearson, ratio_covariance

FOLDER = Path(__file__).parent / "reference"
VALUES = json.loads((FOLDER / "evaluation_values.json").read_text(encoding="utf-8"))
CANCER = VALUES["sklearn_breast_cancer"]
CLUSTERED = VALUES["clustered"]


def close(actual: object, expected: object, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    scores = {n: data.data[f"mean {n}"].to_numpy() for n in ("texture", "smoothness", "concavity")}
    return data.target.to_numpy() == 0, scores


@pytest.fixture(scope="module")
def nodules() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "clustered_synthetic.csv")


@pytest.mark.parametrize("name", ["texture", "smoothness", "concavity"])
def test_area_variance_and_wald_interval(cancer, name):
    y, scores = cancer
    expected = CANCER[f"mean_{name}"]
    areas, cov = auc_covariance(y, scores[name])
    close(areas[0], expected["auc"])
    close(cov[0, 0], expected["var_delong"])
    wald = auc(y, scores[name], method="wald")
    close((wald.low, wald.high), expected["ci95_delong"])
    assert (wald.n_pos, wald.n_neg) == (expected["n_pos"], expected["n_neg"])


@pytest.mark.parametrize(("a", "b"), [("texture", "smoothness"), ("concavity", "texture")])
def test_two_models(cancer, a, b):
    y, scores = cancer
    check_pair(CANCER[f"{a}_vs_{b}"], y, scores[a], scores[b])


def check_pair(expected, y, a, b):
    paired, unpaired = delong_test(y, a, b), delong_test_unpaired(y, a, y, b)
    close(auc_covariance(y, np.column_stack([a, b]))[1][0, 1], expected["cov"])
    close((paired.a, paired.b, paired.value), (expected["auc_a"], expected["auc_b"], expected["diff"]))
    close((paired.se, paired.statistic), (expected["se_diff"], expected["z_paired"]))
    np.testing.assert_allclose(paired.p, expected["p_paired"], rtol=1e-10)
    close((paired.low, paired.high), expected["ci95_diff"])
    close((unpaired.statistic, unpaired.df), (expected["D_unpaired"], expected["df_unpaired"]))
    np.testing.assert_allclose(unpaired.p, expected["p_unpaired"], rtol=1e-10)


@pytest.mark.parametrize("interval", ["exact", "wilson"])
def test_two_by_two_table(cancer, interval):
    y, scores = cancer
    called, everyone = scores["texture"] >= 19, np.ones(len(y), dtype=bool)
    table = CANCER["texture_at_19"]["table"]
    assert [(called & y).sum(), (called & ~y).sum(), (~called & y).sum(), (~called & ~y).sum()] == [
        table[k] for k in ("tp", "fp", "fn", "tn")
    ]
    parts = {
        "se": (called, y), "sp": (~called, ~y), "pv.pos": (y, called), "pv.neg": (~y, ~called),
        "diag.ac": (called == y, everyone), "ap": (called, everyone), "tp": (y, everyone), "p.rin": (called, everyone),
        "p.rout": (~called, everyone), "p.tpdn": (called, ~y), "p.tndp": (~called, y), "p.dntp": (~y, called),
        "p.dptn": (y, ~called),
    }  # fmt: skip
    expected = dict(CANCER["texture_at_19"][interval])
    for key, (hits, among) in parts.items():
        got = proportion(hits, among, interval=interval)
        close((got.value, got.low, got.high), expected.pop(key))
    for key, got in zip(("lr.pos", "lr.neg", "diag.or"), likelihood_ratios(called, y), strict=True):
        close((got.value, got.low, got.high), expected.pop(key))
    # epiR adds the ends of the two intervals for Youden's index, and turns them over for its inverse.
    se, sp = (proportion(*parts[k], interval=interval) for k in ("se", "sp"))
    youden = np.array([se.value + sp.value, se.low + sp.low, se.high + sp.high]) - 1
    close(youden, expected.pop("youden"))
    close((1 / youden)[[0, 2, 1]], expected.pop("nndx"))
    assert not expected


def test_mcnemar(cancer):
    y, scores = cancer
    a, b = scores["texture"] >= 19, scores["smoothness"] >= 0.1
    for name, hit_a, hit_b, among in (("sensitivity", a, b, y), ("specificity", ~a, ~b, ~y)):
        expected = CANCER["mcnemar"][name]
        got = paired_proportions(hit_a, hit_b, among)
        only_a, only_b = (hit_a & ~hit_b & among).sum(), (~hit_a & hit_b & among).sum()
        # For specificity b and c count calls (A+B−), so they stand the other way round.
        counts = (only_a, only_b) if name == "sensitivity" else (only_b, only_a)
        assert counts == (expected["b"], expected["c"])
        np.testing.assert_allclose(got.p, expected["exact_p"], rtol=1e-10)
        assert got.low < got.value < got.high


def test_calibration(cancer):
    import statsmodels.api as sm

    y, scores = cancer
    expected = CANCER["calibration"]
    x = sm.add_constant(np.column_stack([scores["texture"], scores["smoothness"]]))
    odd = np.arange(len(y)) % 2 == 0  # 1-based odd rows
    fit = sm.GLM(y[odd].astype(float), x[odd], family=sm.families.Binomial()).fit(tol=1e-12)
    close(fit.params, expected["coef"], 1e-6)
    p, truth = fit.predict(x[~odd]), y[~odd]
    intercept, slope = calibration_intercept_slope(p, truth)
    close((intercept.value, intercept.se), (expected["citl"], expected["citl_se"]), 1e-6)
    close(slope.value, expected["slope"], 1e-6)
    # R stops at a relative change of deviance of 1e-8 and takes the standard error from the weights before its last
    # step; ours is taken at the maximum.
    close(slope_se(p, truth, 1e-8), expected["slope_se"], 1e-6)
    close(slope.se, slope_se(p, truth, 0.0), 1e-6)
    close(brier(p, truth).value, expected["brier"], 1e-6)
    close(auc(truth, p).value, expected["auc"])


def slope_se(p: np.ndarray, y: np.ndarray, epsilon: float) -> float:
    """Standard error of the slope as R's glm finds it, by iteratively reweighted least squares."""
    x = np.column_stack([np.ones(len(p)), np.log(p / (1 - p))])
    mu, deviance = (y + 0.5) / 2, np.inf
    eta = np.log(mu / (1 - mu))
    for _ in range(25):
        w = mu * (1 - mu)
        information = x.T * w @ x
        beta = np.linalg.solve(information, x.T @ (w * eta + (y - mu)))
        eta = x @ beta
        mu = 1 / (1 + np.exp(-eta))
        before, deviance = deviance, -2 * np.log(np.where(y, mu, 1 - mu)).sum()
        if abs(deviance - before) / (deviance + 0.1) < epsilon:
            break
    return float(np.sqrt(np.linalg.inv(information)[1, 1]))


def test_clustered_areas(nodules):
    y, a, b, who = nodules.y, nodules.score_a, nodules.score_b, nodules.patient
    one, two = CLUSTERED["obuchowski_a"], CLUSTERED["obuchowski_paired"]
    wald = auc(y, a, who, method="wald")
    close((wald.value, wald.se**2, wald.se), (one["auc"], one["auc.var"], one["auc.se"]))
    close((wald.low, wald.high), (one["ci.bot"], one["ci.top"]))
    for name, s in (("A", a), ("B", b)):
        got = auc(y, s, who, method="wald")
        close((got.value, got.se**2, got.se), [two[f"{k}.{name}"] for k in ("auc", "auc.var", "auc.se")])
        close((got.low, got.high), (two[f"ci.bot.{name}"], two[f"ci.top.{name}"]))
    test = delong_test(y, a, b, who)
    close((test.value, test.se**2, test.se), [two[f"{k}.AminusB"] for k in ("auc", "auc.var", "auc.se")])
    close((test.low, test.high), (two["ci.bot.AminusB"], two["ci.top.AminusB"]))
    np.testing.assert_allclose(test.p, two["p.value"], rtol=1e-10)


def test_ignoring_the_patients(nodules):
    naive = CLUSTERED["naive_delong_a"]
    wald = auc(nodules.y, nodules.score_a, method="wald")
    close((wald.value, wald.se**2), (naive["auc"], naive["var_delong"]))
    close((wald.low, wald.high), naive["ci95_delong"])
    check_pair(CLUSTERED["naive_delong_pair"], nodules.y, nodules.score_a, nodules.score_b)


def test_largest_score_of_each_patient(nodules):
    most = nodules.groupby("patient")[["y", "score_a", "score_b"]].max()
    expected = CLUSTERED["patient_max"]
    assert len(most) == expected["n"]
    wald = auc(most.y, most.score_a, method="wald")
    close((wald.value, wald.se**2), (expected["a"]["auc"], expected["a"]["var_delong"]))
    close((wald.low, wald.high), expected["a"]["ci95_delong"])
    check_pair(expected["pair"], most.y, most.score_a, most.score_b)


def test_clustered_proportions(nodules):
    y, hit = nodules.y.to_numpy() == 1, nodules.score_a.to_numpy() >= 0.5
    expected = CLUSTERED["at_0.5"]
    assert [(hit & y).sum(), (hit & ~y).sum(), (~hit & y).sum(), (~hit & ~y).sum()] == [
        expected["naive_table"][k] for k in ("tp", "fp", "fn", "tn")
    ]
    codes = np.unique(nodules.patient, return_inverse=True)[1]
    for name, survey, among in (("sens_ratio", "survey_sens", y), ("fpr_ratio", "survey_fpr", ~y)):
        (p,), cov = ratio_covariance([(hit * among * 1.0, among * 1.0)], codes, 60)
        close((p, np.sqrt(cov[0, 0])), (expected[name]["p_pos"], expected[name]["se"]))
        assert (len(np.unique(codes[among])), among.sum()) == (expected[name]["clusters"], expected[name]["n"])
        # survey's linearisation counts all 60 patients in I/(I−1), ours those with a case in the denominator.
        used = expected[name]["clusters"]
        close(np.sqrt(cov[0, 0] * (used - 1) / used * 60 / 59), expected[survey]["se"])
        # The interval is Wilson's at n over the design effect.
        n = p * (1 - p) / cov[0, 0]
        got = proportion(hit, among, nodules.patient)
        close((got.value, got.low, got.high), (p, *wilson(p * min(n, among.sum()), min(n, among.sum()))))


@pytest.mark.parametrize("row", VALUES["binomial"], ids=lambda r: f"{r['x']} of {r['n']}")
def test_binomial_intervals(row):
    close(wilson(row["x"], row["n"]), row["wilson"])
    close(clopper_pearson(row["x"], row["n"]), row["clopper_pearson"])


@pytest.mark.parametrize("row", VALUES["newcombe_method5"]["rows"], ids=lambda r: f"{r['auc']:.3f}")
def test_newcombe(row):
    close(newcombe_interval(row["auc"], row["m"], row["n"]), row["ci95"])
