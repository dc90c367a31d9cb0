from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from medlora.cohorts import telling
from medlora.cohorts.telling import folds_of, holm, tell


def drawn(seed=0, patients=60, sizes=(1, 2, 3), effect=0.0, columns=12):
    """Columns, labels and patients; every third patient has cases of both labels."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), rng.choice(sizes, patients))
    positive = (group % 2 == 0) ^ ((group % 3 == 0) & (rng.random(len(group)) < 0.5))
    x = rng.normal(size=(patients, columns))[group] + 0.3 * rng.normal(size=(len(group), columns))
    x[:, 0] += effect * positive
    return x / np.sqrt(x.var(axis=0).sum()), positive, group


def by_hand(x, positive, fold):
    """The same AUC by scikit-learn, fold by fold."""
    concordant = pairs = 0.0
    for number in np.unique(fold):
        test = fold == number
        scores = Ridge(telling.RIDGE).fit(x[~test], positive[~test].astype(float)).predict(x[test])
        n = positive[test].sum() * (~positive[test]).sum()
        concordant += n * roc_auc_score(positive[test], scores)
        pairs += n
    return concordant / pairs


def test_the_auc_is_that_of_ridge_regression():
    for effect in (0.0, 1.5):
        x, positive, group = drawn(effect=effect)
        fold = folds_of(positive, group)
        assert tell(x, positive, group, fold, 1, 2).auc == pytest.approx(by_hand(x, positive, fold), abs=1e-12)


def test_patients_are_in_one_fold_and_folds_have_their_share():
    _, positive, group = drawn(patients=100, sizes=(1,))
    fold = folds_of(positive, group)
    assert np.ptp([positive[fold == number].sum() for number in range(5)]) <= 1
    _, positive, group = drawn()
    fold = folds_of(positive, group)
    assert all(len(set(fold[group == patient])) == 1 for patient in range(60))
    assert folds_of(group < 4, group) is None and folds_of(group >= 4, group) is None


def test_the_interval_is_a_jackknife_of_refitted_classifiers():
    x, positive, group = drawn(effect=1.0)
    fold = folds_of(positive, group)
    found = tell(x, positive, group, fold, 1, 2)
    kept = [group % 20 != block for block in range(20)]
    without = np.array([by_hand(x[rows], positive[rows], fold[rows]) for rows in kept])
    variance = 19 / 20 * np.sum((without - without.mean()) ** 2)
    n, z = found.auc * (1 - found.auc) / variance, 2.0930241  # Student's t, 19 degrees of freedom
    for bound in (found.low, found.high):  # Wilson: the bounds are where the AUC is just z standard errors away
        assert (found.auc - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / n, rel=1e-5)
    assert found.low < found.auc < found.high


def test_perfect_columns_have_an_interval_all_the_same():
    positive, group = np.arange(40) % 2 == 0, np.arange(40)
    found = tell(positive[:, None].astype(float), positive, group, folds_of(positive, group), 999, 0.6)
    assert found.auc == 1 == pytest.approx(found.high) and found.low == pytest.approx(
        20 / (20 + 2.0930241**2), abs=1e-6
    )
    assert found.p == pytest.approx(0.001)


def test_columns_that_say_nothing_of_a_test_fold_give_a_half():
    positive, group = np.arange(40) % 2 == 0, np.arange(40)
    found = tell(np.zeros((40, 1)), positive, group, folds_of(positive, group), 99, 0.6)
    assert (found.auc, found.p) == (0.5, None) and found.low < 0.5 < found.high


def test_labels_change_places_between_patients_of_a_fold():
    _, _, group = drawn()
    positive = group % 2 == 0
    fold = folds_of(positive, group)
    labels = telling._permuted(np.random.default_rng(0), positive, group, fold, 400)
    of_patient = np.array([labels[group == patient].mean(axis=0) for patient in range(60)])
    assert set(np.unique(of_patient)) == {0, 1}  # a patient's cases keep together
    fold_of = fold[np.searchsorted(group, np.arange(60))]
    for number in range(5):
        there = fold_of == number
        assert (of_patient[there].sum(axis=0) == (np.arange(60)[there] % 2 == 0).sum()).all()
        assert np.abs(of_patient[there].mean(axis=1) - (np.arange(60)[there] % 2 == 0).mean()).max() < 0.1


def test_mixed_labels_stay_mixed():
    """Patients with a case of each label: places are changed inside of a patient, and none gets two of one label."""
    group, positive = np.repeat(np.arange(20), 2), np.arange(40) % 2 == 0
    labels = telling._permuted(np.random.default_rng(0), positive, group, folds_of(positive, group), 100)
    assert (labels[::2] != labels[1::2]).all()
    assert 0.3 < labels[0].mean() < 0.7
    x = positive[:, None].astype(float)  # each patient's scans are of two sources, and the label follows them
    assert tell(x, positive, group, folds_of(positive, group), 999, 0.6).p == pytest.approx(0.001)


def test_the_test_is_that_of_refitting_for_each_permutation():
    x, positive, group = drawn(8, effect=0.8)
    fold = folds_of(positive, group)
    found = tell(x, positive, group, fold, 999, 0)
    rng, reached = np.random.default_rng(1), 0
    for labels in telling._permuted(rng, positive, group, fold, 100).T:
        reached += by_hand(x, labels, fold) >= found.auc
    assert 0.05 < found.p < 0.3
    assert found.p == pytest.approx((reached + 1) / 101, abs=0.08)


def test_p_values_of_noise_are_even():
    """Without relation p is below a as often as a says, with patients of several cases, too."""
    p = []
    for seed in range(80):
        x, positive, group = drawn(seed + 1000, patients=40, columns=6)
        p.append(tell(x, positive, group, folds_of(positive, group), 99, 0).p)
    p = np.array(p)
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 80))


def test_holm_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        p = rng.random(n) ** 4
        assert holm(list(p)) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([0.01, None, 0.04]) == pytest.approx([0.03, None, 0.08])  # what was not asked counts as 1
    assert holm([]) == []
