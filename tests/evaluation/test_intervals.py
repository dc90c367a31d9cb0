"""The written rule for intervals: its edges, its coverage, its behaviour where nothing can be known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata

from medlora.errors import MedloraError
from medlora.evaluation import auc, auc_covariance, choose_threshold, partial_auc, proportion
from medlora.evaluation.discrimination import auc_interval, newcombe_interval
from medlora.evaluation.evaluating import mean_auc


def test_rule_at_its_edges():
    """Of the smaller class on the wrong side: logit from six, the score interval from three, method 5 below."""
    assert auc_interval(0.94, 1e-4, 100, 400).method == "logit-DeLong"
    assert auc_interval(0.9401, 1e-4, 100, 400).method == "Wilson-DeLong at effective n 563.1"
    assert auc_interval(0.97, 1e-4, 100, 400).method.startswith("Wilson-DeLong")
    assert auc_interval(0.9701, 1e-4, 100, 400).method == "Newcombe method 5, variance scaled to DeLong's"
    assert auc_interval(0.06, 1e-4, 100, 400).method == "logit-DeLong"
    assert auc_interval(0.0599, 1e-4, 100, 400).method.startswith("Wilson")
    assert auc_interval(0.0299, 1e-4, 100, 400).method.startswith("Newcombe")
    assert auc_interval(0.94, 1e-4, 400, 99).method.startswith("Wilson")
    assert auc_interval(0.8, 0.0, 100, 400).method == "Newcombe method 5"
    # Counted in patients, where they have several cases.
    many = auc_interval(0.94, 1e-4, 300, 400, patients=(100, 120), independent_variance=5e-5)
    assert many.method == "logit-Obuchowski"
    fewer = auc_interval(0.94, 1e-4, 300, 400, patients=(99, 120), independent_variance=5e-5)
    assert fewer.method == "Wilson-Obuchowski at effective n 564"
    few = auc_interval(0.97, 1e-4, 300, 400, patients=(99, 120), independent_variance=5e-5)
    assert few.method == "Newcombe method 5 at effective 150+/200−, variance scaled to Obuchowski's"


def test_score_interval_solves_its_equation():
    """|A − t| = z·√(V·t(1 − t)/(A(1 − A))): the variance seen, moved along a proportion's."""
    found = auc_interval(0.93, 4e-4, 60, 200)
    assert found.method.startswith("Wilson-DeLong")
    for t in (found.low, found.high):
        assert abs(0.93 - t) == pytest.approx(1.959963984540054 * np.sqrt(4e-4 * t * (1 - t) / (0.93 * 0.07)), rel=1e-9)


