"""What can be trained of a frozen backbone: one frozen dataclass per method, each a line of JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from medlora.errors import MedloraError

Selection = str | Sequence[str]


@dataclass(frozen=True)
class Method:
    """A way to adapt a model; the subclasses are the methods."""

    name: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The method and all its options as JSON values; :meth:`from_dict` reads it back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"method": self.name} | {
            key: dict(value)
            if isinstance(value, Mapping)
            else list(value)
            if isinstance(value, (list, tuple))
            else value
            for key, value in values.items()
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Method:
        """The method that :meth:`to_dict` wrote.

        Raises:
            MedloraError: the method or one of its options is unknown.
        """
        options = dict(values)
        name = options.pop("method", None)
        kinds = {kind.name: kind for kind in (LoRA, DoRA, LoRAFA, SSF, BitFit, NormTuning, Probe, Full)}
        if name not in kinds:
            raise MedloraError(f"unknown adapter method {name!r}", f"use one of {', '.join(kinds)}")
        known = {f.name for f in dataclasses.fields(kinds[name])}
        if unknown := sorted(options.keys() - known):
            raise MedloraError(
                f"method {name!r} has no option {unknown[0]!r}", f"its options: {', '.join(sorted(known)) or 'none'}"
            )
        return kinds[name](**options)


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank update W + s·B·A of chosen weights (Hu et al. 2021, arXiv 2106.09685).

    A weight of any number of dimensions is read as the matrix (rows of its first dimension) × (all others), so one
    form serves linear layers and convolutions, grouped and depthwise ones too.

    Args:
        rank: r, the number of rows of A.
        alpha: the update is scaled by s = alpha / rank.
        targets: "auto", a role, a group of roles ("attention", "conv"), the full path of a module, or a list of them.
        last: only the last blocks: a fraction ("1/3"), or block numbers (negative ones count from the end).
        dropout: probability that an input feature (column of A) is left out of a step, the same for the whole batch.
        rslora: scale by alpha / √rank instead (Kalajdzievski 2023, arXiv 2312.03732).
        rank_for: rank by role, group or path; the most particular wins.
        alpha_for: alpha by role, group or path.
    """

    name: ClassVar[str] = "lora"
    rank: int = 8
    alpha: float = 16
    targets: Selection = "auto"
    last: str | int | Sequence[int] | None = None
    dropout: float = 0.0
    rslora: bool = False
    rank_for: Mapping[str, int] = field(default_factory=dict)
    alpha_for: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rank in (self.rank, *self.rank_for.values()):
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise MedloraError(
                    f"the rank of a low-rank update is {rank!r}", "give a whole number from 1 on, usually 4 to 32"
                )
        for alpha in (self.alpha, *self.alpha_for.values()):
            if not alpha > 0:
                raise MedloraError(
                    f"alpha is {alpha!r}, which leaves the update without effect", "give a positive number"
                )
        if not 0 <= self.dropout < 1:
            raise MedloraError(f"dropout is {self.dropout!r}", "give a probability from 0 up to below 1")

    def scale(self, rank: int, alpha: float) -> float:
        """The factor s of B·A."""
        return alpha / rank**0.5 if self.rslora else alpha / rank


@dataclass(frozen=True)
class DoRA(LoRA):
    """LoRA of the direction, with a trained length per row (Liu et al. 2024, arXiv 2402.09353)."""

    name: ClassVar[str] = "dora"


@dataclass(frozen=True)
class LoRAFA(LoRA):
    """LoRA with A frozen as drawn (Zhang et al. 2023, arXiv 2308.03303).

    Less memory; adapters that share A average exactly.
    """

    name: ClassVar[str] = "lora_fa"


@dataclass(frozen=True)
class SSF(Method):
    """Scale and shift every feature (Lian et al. 2022, arXiv 2210.08823): γ·W and γ·b + β per output channel.

    Args:
        targets: as in :class:`LoRA`; "auto" is every linear layer, convolution and normalisation but the head.
        last: as in :class:`LoRA`.
    """

    name: ClassVar[str] = "ssf"
    targets: Selection = "auto"
    last: str | int | Sequence[int] | None = None


@dataclass(frozen=True)
class BitFit(Method):
    """Train the biases (Ben Zaken et al. 2021, arXiv 2106.10199), those of normalisations too."""

    name: ClassVar[str] = "bitfit"


@dataclass(frozen=True)
class NormTuning(Method):
    """Train weight and bias of the normalisation layers."""

    name: ClassVar[str] = "norm"


@dataclass(frozen=True)
class Probe(Method):
    """Train the head alone: the linear probe."""

    name: ClassVar[str] = "probe"


@dataclass(frozen=True)
class Full(Method):
    """Train everything: full fine-tuning, for comparison. The adapter's file is then as large as the model."""

    name: ClassVar[str] = "full"
