"""What the source check sees of each case, as columns of numbers that know no label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

MOST_VALUES = 20  # of a field; the commonest
FEWEST_CASES = 5  # of a combination of fields, below which it tells of cases, not of a source
BINS = 4  # of numbers that take more values than that
NUMBER = 3**0.5, 0.5  # weights of a number's rank and of its values: a field has then a variance of at most 0.5
MOST_COLUMNS = 128


def of_fields(fields: pd.DataFrame) -> np.ndarray:
    """Fields of text or numbers: a column for each value, for the rank of numbers, and for common combinations.

    What a value means only beside another (a maker's own matrix size) is seen in the combinations of all fields.

    Args:
        fields: a row for each case, a column for each field; missing values are a value of their own.

    Returns:
        float64 (N, D), scaled alike whatever their number; D is 0 where nothing varies.
    """
    columns, codes = [], []
    for name in fields.columns:
        values = fields[name].reset_index(drop=True)
        if values.nunique(dropna=False) < 2:
            continue
        weight = 1.0
        if pd.api.types.is_numeric_dtype(values):
            numbers = pd.Series(values.to_numpy(dtype=float, na_value=np.nan))
            ranks = numbers.rank(pct=True)
            of_rank, weight = NUMBER
            columns.append(of_rank * (ranks - ranks.mean()).fillna(0).to_numpy()[:, None])
            values = np.ceil(ranks * BINS) if numbers.nunique() > MOST_VALUES else numbers
        text = values.astype("string").fillna("")
        codes.append(pd.factorize(text)[0])
        columns.append(weight * _each(text, 1))
    if len(codes) > 1:
        together = np.unique(np.column_stack(codes), axis=0, return_inverse=True)[1]
        columns.append(_each(pd.Series(together.ravel()), FEWEST_CASES))
    return _compressed(np.column_stack([np.empty((len(fields), 0)), *columns]))


def of_borders(small: Sequence[np.ndarray | None]) -> np.ndarray:
    """The outermost pixels of each 32 × 32 image, black where there is none; float64 (N, D), D 0 where nothing varies.

    Args:
        small: one image in 0..1 per case, or None.
    """
    if not any(image is not None for image in small):
        return np.empty((len(small), 0))
    side = next(image.shape[0] for image in small if image is not None)
    outer = np.ones((side, side), dtype=bool)
    outer[1:-1, 1:-1] = False
    pixels = np.stack([np.zeros(outer.sum()) if image is None else image[outer] for image in small]).astype(float)
    pixels = pixels[:, np.ptp(pixels, axis=0) > 0]
    return _compressed(pixels / pixels.std(axis=0))


def _each(values: pd.Series, fewest: int) -> np.ndarray:
    """A column, 1 or 0, for each of the commonest values that ``fewest`` cases have at least."""
    counts = values.value_counts()
    common = counts.index[counts >= fewest][:MOST_VALUES]
    return np.array([values == value for value in common], dtype=float).reshape(len(common), len(values)).T


def _compressed(columns: np.ndarray) -> np.ndarray:
    """The columns, centred, with a total variance of 1, and where they are many their principal components."""
    columns = columns - columns.mean(axis=0)
    total = columns.var(axis=0).sum()
    if not total > 0:
        return np.empty((len(columns), 0))
    columns /= np.sqrt(total)
    if columns.shape[1] <= MOST_COLUMNS:
        return columns
    _, axes = np.linalg.eigh(columns.T @ columns)
    return columns @ axes[:, : -MOST_COLUMNS - 1 : -1]
