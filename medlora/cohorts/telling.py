"""How well some columns tell two sides apart, by patient: the AUC, what it would be of other patients, and chance.

The classifier is ridge regression on the labels (in two classes that is regularised linear discriminant analysis:
Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed., ex. 4.2). Its scores are a matrix times
the labels, so that a whole cross-validation can be done again for each of a thousand permutations, and for each part
of the patients left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5
RIDGE = 1.0  # where all columns together have a variance of 1, so that little is learned of a few cases
BLOCKS = 20  # of patients, left out in turn
LEVEL = 0.95
BATCH = 200  # permutations at a time
ENOUGH = 20  # permutations that reach the AUC: by then it is clear that chance does


@dataclass(frozen=True)
class Told:
    """How well the columns tell the sides apart.

    Attributes:
        auc: of the scores of cross-validation, those of one fold compared with each other.
        low, high: its 95 % interval.
        p: chance that labels without any relation to the columns reach this AUC; None where that was not asked.
    """

    auc: float
    low: float
    high: float
    p: float | None


def folds_of(positive: np.ndarray, group: np.ndarray) -> np.ndarray | None:
    """The fold of each case, stratified; None where a side has fewer groups of patients than there are folds.

    Args:
        positive: which cases are on one side, bool (N,).
        group: the number of each case's patient, or of patients who belong together, int (N,).
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if min(len(set(group[positive])), len(set(group[~positive]))) < FOLDS:
        return None
    fold = np.empty(len(group), dtype=int)
    parts = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(group, positive, group)
    for number, (_, rows) in enumerate(parts):
        fold[rows] = number
    return fold


def tell(
    columns: np.ndarray, positive: np.ndarray, group: np.ndarray, fold: np.ndarray, draws: int, above: float
) -> Told:
    """How well ``columns`` tell the positive cases from the others.

    Args:
        columns: float64 (N, D).
        positive, group: see `folds_of`.
        fold: of each case, as `folds_of` gives it.
        draws: most permutations of the test.
        above: the AUC from which on it is tested against chance.
    """
    fits = _Fits(columns, fold)
    auc = float(fits.auc(positive[:, None])[0])
    low, high = _interval(fits, auc, positive, group)
    p = _by_chance(fits, auc, positive, group, fold, draws) if auc > above else None
    return Told(auc, low, high, p)


class _Fits:
    """Ridge regression with an intercept, fitted in each of the folds on the others."""

    def __init__(self, columns: np.ndarray, fold: np.ndarray) -> None:
        self.design = np.column_stack([np.ones(len(columns)), columns])
        self.penalty = np.diag([0.0, *[RIDGE] * columns.shape[1]])
        self.parts = [np.flatnonzero(fold == number) for number in range(fold.max() + 1)]
        self.grams = [self.design[rows].T @ self.design[rows] for rows in self.parts]
        whole = np.sum(self.grams, axis=0) + self.penalty
        self.inverse = [np.linalg.inv(whole - gram) for gram in self.grams]

    def auc(self, labels: np.ndarray) -> np.ndarray:
        """The AUC of each column of labels, bool (N, B), with its own fits; 0.5 where there is nothing to compare."""
        sums = [self.design[rows].T @ labels[rows].astype(float) for rows in self.parts]
        whole = np.sum(sums, axis=0)
        found = np.zeros((2, labels.shape[1]))
        for rows, part, inverse in zip(self.parts, sums, self.inverse, strict=True):
            found += _concordant(self.design[rows] @ (inverse @ (whole - part)), labels[rows])
        return _share(found)

    def auc_without(self, out: np.ndarray, positive: np.ndarray) -> float:
        """The AUC where the cases of ``out``, bool (N,), are in no fold, fitted again."""
        gone = [rows[out[rows]] for rows in self.parts]
        grams = [gram - self.design[rows].T @ self.design[rows] for gram, rows in zip(self.grams, gone, strict=True)]
        kept = [rows[~out[rows]] for rows in self.parts]
        sums = [self.design[rows].T @ positive[rows].astype(float) for rows in kept]
        gram, whole = np.sum(grams, axis=0) + self.penalty, np.sum(sums, axis=0)
        found = np.zeros((2, 1))
        for rows, own, part in zip(kept, grams, sums, strict=True):
            scores = self.design[rows] @ np.linalg.solve(gram - own, whole - part)
            found += _concordant(scores[:, None], positive[rows, None])
        return float(_share(found)[0])


