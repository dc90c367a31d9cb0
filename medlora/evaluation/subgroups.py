"""The same figures for parts of the cases: sex, age, site, scanner, kernel; with a test of whether they differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtrc

from medlora.errors import MedloraError
from medlora.evaluation.comparison import holm
from medlora.evaluation.discrimination import auc, auc_covariance
from medlora.evaluation.estimate import Estimate
from medlora.evaluation.proportions import proportion
from medlora.evaluation.table import Predictions

MINIMUM = 10
MOST_LEVELS = 12
NOT_RECORDED = "not recorded"

# Columns taken unasked, by their name without case and punctuation.
_KNOWN = (
    "sex", "patientsex", "age", "patientage", "ageband", "ageyears", "site", "hospital", "center", "centre",
    "manufacturer", "manufacturermodelname", "scanner", "modality", "convolutionkernel", "kernel", "slicethickness",
    "institution", "viewposition", "view", "kvp",
)  # fmt: skip


@dataclass(frozen=True)
class Subgroup:
    """One level of one column.

    Attributes:
        class_: the class judged.
        column: name of the column.
        level: value, or band of values.
        n: cases.
        patients: their patients.
        auc: area under the curve; without value where a class has fewer than the minimum.
        sensitivity: at the operating point, likewise blank below the minimum of positives; None without one.
        specificity: likewise, of negatives.
        p: p value of "the area is the same at all levels of this column"; None where not estimable.
        p_holm: the same, corrected over all columns tested.
    """

    class_: str
    column: str
    level: str
    n: int
    patients: int
    auc: Estimate
    sensitivity: Estimate | None
    specificity: Estimate | None
    p: float | None = None
    p_holm: float | None = None

    def to_dict(self) -> dict[str, object]:
        """A tidy row."""
        row: dict[str, object] = {
            "class": self.class_, "column": self.column, "level": self.level, "n": self.n, "patients": self.patients,
            "n_pos": self.auc.n_pos, "n_neg": self.auc.n_neg,
        }  # fmt: skip
        for name in ("auc", "sensitivity", "specificity"):
            estimate = getattr(self, name) or Estimate(None)
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        return {**row, "method": self.auc.method, "p": self.p, "p_holm": self.p_holm}


def columns_for(frame: pd.DataFrame, asked: Sequence[str] | None) -> list[str]:
    """The columns to divide by: those asked for, or those with a known name and more than one level.

    Raises:
        MedloraError: a column that was asked for is not there.
    """
    if asked is not None:
        missing = [c for c in asked if c not in frame.columns]
        if missing:
            raise MedloraError(
                f"there is no column {missing[0]!r} for subgroups; there are {', '.join(map(str, frame.columns))}"
            )
        return list(asked)
    known = [c for c in frame.columns if re.sub(r"[^a-z0-9]", "", str(c).lower()) in _KNOWN]
    return [c for c in known if len(set(levels(frame[c])) - {NOT_RECORDED}) > 1]


def levels(column: pd.Series) -> NDArray:
    """Name the level of every case: bands of age or of many numbers, else the value itself."""
    text = column.map(lambda v: "" if pd.isna(v) else str(v).strip())
    is_age = "age" in str(column.name).lower().replace("image", "").replace("manage", "")
    if is_age:
        text = text.map(_years)
    number = pd.to_numeric(text.where(text != ""), errors="coerce")
    filled = text != ""
    if is_age and number[filled].notna().all() and filled.any():
        bands = pd.cut(
            number,
            [-np.inf, 18, 40, 60, 80, np.inf],
            right=False,
            labels=["under 18", "18–39", "40–59", "60–79", "80 and over"],
        )
        return bands.astype(object).where(filled, NOT_RECORDED).to_numpy()
    if filled.any() and number[filled].notna().all() and number.nunique() > 6:
        low, high = number.quantile([1 / 3, 2 / 3])
        bands = np.where(number <= low, f"≤ {low:g}", np.where(number <= high, f"{low:g} to {high:g}", f"> {high:g}"))
        return np.where(filled, bands, NOT_RECORDED).astype(object)
    common = text[filled].value_counts().index[:MOST_LEVELS]
    named = text.where(text.isin(common), "other").where(filled, NOT_RECORDED)
    return named.to_numpy(dtype=object)


def _years(text: str) -> str:
    """DICOM's age string (PS3.5, 6.2: 3 digits and D, W, M or Y) in years; anything else as it is."""
    match = re.fullmatch(r"(\d{3})([DWMY])", text)
    return text if match is None else str(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]])


