"""Predictions: checked strictly; what is not understood is an error with rows, never a guess."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medlora.errors import MedloraError

# Rounding to three decimals over ten classes moves a row's sum by at most this much.
SUM_TOLERANCE = 0.005


@dataclass(frozen=True)
class Predictions:
    """Predictions that passed every check.

    Attributes:
        kind: "binary", "multiclass" or "multilabel".
        classes: class names; for binary the positive is the last.
        y: class number of every case, shape (n,); multilabel: 0, 1 or NaN (unknown), shape (n, classes).
        p: what the model gave for every class, shape (n, classes).
        probability: whether ``p`` are probabilities; raw scores allow discrimination only.
        case: names of the cases, shape (n,).
        patients: number of every case's patient, shape (n,).
        patient_count: how many patients.
        patient_known: whether the file named patients (else every row counts as its own).
        frame: all columns of the cases used, in the same order.
        notes: what the reader must be told (unlabelled rows left out, no patients named, …).
        unlabelled: rows left out because their label is not known.
    """

    kind: str
    classes: tuple[str, ...]
    y: NDArray
    p: NDArray[np.float64]
    probability: bool
    case: NDArray
    patients: NDArray[np.intp]
    patient_count: int
    patient_known: bool
    frame: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
    unlabelled: int = 0

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @property
    def clustered(self) -> bool:
        """Whether some patient has several rows."""
        return self.patient_count < self.n

    @property
    def groups(self) -> NDArray[np.intp] | None:
        """Patients for the statistics: None when every row is its own."""
        return self.patients if self.clustered else None

    @property
    def positive(self) -> str:
        """The positive class of a binary task."""
        return self.classes[-1]

    def truth(self, name: str) -> NDArray:
        """1 for a case of class ``name``, 0 for any other, NaN for unknown (multilabel only)."""
        j = self.classes.index(name)
        return self.y[:, j] if self.kind == "multilabel" else (self.y == j).astype(float)

    def score(self, name: str) -> NDArray[np.float64]:
        """What the model gave for class ``name``."""
        return self.p[:, self.classes.index(name)]


def rows(frame: pd.DataFrame, mask: NDArray[np.bool_], most: int = 5) -> str:
    """The rows of ``mask`` as a spreadsheet numbers them (the header is row 1): "rows 4, 9 and 3 more"."""
    found = np.flatnonzero(mask)
    at = [str(frame.index[i] if frame.index.name == "row" else i + 2) for i in found[:most]]
    rest = len(found) - len(at)
    said = ", ".join(at) + (f" and {rest} more" if rest > 0 else "")
    return f"row{'s' if len(found) > 1 else ''} {said} (the header is row 1)"


def listed(names: Iterable[object]) -> str:
    """Names in quotes, the first twelve of them."""
    items = [repr(str(n)) for n in names]
    return ", ".join(items[:12]) + (f" and {len(items) - 12} more" if len(items) > 12 else "") if items else "none"


def values_said(found: Iterable[object]) -> str:
    """Values of a column for a message; where there are many they may be identifiers and are only counted."""
    items = list(found)
    return listed(items) if len(items) <= 6 else f"{len(items)} different values"


def numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as float64; NaN, infinite and unreadable cells are errors."""
    cells = frame[column]
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        # Text in the wrong column may be a name: only what stands for "no number" is repeated.
        harmless = r"[-+]?(nan|inf|infinity|null|none|na|n/a|\?|-)?"
        seen = sorted({(str(c) or "empty") if re.fullmatch(harmless, str(c), re.I) else "text" for c in cells[bad]})
        raise MedloraError(
            f"{int(bad.sum())} of {len(values)} values of column {column!r} are not finite numbers "
            f"({', '.join(seen)}): {rows(frame, bad)}",
            "find out why the model gave no number for these cases; drop them only if the protocol says so",
        )
    return values


def positive_of(found: list[str]) -> str:
    """Which of two labels means positive, where that needs no guessing.

    Raises:
        MedloraError: the labels are not 0/1, false/true or no/yes.
    """
    for pair in ({"0", "1"}, {"0.0", "1.0"}, {"False", "True"}, {"false", "true"}, {"no", "yes"}):
        if set(found) == pair:
            return max(pair)
    raise MedloraError(f"which of {values_said(found)} is the positive class?", "name it with --positive")


