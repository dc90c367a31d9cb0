"""The operating point: chosen by a rule on the tuning split, frozen with the adapter, applied to new cases."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlora.errors import MedloraError
from medlora.evaluation.discrimination import check_scores

SEPARATOR, NOTHING = "|", "none"  # of several findings in the column predicted; and what it says where there is none


@dataclass(frozen=True)
class OperatingPoint:
    """How probabilities become an answer.

    One rule serves two classes and more: the positive class is answered when its probability is at least ``value``,
    otherwise the most probable of the other classes; without a ``value`` the most probable of all (the first of
    equals). With several findings at once (multilabel) ``value`` holds a threshold for each.

    Attributes:
        value: threshold of the positive class, a threshold for each finding, or None for the most probable class.
        rule: how it was chosen ("sensitivity>=0.95", "youden", "default", "given", …).
        positive: the class that ``value`` belongs to; None with several findings, or for the last class of two.
        n_pos: positives that it was chosen on.
        n_neg: negatives that it was chosen on.
        chosen_on: the split that it was chosen on ("tune").
    """

    value: float | dict[str, float] | None
    rule: str = "given"
    n_pos: int | None = None
    n_neg: int | None = None
    positive: str | None = None
    chosen_on: str | None = None

    def __post_init__(self) -> None:
        values = self.value.values() if isinstance(self.value, dict) else [] if self.value is None else [self.value]
        if not all(isinstance(v, (int, float)) and np.isfinite(v) for v in values):
            raise MedloraError(f"not an operating point: {self.value!r} is no threshold")
        if isinstance(self.value, int):
            object.__setattr__(self, "value", float(self.value))

    def predict(self, probabilities: ArrayLike, classes: list[str] | tuple[str, ...]) -> NDArray:
        """Answer for new cases.

        Args:
            probabilities: shape (n, classes), in the order of ``classes``.
            classes: class names.

        Returns:
            Class names, shape (n,); with several findings 0/1, shape (n, classes).

        Raises:
            MedloraError: the classes are not those of the operating point.
        """
        p, names = np.asarray(probabilities, dtype=np.float64), list(classes)
        if p.ndim != 2 or p.shape[1] != len(names):
            raise MedloraError(f"probabilities of shape {p.shape} for {len(names)} classes")
        if isinstance(self.value, dict):
            if set(self.value) != set(names):
                raise MedloraError(
                    f"the operating point is for {sorted(self.value)}, the predictions for {sorted(names)}"
                )
            return (p >= np.array([self.value[c] for c in names])).astype(int)
        answer = np.array(names, dtype=object)[p.argmax(axis=1)]
        if self.value is None:
            return answer
        positive = self.positive if self.positive is not None else names[-1]
        if positive not in names:
            raise MedloraError(f"the operating point is for {positive!r}, the predictions for {sorted(names)}")
        j = names.index(positive)
        others = np.delete(np.arange(len(names)), j)
        answer = np.array(names, dtype=object)[others[p[:, others].argmax(axis=1)]]
        answer[p[:, j] >= self.value] = positive
        return answer

    def words(self, probabilities: ArrayLike, classes: list[str] | tuple[str, ...]) -> NDArray:
        """The answer for each case as the column ``predicted`` has it, shape (n,).

        A class name; with several findings those at or above their thresholds, joined by ``|``, or ``none``.

        Raises:
            MedloraError: see `predict`.
        """
        answers = self.predict(probabilities, classes)
        if not isinstance(self.value, dict):
            return answers
        said = [
            SEPARATOR.join(name for name, hit in zip(classes, row, strict=True) if hit) or NOTHING for row in answers
        ]
        return np.array(said, dtype=object)

    def describe(self, class_: str | None = None) -> str:
        """One line for a report and for ``at`` in metrics.json."""
        rule = self.rule.replace(">=", " ≥ ")
        how = f"{rule} on {self.chosen_on}" if self.chosen_on else rule
        if self.value is None:
            return f"highest probability ({how})"
        if isinstance(self.value, dict):
            return f"p_{class_} ≥ {self.value[class_]:.4g} ({how})" if class_ else f"a threshold per finding ({how})"
        return f"p_{self.positive} ≥ {self.value:.4g} ({how})" if self.positive else f"score ≥ {self.value:.4g} ({how})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> OperatingPoint:
        """The operating point that `to_dict` wrote."""
        try:
            return cls(**data)
        except TypeError as error:
            raise MedloraError(f"not an operating point: {error}") from error


_RULE = re.compile(r"^(sensitivity|specificity)\s*>=\s*(0?\.\d+|0|1|1\.0+)$|^cost:\s*(\d+(?:\.\d+)?|\.\d+)$")


def choose_threshold(
    y: ArrayLike,
    score: ArrayLike,
    rule: str | float = "youden",
    *,
    positive: str | None = None,
    chosen_on: str | None = None,
) -> OperatingPoint:
    """Choose the threshold of one class by a rule; do it on the tuning split, never on the test split.

    Args:
        y: 1 for a positive, 0 for a negative; shape (n,). For one class of several: that class against the rest.
        score: probability of the positive class, shape (n,).
        rule: "youden" (largest sensitivity + specificity); "sensitivity>=0.95" (the highest threshold that reaches
            it); "specificity>=0.9" (the lowest that does); "cost:5" (a missed positive costs five false alarms: least
            total cost); or a number, taken as it is.
        positive: name of the positive class, kept in the operating point.
        chosen_on: name of the split, kept in the operating point.

    Returns:
        The operating point. Its threshold lies halfway between two observed scores, so that rounding does not move
        a case across it; among equals the one with the higher sensitivity wins.

    Raises:
        MedloraError: unknown rule, one class only, scores that are not finite.
    """
    truth, s = check_scores(y, score)
    counts = {"n_pos": int(truth.sum()), "n_neg": int((~truth).sum())}
    if not isinstance(rule, str):
        if not np.isfinite(rule):
            raise MedloraError(f"a threshold of {rule} is not a number")
        return OperatingPoint(float(rule), "given", **counts, positive=positive, chosen_on=chosen_on)
    # Candidates: below every score, then between neighbours, from the lowest up.
    levels = np.unique(s)
    middle = levels[:-1] + (levels[1:] - levels[:-1]) / 2
    thresholds = np.concatenate(
        [levels[:1], np.where(middle > levels[:-1], middle, levels[1:]), [np.nextafter(levels[-1], np.inf)]]
    )
    below_pos = np.searchsorted(np.sort(s[truth]), thresholds, "left")
    below_neg = np.searchsorted(np.sort(s[~truth]), thresholds, "left")
    sensitivity = 1 - below_pos / counts["n_pos"]
    specificity = below_neg / counts["n_neg"]
    match = _RULE.match(rule.strip())
    if rule.strip() == "youden":
        at = int(np.argmax(np.round(sensitivity + specificity, 12)))
    elif match is None:
        raise MedloraError(
            f"unknown rule {rule!r} for the operating point",
            'give "youden", "sensitivity>=0.95", "specificity>=0.9", "cost:5" or a number',
        )
    elif match[3] is not None:
        at = int(np.argmin(np.round(below_pos * float(match[3]) + (counts["n_neg"] - below_neg), 9)))
    elif match[1] == "sensitivity":
        at = int(np.flatnonzero(sensitivity >= float(match[2]) - 1e-12)[-1])
    else:
        at = int(np.flatnonzero(specificity >= float(match[2]) - 1e-12)[0])
    return OperatingPoint(float(thresholds[at]), rule.strip(), **counts, positive=positive, chosen_on=chosen_on)