def subgroups(
    checked: Predictions,
    answers: dict[str, NDArray[np.bool_]] | None,
    columns: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    minimum: int = MINIMUM,
) -> list[Subgroup]:
    """Figures of every class at every level of every column.

    Args:
        checked: the predictions; ``checked.frame`` has the columns.
        answers: for each class, which cases were called positive; None without an operating point.
        columns: names of columns; None for those with a known name.
        level: confidence level.
        minimum: a figure is left blank with fewer positives (or negatives) than this.

    Returns:
        One row per class, column and level. The test compares all areas of a column (Wald, with the covariance
        between patients, since one patient may have cases at several levels).
    """
    names = [checked.positive] if checked.kind == "binary" else list(checked.classes)
    made: list[Subgroup] = []
    tests: dict[tuple[str, str], float | None] = {}
    for column in columns_for(checked.frame, columns):
        of_case = levels(checked.frame[column])
        order = sorted(set(of_case), key=_natural)
        for name in names:
            truth = checked.truth(name)
            usable = []
            for value in order:
                use = (of_case == value) & ~np.isnan(truth)
                row, enough = _level(checked, answers, name, column, value, use, level, minimum)
                made.append(row)
                if enough and value != NOT_RECORDED:
                    usable.append(use)
            tests[name, column] = _same_area(truth, checked.score(name), checked.patients, usable)
    corrected = dict(zip(tests, holm([np.nan if p is None else p for p in tests.values()]), strict=True))
    return [
        Subgroup(**{**r.__dict__, "p": p, "p_holm": None if p is None else float(corrected[r.class_, r.column])})
        for r in made
        for p in [tests[r.class_, r.column]]
    ]


def _level(
    checked: Predictions,
    answers: dict[str, NDArray[np.bool_]] | None,
    name: str,
    column: str,
    value: str,
    use: NDArray[np.bool_],
    level: float,
    minimum: int,
) -> tuple[Subgroup, bool]:
    y, s = checked.truth(name)[use] == 1, checked.score(name)[use]
    who = checked.patients[use]
    m, n = int(y.sum()), int((~y).sum())
    enough = min(m, n) >= minimum
    few = f"blank: fewer than {minimum} in a class"
    area = auc(y, s, who, level=level) if enough else Estimate(None, method=few, n_pos=m, n_neg=n)
    sensitivity = specificity = None
    if answers is not None:
        hit = answers[name][use]
        blank = Estimate(None, method=few)
        sensitivity = proportion(hit, y, who, level=level) if m >= minimum else blank
        specificity = proportion(~hit, ~y, who, level=level) if n >= minimum else blank
    row = Subgroup(name, column, str(value), m + n, len(np.unique(who)), area, sensitivity, specificity)
    return row, enough


def _same_area(truth: NDArray, score: NDArray, patients: NDArray, usable: list[NDArray]) -> float | None:
    """Wald test that the areas of several subgroups are equal."""
    k = len(usable)
    if k < 2:
        return None
    where = np.column_stack(usable)
    y = np.repeat(np.nan_to_num(truth)[:, None], k, axis=1)
    areas, cov = auc_covariance(y, np.repeat(score[:, None], k, axis=1), patients, where)
    contrast = np.column_stack([np.ones(k - 1), -np.eye(k - 1)])
    spread, gap = contrast @ cov @ contrast.T, contrast @ areas
    if not np.isfinite(spread).all() or np.linalg.matrix_rank(spread, tol=1e-14) < k - 1:
        return None
    return float(chdtrc(k - 1, gap @ np.linalg.solve(spread, gap)))


def _natural(text: str) -> tuple:
    """Bands in order of their first number, "other" and "not recorded" last."""
    last = {"other": 1, NOT_RECORDED: 2}.get(text, 0)
    lead = {"≤": -1, "u": -1, ">": 1}.get(text[:1], 0) if re.match(r"(≤|>|under \d)", text) else 0
    number = re.search(r"\d+(\.\d+)?", text)
    return last, float(number[0]) if number else 0.0, lead, text