def _concordant(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Pairs in which the positive case has the higher score (equal: half), and all pairs, of each column; (2, B)."""
    from scipy.stats import rankdata

    # equal cases must have equal scores: what the order of sums adds in the last digits is no difference
    ranks = rankdata(np.round(scores, 9), axis=0)
    n = positive.sum(axis=0)
    return np.stack([(ranks * positive).sum(axis=0) - n * (n + 1) / 2, n * (len(positive) - n)])


def _share(found: np.ndarray) -> np.ndarray:
    return np.where(found[1] > 0, found[0] / np.maximum(found[1], 1), 0.5)


def _interval(fits: _Fits, auc: float, positive: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """A delete-a-group jackknife over patients, with all fits done again, in the form of Wilson's interval.

    Draws of a bootstrap would have to be fitted again, too, and would have patients several times; that of scores
    which are kept is too narrow, since those of different folds depend on each other (Bates, Hastie & Tibshirani 2023,
    doi 10.1080/01621459.2023.2197686). A jackknife's variance is on average not below the true one (Efron & Stein 1981,
    doi 10.1214/aos/1176345462). Where the AUC is 0 or 1 the interval is that of as many throws of a coin as there are
    patients on the smaller side.
    """
    from scipy.special import stdtrit

    blocks = min(BLOCKS, int(group.max()) + 1)
    without = np.array([fits.auc_without(group % blocks == block, positive) for block in range(blocks)])
    variance = (blocks - 1) / blocks * np.sum((without - without.mean()) ** 2)
    fewest = min(len(set(group[positive])), len(set(group[~positive])))
    n = auc * (1 - auc) / variance if variance > 0 and 0 < auc < 1 else fewest  # of as many throws of a coin
    square = stdtrit(blocks - 1, (1 + LEVEL) / 2) ** 2
    middle, half = auc + square / (2 * n), np.sqrt(square * (auc * (1 - auc) / n + square / (4 * n**2)))
    low, high = np.clip(np.array([middle - half, middle + half]) / (1 + square / n), 0, 1)
    return float(low), float(high)


def _by_chance(fits: _Fits, auc: float, positive: np.ndarray, group: np.ndarray, fold: np.ndarray, draws: int) -> float:
    """p value of a permutation of the labels among the patients of each fold, the whole cross-validation done again.

    The first test of Ojala & Garriga 2010 (JMLR 11:1833). Folds are stratified by label, so that labels change places
    inside of them: every fold keeps its share, and given the folds every such permutation is as likely as another.
    Where chance reaches the AUC often, it ends early (Besag & Clifford 1991, doi 10.1093/biomet/78.2.301).
    """
    rng = np.random.default_rng(0)
    reached = done = 0
    while done < draws:
        size = min(BATCH, draws - done)
        hits = np.cumsum(fits.auc(_permuted(rng, positive, group, fold, size)) >= auc - 1e-9) + reached
        if hits[-1] >= ENOUGH:
            return float(ENOUGH / (done + 1 + np.argmax(hits >= ENOUGH)))
        reached, done = int(hits[-1]), done + size
    return (reached + 1) / (draws + 1)


def _permuted(
    rng: np.random.Generator, positive: np.ndarray, group: np.ndarray, fold: np.ndarray, size: int
) -> np.ndarray:
    """Labels that changed places between the patients of a fold, bool (N, ``size``).

    A patient's labels go together, in an order drawn anew. To one with more cases they come again from the beginning,
    to one with fewer cases some of them.
    """
    n, cases = np.bincount(group), np.argsort(group, kind="stable")
    starts = np.cumsum(n) - n
    turn = np.arange(len(group)) - starts[group[cases]]  # the how manieth case of its patient
    fold_of = fold[cases[starts]]
    taking = np.argsort(fold_of, kind="stable")
    giver = np.empty((size, len(n)), dtype=int)
    giver[:, taking] = np.argsort(fold_of + rng.random((size, len(n))), axis=1)
    order = np.argsort(group + rng.random((size, len(group))), axis=1)
    of = giver[:, group[cases]]
    labels = np.empty((size, len(group)), dtype=bool)
    labels[:, cases] = positive[np.take_along_axis(order, starts[of] + turn % n[of], axis=1)]
    return labels.T


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979, Scand. J. Statist. 6:65); what was not asked counts as 1."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for turn, (p, i) in enumerate(order):
        corrected[i] = highest = max(highest, min(1.0, p * (len(p_values) - turn)))
    return corrected