def test_perfect_separation_is_method_5_as_published():
    y, s = np.repeat([1, 0], [10, 40]), np.repeat([0.9, 0.1], [10, 40])
    found = auc(y, s)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.875069715598, abs=1e-10)
    assert found.method == "Newcombe method 5"
    assert auc(y, -s).value == 0.0
    assert auc(y, -s).high == pytest.approx(1 - found.low, abs=1e-12)
    # The same separation in ten patients of five cases each says less than in fifty patients.
    assert auc(y, s, np.arange(50) // 5).low < found.low


def test_constant_scores():
    found = auc([0, 1] * 20, np.ones(40))
    assert found.value == 0.5
    assert found.method == "Newcombe method 5"
    assert found.low < 0.4
    assert found.high > 0.6


def test_no_interval_from_one_patient():
    found = auc([1, 1, 0, 0, 0], [0.9, 0.8, 0.1, 0.85, 0.2], ["a", "a", "b", "c", "d"])
    assert found.value == pytest.approx(5 / 6)
    assert (found.low, found.high) == (None, None)
    assert "every positive case is of one patient" in found.method


@pytest.mark.parametrize(
    ("y", "s", "said"),
    [
        ([1, 1], [0.1, 0.2], "2 positive and 0 negative"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "neither 0 nor 1"),
        ([0, 1], [0.1, np.nan], "1 of 2 scores are NaN or infinite, the first at position 1"),
        ([0, 1], [0.1, np.inf], "NaN or infinite"),
        ([0, 1, 1], [0.1, 0.2], "one label per row"),
    ],
)
def test_refused(y, s, said):
    with pytest.raises(MedloraError, match=said):
        auc(y, s)


def test_newcombe_solves_its_equation():
    for a, m, n in ((0.9, 12, 30), (0.6, 5, 5), (0.999, 50, 20)):
        for t in newcombe_interval(a, m, n):
            h = (m + n) / 2 - 1
            variance = t * (1 - t) * (1 + h * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)
            assert abs(a - t) == pytest.approx(1.959963984540054 * np.sqrt(variance), abs=1e-9)


def binormal(rng, m, n, area):
    y = np.repeat([True, False], [m, n])
    return y, rng.normal(size=m + n) + y * np.sqrt(2) * ndtri(area)


@pytest.mark.parametrize(("m", "n", "area"), [(10, 40, 0.95), (10, 40, 0.99), (20, 80, 0.85), (100, 400, 0.95)])
def test_coverage_of_independent_cases(m, n, area):
    """400 studies: 93.0 to 98.5 % give or take three Monte Carlo standard errors (the script has 2,000)."""
    rng = np.random.default_rng(1)
    found = [auc(*binormal(rng, m, n, area)) for _ in range(400)]
    covered = np.mean([e.low <= area <= e.high for e in found])
    assert 0.93 - 0.035 <= covered <= 0.985 + 0.015


def test_coverage_of_patients_with_several_cases():
    """60 patients with about 3 lesions, disease and score both running in patients: the naive interval covers 80 %."""
    rng = np.random.default_rng(2)
    area, covered, naive, sensitive = 0.85, 0, 0, 0
    shift = 2 * ndtri(area)
    true_sensitivity = 0.8
    threshold = shift - np.sqrt(2) * ndtri(true_sensitivity)
    for _ in range(400):
        who = np.repeat(np.arange(60), 1 + rng.poisson(2, 60))
        y = (rng.random(60) < 0.4)[who]
        s = rng.normal(size=60)[who] + rng.normal(size=len(who)) + shift * y
        found, wrong = auc(y, s, who), auc(y, s)
        covered += found.low <= area <= found.high
        naive += wrong.low <= area <= wrong.high
        share = proportion(s >= threshold, y, who)
        sensitive += share.low <= true_sensitivity <= share.high
    assert covered / 400 >= 0.92
    assert sensitive / 400 >= 0.91
    assert naive / 400 < 0.88


def bootstrap_se(statistic, who, draws=1500):
    """Standard error by drawing whole patients: another road to the same number."""
    rng = np.random.default_rng(3)
    patients = np.unique(who)
    rows = {p: np.flatnonzero(who == p) for p in patients}
    values = []
    for _ in range(draws):
        take = np.concatenate([rows[p] for p in rng.choice(patients, len(patients))])
        values.append(statistic(take))
    return np.nanstd(values)


def plain_auc(y, s):
    """Mann and Whitney's U from ranks."""
    m = y.sum()
    return (rankdata(s)[y].sum() - m * (m + 1) / 2) / (m * (len(y) - m))


def test_mean_over_classes_and_over_folds_against_the_bootstrap():
    rng = np.random.default_rng(4)
    n = 240
    who = rng.integers(0, 90, n)
    label = rng.integers(0, 3, n)
    s = rng.normal(size=(n, 3)) + np.eye(3)[label] + rng.normal(size=90)[who, None] * [1, -1, 0]
    y = np.eye(3)[label] == 1
    codes = np.unique(who, return_inverse=True)[1]
    macro = mean_auc(y, s, np.zeros(n, dtype=int), codes)
    assert macro.value == pytest.approx(np.mean([plain_auc(y[:, j], s[:, j]) for j in range(3)]))
    boot = bootstrap_se(lambda i: np.mean([plain_auc(y[i, j], s[i, j]) for j in range(3)]), who, 400)
    assert macro.se == pytest.approx(boot, rel=0.12)

    fold = who % 3  # patients stay within folds; each fold's model has its own level, which pooling would mix
    t = s[:, 0] + 3 * fold
    folds = mean_auc(y[:, :1], t[:, None], fold, codes, what="classes")
    assert folds.value == pytest.approx(np.mean([plain_auc(y[fold == f, 0], t[fold == f]) for f in range(3)]))
    assert folds.value > plain_auc(y[:, 0], t) + 0.03

    def mean_of_folds(i):
        return np.mean([plain_auc(y[i, 0][fold[i] == f], t[i][fold[i] == f]) for f in range(3)])

    boot = bootstrap_se(mean_of_folds, who, 400)
    assert folds.se == pytest.approx(boot, rel=0.15)
    assert "3 trainings" in folds.method


def test_one_case_per_patient_is_delong():
    rng = np.random.default_rng(5)
    y, s = binormal(rng, 30, 50, 0.8)
    scores = np.column_stack([s, s + rng.normal(size=80)])
    areas, cov = auc_covariance(y, scores)
    again, clustered = auc_covariance(y, scores, np.arange(80), np.ones((80, 2), dtype=bool))
    np.testing.assert_allclose(again, areas, rtol=1e-13)
    np.testing.assert_allclose(clustered, cov, rtol=1e-12)


def test_partial_area_against_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(6)
    y, s = binormal(rng, 60, 90, 0.8)
    s = np.round(s, 1)  # ties
    for specificity in (0.9, 0.75, 0.0):
        found = partial_auc(y, s, min_specificity=specificity, standardised=True, draws=300)
        assert found.value == pytest.approx(roc_auc_score(y, s, max_fpr=1 - specificity), abs=1e-12)
        assert found.low < found.value < found.high
    raw = partial_auc(y, s, min_specificity=0.0, draws=300)
    assert raw.value == pytest.approx(roc_auc_score(y, s))
    wald = auc(y, s, method="wald")
    assert raw.low == pytest.approx(wald.low, abs=0.02)


def test_effective_n_where_all_are_right():
    """Eight patients of ten cases each, all right, tell what eight cases tell."""
    who = np.repeat(np.arange(8), 10)
    assert proportion(np.ones(80), np.ones(80), who).low == pytest.approx(proportion(np.ones(8), np.ones(8)).low)
    assert proportion([], []).value is None


def test_thresholds_by_rule():
    y = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1])
    s = np.array([0.05, 0.1, 0.2, 0.3, 0.35, 0.6, 0.7, 0.8, 0.9, 0.95])

    def at(rule):
        point = choose_threshold(y, s, rule)
        called = s >= point.value
        return point.value, called[y == 1].mean(), (~called)[y == 0].mean()

    assert at("youden") == (pytest.approx(0.325), 1.0, 0.8)
    assert at("sensitivity>=0.8") == (pytest.approx(0.65), 0.8, 1.0)
    assert at("sensitivity>=0.81")[1:] == (1.0, 0.8)
    assert at("specificity>=0.8") == (pytest.approx(0.325), 1.0, 0.8)
    assert at("specificity>=1")[1:] == (0.8, 1.0)
    assert at("cost:5")[1:] == (1.0, 0.8)  # a miss is dear
    assert at("cost:0.1")[1:] == (0.8, 1.0)
    assert at(0.5)[0] == 0.5
    for rule in ("best", "sensitivity>=2", "cost:x"):
        with pytest.raises(MedloraError, match="unknown rule"):
            choose_threshold(y, s, rule)
    flat = choose_threshold(y, np.full(10, 0.5), "sensitivity>=0.9")
    assert flat.value == 0.5
