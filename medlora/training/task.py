"""What is asked of a network: one of several classes, or each of several findings; and all that follows from that.

The rest of the training room knows neither: targets, loss, figures of an epoch, linear probe, calibration, operating
point and words come from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from medlora import evaluation
from medlora.cohorts.labelling import FINDING, Findings
from medlora.cohorts.labelling import labelling as labelling_of
from medlora.errors import MedloraError
from medlora.evaluation import Calibration, OperatingPoint, Sigmoids, Temperature
from medlora.training import probe
from medlora.training.losses import Loss, MaskedLoss, macro_auc, masked_auc

if TYPE_CHECKING:
    from medlora.training.config import Config
    from medlora.training.losses import Balance

Features = tuple[np.ndarray, np.ndarray]


class Task(ABC):
    """A question with several answers.

    Args:
        classes: names, in the order of the outputs.
    """

    kind: ClassVar[str]

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes

    @property
    @abstractmethod
    def judged(self) -> list[str]:
        """The classes whose AUC is given."""

    @property
    @abstractmethod
    def title(self) -> str:
        """A heading."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What the adapter answers."""

    @abstractmethod
    def check(self, config: Config) -> None:
        """Refuse settings that would not be followed.

        Raises:
            MedloraError: a setting has no meaning here.
        """

    @abstractmethod
    def truth(self, table: pd.DataFrame) -> pd.DataFrame:
        """The columns of truth of a predictions table, for the cases of a cohort's table."""

    @abstractmethod
    def unanswered(self) -> dict[str, str]:
        """These columns of a case whose truth is not known."""

    @abstractmethod
    def targets(self, table: pd.DataFrame) -> np.ndarray:
        """What the loss compares with: class numbers int64 (N,), or 1, 0 and NaN float32 (N, K)."""

    @abstractmethod
    def has_label(self, table: pd.DataFrame) -> np.ndarray:
        """Which cases say anything about the classes, bool (N,)."""

    @abstractmethod
    def answerable(self, table: pd.DataFrame) -> pd.DataFrame:
        """Of the labelled cases of another cohort those that the answers can be compared with, in its table's form.

        Raises:
            MedloraError: its labels are of the other kind, or not of these classes.
        """

    @abstractmethod
    def counts(self, table: pd.DataFrame) -> dict[str, int]:
        """How many cases there are of all that must be among those trained on."""

    @abstractmethod
    def loss(self, targets: torch.Tensor, balance: Balance, label_smoothing: float) -> Loss | MaskedLoss:
        """The loss of a step; ``targets`` are those of all training images."""

    @abstractmethod
    def figures(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
        """Loss and mean AUC of logits (N, K), without weights."""

    @abstractmethod
    def probe(self, train: Features, tune: Features) -> probe.Probe:
        """The linear probe on features (N, F) and targets."""

    @abstractmethod
    def calibrate(self, logits: np.ndarray, targets: np.ndarray) -> Calibration:
        """The calibration that fits logits (N, K) best."""

    @abstractmethod
    def uncalibrated(self) -> Calibration:
        """None at all."""

    @abstractmethod
    def operating_point(self, rule: str, probabilities: np.ndarray, targets: np.ndarray) -> OperatingPoint:
        """What ``rule`` gives on the tune split; probabilities (N, K)."""

    @abstractmethod
    def log_odds(self, logits: torch.Tensor, calibration: Calibration) -> torch.Tensor:
        """log p − log (1 − p) of each class, p calibrated; (N, K) → (N, K)."""

    @abstractmethod
    def foremost(self, probabilities: np.ndarray) -> str:
        """The class to explain where none is named, for the probabilities (K,) of a case."""

    def describe(self) -> dict[str, Any]:
        """As it begins in ``medlora.json``."""
        return {"classes": self.classes}


class OneOf(Task):
    """Classes that exclude each other; the last is the positive one of two."""

    kind = "classes"

    @property
    def judged(self) -> list[str]:
        """See `Task`: the positive one of two, else each against the rest."""
        return self.classes if len(self.classes) > 2 else self.classes[-1:]

    @property
    def title(self) -> str:
        """See `Task`."""
        return " against ".join(self.classes)

    @property
    def sentence(self) -> str:
        """See `Task`."""
        return f"Tells apart: {', '.join(self.classes)}"

    def check(self, config: Config) -> None:
        """See `Task`: a rule of the operating point is for two classes."""
        rule, usual = config.evaluation.operating_point, type(config.evaluation)().operating_point
        if len(self.classes) > 2 and rule != usual:
            raise MedloraError(
                f"evaluation.operating_point={rule} is a rule for two classes, and there are {len(self.classes)}: "
                f"{', '.join(self.classes)}",
                "leave it out, and the most probable class is answered; or name two classes with --classes",
            )

    def truth(self, table: pd.DataFrame) -> pd.DataFrame:
        """See `Task`: ``y``, a class."""
        return pd.DataFrame({"y": table["label"].to_numpy()})

    def unanswered(self) -> dict[str, str]:
        """See `Task`."""
        return {"y": ""}

    def targets(self, table: pd.DataFrame) -> np.ndarray:
        """See `Task`: class numbers."""
        number = {name: index for index, name in enumerate(self.classes)}
        return table["label"].map(number).to_numpy(np.int64)

    def has_label(self, table: pd.DataFrame) -> np.ndarray:
        """See `Task`."""
        return table["label"].isin(self.classes).to_numpy()

    def answerable(self, table: pd.DataFrame) -> pd.DataFrame:
        """See `Task`: all, since each has a class."""
        if isinstance(labelling_of(table), Findings):
            raise MedloraError(
                "the cohort has findings that can occur together, and the adapter tells classes apart: "
                f"{', '.join(self.classes)}",
                "make the cohort with one column of these classes (medlora check --label-column)",
            )
        unknown = sorted(set(table["label"]) - set(self.classes))
        if unknown:
            raise MedloraError(
                f"the cohort has labels that the adapter does not know: {', '.join(map(repr, unknown))}",
                f"its classes are: {', '.join(self.classes)}; write the cohort's labels as these",
            )
        return table

    def counts(self, table: pd.DataFrame) -> dict[str, int]:
        """See `Task`: cases of each class."""
        return {name: int((table["label"] == name).sum()) for name in self.classes}

    def loss(self, targets: torch.Tensor, balance: Balance, label_smoothing: float) -> Loss:
        """See `Task`: cross-entropy."""
        return Loss(targets, len(self.classes), balance, label_smoothing)

    def figures(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
        """See `Task`: each class against the rest."""
        auc = macro_auc(logits.softmax(-1).numpy(), targets.numpy())
        return float(functional.cross_entropy(logits, targets)), auc

    def probe(self, train: Features, tune: Features) -> probe.Probe:
        """See `Task`: one multinomial regression."""
        return probe.fit(train, tune, len(self.classes))

    def calibrate(self, logits: np.ndarray, targets: np.ndarray) -> Calibration:
        """See `Task`: one temperature."""
        return Temperature(evaluation.fit_temperature(logits, targets))

    def uncalibrated(self) -> Calibration:
        """See `Task`."""
        return Temperature()

    def operating_point(self, rule: str, probabilities: np.ndarray, targets: np.ndarray) -> OperatingPoint:
        """See `Task`: of several classes the most probable is answered."""
        if len(self.classes) > 2:
            return OperatingPoint(None, rule="highest probability", chosen_on="tune")
        return evaluation.choose_threshold(
            targets == 1, probabilities[:, 1], _rule(rule), positive=self.classes[1], chosen_on="tune"
        )

    def log_odds(self, logits: torch.Tensor, calibration: Calibration) -> torch.Tensor:
        """See `Task`: against all other classes together."""
        assert isinstance(calibration, Temperature)
        logits = logits / calibration.value
        others = (
            logits[:, None]
            .expand(-1, logits.shape[1], -1)
            .masked_fill(torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device), -torch.inf)
        )
        return logits - others.logsumexp(dim=-1)

    def foremost(self, probabilities: np.ndarray) -> str:
        """See `Task`: of two the positive one, else the most probable."""
        return self.classes[1 if len(self.classes) == 2 else int(probabilities.argmax())]


class EachOf(Task):
    """Findings that can occur together; where one is unknown, nothing is learnt or judged of it."""

    kind = "multilabel"

    @property
    def judged(self) -> list[str]:
        """See `Task`: all."""
        return self.classes

    @property
    def title(self) -> str:
        """See `Task`."""
        return ", ".join(self.classes)

    @property
    def sentence(self) -> str:
        """See `Task`."""
        return f"Answers for each finding by itself: {', '.join(self.classes)}"

    def check(self, config: Config) -> None:
        """See `Task`: there is no class to draw an image for."""
        MaskedLoss(torch.tensor([[0.0], [1.0]]), config.train.class_weights, config.train.label_smoothing)

    def truth(self, table: pd.DataFrame) -> pd.DataFrame:
        """See `Task`: ``y_FINDING``, 1, 0 or missing."""
        return table[[FINDING + name for name in self.classes]].reset_index(drop=True)

    def unanswered(self) -> dict[str, str]:
        """See `Task`."""
        return {FINDING + name: "" for name in self.classes}

    def targets(self, table: pd.DataFrame) -> np.ndarray:
        """See `Task`: 1, 0 and NaN."""
        return self.truth(table).to_numpy(dtype=np.float32, na_value=np.nan)

    def has_label(self, table: pd.DataFrame) -> np.ndarray:
        """See `Task`: a finding at least is known."""
        return ~np.isnan(self.targets(table)).all(axis=1)

    def answerable(self, table: pd.DataFrame) -> pd.DataFrame:
        """See `Task`: those where a finding of these is known; a finding that the cohort lacks is unknown in all."""
        found = labelling_of(table)
        if not isinstance(found, Findings) or not set(found.names) & set(self.classes):
            raise MedloraError(
                f"the adapter answers for the findings {', '.join(self.classes)}, and the cohort has "
                + (f"others: {', '.join(found.names)}" if isinstance(found, Findings) else "one label for each case"),
                f"make the cohort with their columns: medlora check --label-column '{','.join(self.classes)}'",
            )
        lacking = [FINDING + name for name in self.classes if name not in found.names]
        table = table.assign(**dict.fromkeys(lacking, pd.array([pd.NA] * len(table), dtype="Int64")))
        return table[self.has_label(table)]

    def counts(self, table: pd.DataFrame) -> dict[str, int]:
        """See `Task`: cases where each finding is present, and where it is absent."""
        counted: dict[str, int] = {}
        for name, marks in zip(self.classes, self.targets(table).T, strict=True):
            counted |= {f"{name} present": int((marks == 1).sum()), f"{name} absent": int((marks == 0).sum())}
        return counted

    def loss(self, targets: torch.Tensor, balance: Balance, label_smoothing: float) -> MaskedLoss:
        """See `Task`: binary cross-entropy over what is known."""
        return MaskedLoss(targets, balance, label_smoothing)

    def figures(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
        """See `Task`: over what is known."""
        auc = masked_auc(logits.numpy(), targets.numpy())
        return float(MaskedLoss(targets, "none", 0.0)(logits, targets)), auc

    def probe(self, train: Features, tune: Features) -> probe.Probe:
        """See `Task`: a regression for each finding."""
        return probe.fit_findings(train, tune)

    def calibrate(self, logits: np.ndarray, targets: np.ndarray) -> Calibration:
        """See `Task`: a slope and an intercept for each finding."""
        scales = {}
        for name, logit, marks in zip(self.classes, logits.T, targets.T, strict=True):
            known = ~np.isnan(marks)
            scales[name] = evaluation.fit_sigmoid(logit[known], marks[known] == 1)
        return Sigmoids(scales)

    def uncalibrated(self) -> Calibration:
        """See `Task`."""
        return Sigmoids(dict.fromkeys(self.classes, (1.0, 0.0)))

    def operating_point(self, rule: str, probabilities: np.ndarray, targets: np.ndarray) -> OperatingPoint:
        """See `Task`: a threshold for each finding, by the same rule."""
        thresholds: dict[str, float] = {}
        for name, probability, marks in zip(self.classes, probabilities.T, targets.T, strict=True):
            known = ~np.isnan(marks)
            chosen = evaluation.choose_threshold(marks[known] == 1, probability[known], _rule(rule), chosen_on="tune")
            assert isinstance(chosen.value, float)
            thresholds[name] = chosen.value
        return OperatingPoint(thresholds, chosen.rule, chosen_on="tune")

    def log_odds(self, logits: torch.Tensor, calibration: Calibration) -> torch.Tensor:
        """See `Task`: the argument of the sigmoid."""
        assert isinstance(calibration, Sigmoids)
        slopes, intercepts = torch.tensor(list(calibration.scales.values()), dtype=logits.dtype, device=logits.device).T
        return logits * slopes + intercepts

    def foremost(self, probabilities: np.ndarray) -> str:
        """See `Task`: the most probable."""
        return self.classes[int(probabilities.argmax())]

    def describe(self) -> dict[str, Any]:
        """See `Task`."""
        return {"kind": self.kind, **super().describe()}


def task_of(table: pd.DataFrame, classes: list[str]) -> Task:
    """The task that a cohort's table asks.

    Args:
        table: of a cohort, or of the run that was trained on it.
        classes: of its classes or findings those to answer for, in order.
    """
    return EachOf(classes) if isinstance(labelling_of(table), Findings) else OneOf(classes)


def task_from(described: dict[str, Any]) -> Task:
    """The task that `Task.describe` gave.

    Raises:
        KeyError, ValueError: it is none of this version's.
    """
    kinds: dict[str, type[Task]] = {kind.kind: kind for kind in (OneOf, EachOf)}
    kind = described.get("kind", OneOf.kind)
    if kind not in kinds:
        raise ValueError(f"unknown kind of task {kind!r}")
    return kinds[kind]([str(name) for name in described["classes"]])


def _rule(rule: str) -> str | float:
    """A number where it is one."""
    try:
        return float(rule)
    except ValueError:
        return rule
