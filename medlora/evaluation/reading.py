"""Anybody's predictions CSV, brought into the form of ``medlora predict``."""

from __future__ import annotations

import os

import pandas as pd

from medlora.errors import MedloraError
from medlora.evaluation.table import check_predictions, listed, numbers, positive_of, values_said
from medlora.tables import read_table


def read_predictions(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    score_column: str | None = None,
    positive: str | None = None,
) -> pd.DataFrame:
    """Read and check a predictions CSV.

    Args:
        path: CSV with ``y`` and ``p_CLASS…`` (multilabel: ``y_CLASS`` and ``p_CLASS``), or any CSV with a label and
            a score column that are named here. Read as `medlora.tables.read_table` does: comma,
            semicolon, tab or bar; UTF-8, UTF-16, cp932 or Latin-1;
            decimal commas where the comma does not divide cells.
        label_column: column with the true class, instead of ``y``.
        score_column: column with one score, higher for the positive class, instead of ``p_CLASS…``.
        positive: name of the positive class.

    Returns:
        The table, identifiers as text and probabilities as float64, in the form of ``medlora predict``: ``case_id``,
        ``y``, ``p_CLASS…`` and whatever else the file had.

    Raises:
        MedloraError: the file cannot be read, a column is missing, or the predictions cannot be used; the message
            names counts and rows.
    """
    frame = _read_csv(path, score_column)
    frame = _rename(frame, label_column, score_column, positive)
    check_predictions(frame, positive=positive)
    return frame


def _read_csv(path: str | os.PathLike[str], score_column: str | None) -> pd.DataFrame:
    table = read_table(path, "predictions")
    frame = table.frame
    if table.delimiter != ",":  # with a comma between cells, one inside a number may stand for thousands
        numeric = [c for c in frame.columns if c.startswith("p_") or c in ("score", score_column)]
        frame[numeric] = frame[numeric].apply(lambda c: c.str.replace(r"^(-?\d+),(\d+)$", r"\1.\2", regex=True))
    return frame


def _rename(
    frame: pd.DataFrame, label_column: str | None, score_column: str | None, positive: str | None
) -> pd.DataFrame:
    """The columns named by the user under the names of ``medlora predict``."""
    for column, option in ((label_column, "--label-column"), (score_column, "--score-column")):
        if column is not None and column not in frame:
            raise MedloraError(f"there is no column {column!r}; there are {listed(frame)}", f"correct {option}")
    if label_column is not None and label_column != "y":
        frame = frame.drop(columns="y", errors="ignore").rename(columns={label_column: "y"})
    if score_column is None:
        return frame
    frame = frame.rename(columns={score_column: "score"})
    frame = frame.drop(columns=[c for c in frame.columns if c.startswith("p_")])
    if "y" not in frame:
        return frame
    found = sorted(set(frame["y"]) - {""})
    name = positive if positive is not None else positive_of(found)
    if name not in found:
        raise MedloraError(
            f"no row has the positive class {name!r}; y holds {values_said(found)}", "correct --positive"
        )
    if len(found) != 2:
        raise MedloraError(
            f"one score column answers a question of two classes, but y holds {values_said(found)}",
            "keep two classes, or give one p_CLASS column for each",
        )
    negative = next(f for f in found if f != name)
    score = numbers(frame, "score")
    if ((score >= 0) & (score <= 1)).all():
        frame = frame.rename(columns={"score": f"p_{name}"})
        frame[f"p_{name}"] = score
        frame.insert(list(frame.columns).index(f"p_{name}"), f"p_{negative}", 1 - score)
    else:
        frame["score"] = score
    return frame