def check_predictions(predictions: pd.DataFrame, *, positive: str | None = None) -> Predictions:
    """Check a table of predictions and bring it into the form that the statistics use.

    Args:
        predictions: columns as in `read_predictions`.
        positive: the positive class of two; by default the last ``p_`` column.

    Raises:
        MedloraError: no labels, no probabilities, unknown labels, duplicated cases, numbers that are not finite, not
            probabilities, do not sum to 1, or one class only.
    """
    frame = predictions if predictions.index.name == "row" else predictions.reset_index(drop=True)
    notes: list[str] = []
    frame = _answered(frame, notes)
    names = [str(c)[2:] for c in frame.columns if str(c).startswith("p_")]
    multilabel = [c for c in names if f"y_{c}" in frame.columns]
    if multilabel and "y" not in frame.columns:
        return _multilabel(frame, names, notes)
    if "y" not in frame.columns:
        raise MedloraError(
            f"there is no column 'y' with the true class; there are {listed(frame)}", "name it with --label-column"
        )
    labels = frame["y"].map(lambda v: "" if pd.isna(v) else str(v)).to_numpy(dtype=object)
    raw = not names and "score" in frame.columns
    if not names and not raw:
        raise MedloraError(f"there are no columns p_CLASS; there are {listed(frame)}", "name one with --score-column")
    if len(names) == 1 or raw:
        names, p, labels = _single(frame, names, labels, positive)
    else:
        p = np.column_stack([numbers(frame, f"p_{c}") for c in names])
    if not raw:
        _check_range(frame, p, names)
        sums = np.abs(p.sum(axis=1) - 1)
        off = sums > SUM_TOLERANCE
        if off.any():
            raise MedloraError(
                f"the probabilities of {int(off.sum())} of {len(p)} rows do not sum to 1 "
                f"(largest difference {sums.max():.3g}): {rows(frame, off)}",
                "give one p_CLASS column for every class; for findings that can occur together give y_CLASS columns",
            )
    if positive is not None and positive not in names:
        raise MedloraError(
            f"the positive class {positive!r} has no column; there are {listed(names)}", "correct --positive"
        )
    if positive is not None and len(names) > 2:
        raise MedloraError(
            f"a positive class is named, but there are {len(names)}: each is judged against the rest",
            "leave --positive out",
        )
    if len(names) == 2 and positive == names[0]:
        names, p = names[::-1], p[:, ::-1]
    y = _class_numbers(frame, labels, names)
    _check_cases(frame)
    _check_patients(frame, y >= 0)
    frame, y, p = _labelled(frame, y >= 0, notes, y, p)
    counts = np.bincount(y, minlength=len(names))
    if (counts > 0).sum() < 2:
        tally = ", ".join(f"{c} {n}" for n, c in zip(counts, names, strict=True))
        raise MedloraError(
            f"one class only among {len(y)} labelled cases: {tally}", "give cases of at least two classes"
        )
    empty = [c for c, n in zip(names, counts, strict=True) if n == 0]
    if empty:
        notes.append(f"No case of class {', '.join(empty)}: nothing can be said of it.")
    kind = "binary" if len(names) == 2 else "multiclass"
    return _finish(kind, names, y, p, not raw, frame, notes, len(predictions) - len(frame))


def _single(
    frame: pd.DataFrame, names: list[str], labels: NDArray, positive: str | None
) -> tuple[list[str], NDArray[np.float64], NDArray]:
    """One column answers for two classes: name the other."""
    found = sorted(set(labels) - {""})
    column = f"p_{names[0]}" if names else "score"
    value = numbers(frame, column)
    if names and names[0] not in found and set(found) <= {"0", "1"}:
        labels = np.where(labels == "1", names[0], np.where(labels == "0", f"not {names[0]}", labels))
        found = sorted(set(labels) - {""})
    name = names[0] if names else positive if positive is not None else positive_of(found)
    others = [f for f in found if f != name]
    if len(others) > 1:
        raise MedloraError(
            f"column {column!r} answers a question of two classes, but y holds {values_said(found)}",
            "keep two classes, or give one p_CLASS column for each",
        )
    other = others[0] if others else f"not {name}"
    first = 1 - value if names else -value
    return [other, name], np.column_stack([first, value]), labels


