"""Predictions of the same cases, from several processes or several models, brought together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medlora.errors import MedloraError
from medlora.evaluation.table import Predictions, check_predictions, listed

# Another batch may move a float32 probability by its last bits; more than this is another model.
SAME = 1e-4


def gather(parts: Sequence[pd.DataFrame], expected: Sequence[str] | None = None) -> pd.DataFrame:
    """Join the predictions of several processes into what one process would have given.

    A sampler that pads the last batch hands some cases to two processes. Every case is kept once, by ``case_id``
    (else ``scan_id``), so that no figure counts it twice.

    Args:
        parts: one table for each process, in the order of their ranks.
        expected: all cases in the order wanted; None to sort by case.

    Returns:
        One row per case; of copies the row of the lowest rank.

    Raises:
        MedloraError: copies of a case disagree, cases are missing, or there are others than expected.
    """
    table = pd.concat(list(parts), ignore_index=True)
    key = next((c for c in ("case_id", "scan_id") if c in table.columns), None)
    if key is None:
        raise MedloraError("predictions of several processes cannot be joined without a column case_id or scan_id")
    numeric = [c for c in table.columns if str(c).startswith("p_") or c == "score"]
    copies = table[table.duplicated(key, keep=False)]
    if len(copies):
        spread = copies.groupby(key)[numeric].agg(np.ptp).to_numpy(dtype=float)
        labels = [c for c in table.columns if c == "y" or str(c).startswith("y_")]
        unlike = int((spread > SAME).any(axis=1).sum()) + int(
            (copies.groupby(key)[labels].nunique() > 1).any(axis=1).sum()
        )
        if unlike:
            raise MedloraError(
                f"{unlike} cases have copies that disagree (by up to {np.nanmax(spread):.3g})",
                "the processes must hold the same weights, and evaluation mode must be on",
            )
    table = table.drop_duplicates(key, keep="first")
    if expected is None:
        return table.sort_values(key, kind="stable").reset_index(drop=True)
    wanted, have = set(expected), set(table[key])
    if wanted != have:
        raise MedloraError(
            f"{len(wanted - have)} of {len(wanted)} cases have no prediction, {len(have - wanted)} were not asked for"
        )
    return table.set_index(key).loc[list(expected)].reset_index()[list(table.columns)]


def with_covariates(predictions: pd.DataFrame, covariates: pd.DataFrame) -> pd.DataFrame:
    """Add columns (sex, age, manufacturer, …) to predictions, by ``case_id`` (else ``scan_id``).

    Columns that the predictions have already are not replaced.

    Raises:
        MedloraError: no column in common, a case twice in ``covariates``, or cases without a row there.
    """
    key = next((c for c in ("case_id", "scan_id") if c in predictions.columns and c in covariates.columns), None)
    if key is None:
        raise MedloraError("covariates cannot be joined: predictions and covariates share neither case_id nor scan_id")
    added = [c for c in covariates.columns if c not in predictions.columns]
    other = covariates[[key, *added]].assign(**{key: covariates[key].astype(str)})
    if other[key].duplicated().any():
        raise MedloraError(f"{int(other[key].duplicated().sum())} rows of the covariates repeat a {key}")
    keys = predictions[key].astype(str)
    missing = ~keys.isin(other[key])
    if missing.any():
        raise MedloraError(f"{int(missing.sum())} of {len(keys)} cases have no row in the covariates")
    return predictions.assign(
        **other.set_index(key).loc[keys].reset_index(drop=True).set_axis(predictions.index).to_dict("series")
    )


def same_cases(checked: Predictions, other: pd.DataFrame, name: str) -> Predictions:
    """Another model's predictions, in the order of ``checked``.

    Raises:
        MedloraError: other cases, other labels, other classes.
    """
    theirs = check_predictions(other, positive=checked.positive if checked.kind == "binary" else None)
    if theirs.kind != checked.kind or set(theirs.classes) != set(checked.classes):
        raise MedloraError(f"{name} answers {listed(theirs.classes)}, the model {listed(checked.classes)}")
    if len(set(theirs.case)) < theirs.n or len(set(checked.case)) < checked.n:
        raise MedloraError(f"{name} cannot be compared case by case: cases repeat over seeds or folds")
    place = {c: i for i, c in enumerate(theirs.case)}
    missing = [c for c in checked.case if c not in place]
    if missing or theirs.n != checked.n:
        raise MedloraError(
            f"{name} is not on the same cases: {len(missing)} of {checked.n} are missing, "
            f"{theirs.n - checked.n + len(missing)} are additional",
            "compare predictions of the same split of the same cohort",
        )
    order = np.array([place[c] for c in checked.case])
    columns = [theirs.classes.index(c) for c in checked.classes]
    y = (
        theirs.y[order][:, columns]
        if checked.kind == "multilabel"
        else np.array([checked.classes.index(theirs.classes[i]) for i in theirs.y[order]])
    )
    if not np.array_equal(y, checked.y, equal_nan=checked.kind == "multilabel"):
        raise MedloraError(f"{name} has other labels than the model for the same cases", "evaluate both on one cohort")
    frame = theirs.frame.iloc[order].reset_index(drop=True)
    return Predictions(
        checked.kind, checked.classes, y, theirs.p[order][:, columns], theirs.probability, checked.case,
        checked.patients, checked.patient_count, checked.patient_known, frame, theirs.notes,
    )  # fmt: skip