def _check_range(frame: pd.DataFrame, p: NDArray[np.float64], names: list[str]) -> None:
    outside = (p < -1e-9) | (p > 1 + 1e-9)
    if outside.any():
        first = names[int(np.flatnonzero(outside.any(axis=0))[0])]
        where: NDArray[np.bool_] = np.asarray(outside.any(axis=1))
        raise MedloraError(
            f"{int(where.sum())} of {len(p)} rows have a probability outside 0 to 1 (p_{first} for one; "
            f"from {p.min():.4g} to {p.max():.4g}): {rows(frame, where)}",
            "these look like raw scores: give probabilities, or name one column with --score-column",
        )


def _class_numbers(frame: pd.DataFrame, labels: NDArray, names: list[str]) -> NDArray[np.intp]:
    numbers = {name: i for i, name in enumerate(names)}
    plain = [re.sub(r"^(\d+)\.0+$", r"\1", str(v)) if v not in numbers else v for v in labels]
    y = np.array([numbers.get(v, -2 if v else -1) for v in plain], dtype=np.intp)
    unknown = y == -2
    if unknown.any():
        seen = sorted({str(v) for v in labels[unknown]})
        raise MedloraError(
            f"{int(unknown.sum())} of {len(y)} labels are no class that has a p_ column: {values_said(seen)} "
            f"(classes: {listed(names)}): {rows(frame, unknown)}",
            "spell y exactly as the p_CLASS columns do, or leave it empty where the truth is unknown",
        )
    return y


def _check_cases(frame: pd.DataFrame) -> None:
    """Every case once (once per seed and fold where there are such columns)."""
    name = next((c for c in ("case_id", "scan_id") if c in frame.columns), None)
    if name is None:
        repeated = [c for c in ("seed", "fold") if c in frame.columns]
        if repeated:
            raise MedloraError(f"there is a column {repeated[0]!r}, but no case_id to know a case by", "add case_id")
        return
    keys = [name, *[c for c in ("seed", "fold") if c in frame.columns]]
    empty = (frame[name].isna() | (frame[name].astype(str) == "")).to_numpy()
    if empty.any():
        raise MedloraError(
            f"{int(empty.sum())} of {len(frame)} rows have no {name}: {rows(frame, empty)}",
            f"fill {name}, or drop the column",
        )
    twice = frame.duplicated(keys, keep=False).to_numpy()
    if twice.any():
        count = int(frame.loc[twice, keys].drop_duplicates().shape[0])
        raise MedloraError(
            f"{count} case{'s' if count > 1 else ''} occur{'' if count > 1 else 's'} more than once in "
            f"{' and '.join(keys)} ({int(twice.sum())} of {len(frame)} rows): {rows(frame, twice)}",
            "keep one row per case; copies from several processes are joined by medlora.evaluation.gather, "
            "and repeated trainings need a column 'seed' or 'fold'",
        )


def _patients(frame: pd.DataFrame) -> NDArray:
    return frame["patient"].map(lambda v: "" if pd.isna(v) else str(v)).to_numpy(dtype=object)


def _check_patients(frame: pd.DataFrame, known: NDArray[np.bool_]) -> None:
    """Every labelled row has a patient, or none has."""
    if "patient" not in frame.columns:
        return
    blank = (_patients(frame) == "") & known
    if blank.any() and not blank[known].all():
        raise MedloraError(
            f"{int(blank.sum())} of {int(known.sum())} labelled rows have no patient: {rows(frame, blank)}",
            "fill the column for every row, or remove it (every row then counts as its own patient)",
        )


def _answered(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Without the rows that say, in a column ``reason`` as ``medlora predict`` writes it, why they hold no answer."""
    columns = [c for c in frame.columns if str(c).startswith("p_") or c == "score"]
    if "reason" not in frame.columns or not columns:
        return frame
    cells = frame[[*columns, "reason"]].astype(object).where(frame[[*columns, "reason"]].notna(), "").astype(str)
    empty = cells.map(str.strip).eq("")
    unanswered = (empty[columns].all(axis=1) & ~empty["reason"]).to_numpy()
    if not unanswered.any():
        return frame
    if unanswered.all():
        raise MedloraError(
            f"none of the {len(frame)} rows has an answer; the first says: {frame['reason'].iloc[0]}",
            "see the column reason of each row",
        )
    notes.append(
        f"{int(unanswered.sum())} of {len(frame)} rows have no answer but a reason why not, and were left out: the "
        "figures are of those answered."
    )
    if frame.index.name != "row":
        frame = frame.set_axis(pd.RangeIndex(2, len(frame) + 2, name="row"))
    return frame[~unanswered]


def _labelled(frame: pd.DataFrame, known: NDArray, notes: list[str], *arrays: NDArray) -> tuple:
    if not known.any():
        raise MedloraError(f"none of the {len(frame)} rows has a label", "fill column y where the truth is known")
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(frame)} rows have no label and were left out.")
    return (frame[known].reset_index(drop=True), *[a[known] for a in arrays])


def _multilabel(frame: pd.DataFrame, names: list[str], notes: list[str]) -> Predictions:
    missing = [c for c in names if f"y_{c}" not in frame.columns]
    if missing:
        raise MedloraError(f"there is no column y_ for {listed(missing)}", "give y_CLASS for every p_CLASS")
    p = np.column_stack([numbers(frame, f"p_{c}") for c in names])
    _check_range(frame, p, names)
    columns = []
    for c in names:
        text = frame[f"y_{c}"].map(lambda v: "" if pd.isna(v) else str(v)).to_numpy(dtype=object)
        values = np.array([{"": np.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}.get(v, -1.0) for v in text])
        if (values == -1).any():
            seen = sorted({str(v) for v in text[values == -1]})
            raise MedloraError(
                f"{int((values == -1).sum())} of {len(text)} values of y_{c} are neither 0, 1 nor empty: "
                f"{values_said(seen)}: {rows(frame, values == -1)}",
                "write 1 for present, 0 for absent, nothing for unknown",
            )
        columns.append(values)
    y = np.column_stack(columns)
    _check_cases(frame)
    _check_patients(frame, ~np.isnan(y).all(axis=1))
    found = len(frame)
    frame, y, p = _labelled(frame, ~np.isnan(y).all(axis=1), notes, y, p)
    usable = [c for j, c in enumerate(names) if len(set(y[~np.isnan(y[:, j]), j])) == 2]
    if not usable:
        counts = ", ".join(
            f"{c}: {int((y[:, j] == 1).sum())} present, {int((y[:, j] == 0).sum())} absent" for j, c in enumerate(names)
        )
        raise MedloraError(f"no label has both classes ({counts})", "give cases with and without the finding")
    for c in names:
        if c not in usable:
            notes.append(f"Label {c} has one class only: nothing can be said of it.")
    return _finish("multilabel", names, y, p, True, frame, notes, found - len(frame))


def _finish(
    kind: str,
    names: list[str],
    y: NDArray,
    p: NDArray,
    probability: bool,
    frame: pd.DataFrame,
    notes: list[str],
    unlabelled: int,
) -> Predictions:
    case = next((frame[c].astype(str).to_numpy() for c in ("case_id", "scan_id") if c in frame.columns), None)
    if case is None:
        case = np.array([str(i + 1) for i in range(len(frame))])
    patient = _patients(frame) if "patient" in frame.columns else np.full(len(frame), "", dtype=object)
    known = bool((patient != "").any())
    if not known:
        patient = case
        notes.append(
            "No patients are named: every case counts as its own patient. "
            "If patients have several cases, the intervals are too narrow."
        )
    names_, codes = np.unique(patient.astype(str), return_inverse=True)
    if len(names_) < 2:
        raise MedloraError(
            f"all {len(frame)} labelled cases are of one patient",
            "intervals and tests compare patients: at least two are needed, and far more to learn anything",
        )
    return Predictions(
        kind,
        tuple(names),
        y,
        p,
        probability,
        case,
        codes.reshape(-1),
        len(names_),
        known,
        frame,
        tuple(notes),
        unlabelled,
    )
