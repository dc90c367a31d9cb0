"""What can be trained of a frozen backbone: one frozen dataclass per method, each a line of JSON.

A method answers three questions of :mod:`medlora.adapters.attaching`: which weights change, by which updates, and which
parameters are trained themselves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medlora.adapters.derive import stored
from medlora.adapters.rescaling import Scale, ScaleShift, WeightDecomposed
from medlora.adapters.roles import weights
from medlora.adapters.targets import Target, check_names, select, setting
from medlora.adapters.updates import LowRank
from medlora.errors import MedloraError

Selection = str | Sequence[str]
Updates = dict[str, dict[str, list[nn.Module]]]  # by path of the module and name of its parameter
NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
)


@dataclass(frozen=True)
class Method:
    """A way to adapt a model; the subclasses are the methods."""

    name: ClassVar[str] = ""
    batchnorm: ClassVar[str] = "frozen"  # unless told otherwise

    def find(self, model: nn.Module, head: tuple[str, ...]) -> list[Target]:
        """The weights of ``model`` that get updates.

        Raises:
            MedloraError: a name matches nothing.
        """
        return []

    def updates(self, modules: Mapping[str, nn.Module], targets: Sequence[Target]) -> Updates:
        """New updates of ``targets``, on which the first forward pass is that of the base."""
        return {}

    def trains(self, module: nn.Module, name: str) -> bool:
        """Whether the parameter ``name`` of ``module``, outside of the head, is trained itself."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """The method and all its options as JSON values; :meth:`from_dict` reads it back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"method": self.name} | {
            key: dict(value)
            if isinstance(value, Mapping)
            else sorted(value)
            if isinstance(value, (set, frozenset))
            else list(value)
            if isinstance(value, Sequence) and not isinstance(value, str)
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
        try:
            return kinds[name](**options)
        except (TypeError, AttributeError) as error:
            raise MedloraError(f"an option of the method {name!r} is of the wrong kind: {error}") from error


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank update W + s·B·A of chosen weights (Hu et al. 2021, arXiv 2106.09685).

    A weight of any number of dimensions is read as the matrix (rows of its first dimension) × (all others), so one
    form serves linear layers and convolutions, grouped and depthwise ones too.

    Args:
        rank: r, the number of rows of A.
        alpha: the update is scaled by s = alpha / rank.
        targets: "auto", a role, a group of roles ("attention", "conv"), the full path of a module, or a list of them.
        last: only the last blocks: a fraction ("1/3"), how many, or a list of block numbers (negative ones count from
            the end).
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
            if not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
                raise MedloraError(f"alpha is {alpha!r}, which gives the update no scale", "give a positive number")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise MedloraError(f"dropout is {self.dropout!r}", "give a probability from 0 up to below 1")

    def scale(self, rank: int, alpha: float) -> float:
        """The factor s of B·A."""
        return alpha / rank**0.5 if self.rslora else alpha / rank

    def find(self, model: nn.Module, head: tuple[str, ...]) -> list[Target]:
        """As in :class:`Method`."""
        targets = select(model, head, self.targets, self.last)
        check_names(self.rank_for, targets)
        check_names(self.alpha_for, targets)
        return targets

    def updates(self, modules: Mapping[str, nn.Module], targets: Sequence[Target]) -> Updates:
        """As in :class:`Method`; several of one weight where parts of it are targets."""
        found: Updates = {}
        for target in targets:
            rank = setting(target, self.rank, self.rank_for)
            scale = self.scale(rank, setting(target, self.alpha, self.alpha_for))
            update = self.update(stored(modules[target.path], target.name), rank, scale, target)
            found.setdefault(target.path, {}).setdefault(target.name, []).append(update)
        return found

    def update(self, weight: Tensor, rank: int, scale: float, target: Target) -> LowRank:
        """A new update of one weight, or of the part of it that is the target."""
        return LowRank(weight, rank, scale, target.rows, target.part, self.dropout)


@dataclass(frozen=True)
class DoRA(LoRA):
    """LoRA of the direction, with a trained length per row (Liu et al. 2024, arXiv 2402.09353)."""

    name: ClassVar[str] = "dora"

    def find(self, model: nn.Module, head: tuple[str, ...]) -> list[Target]:
        """As in :class:`Method`."""
        return _whole(super().find(model, head), self)

    def update(self, weight: Tensor, rank: int, scale: float, target: Target) -> LowRank:
        """As in :class:`LoRA`."""
        return WeightDecomposed(weight, rank, scale, self.dropout)


@dataclass(frozen=True)
class LoRAFA(LoRA):
    """LoRA with A frozen as drawn (Zhang et al. 2023, arXiv 2308.03303).

    Less memory; adapters that share A average exactly.

    Args:
        recompute: compute what an activation got from an adapted layer again in the backward pass, rather than keep it
            (:mod:`medlora.adapters.recompute`): less memory, for one more product of such a layer in a step. The other
            options are those of :class:`LoRA`.
    """

    name: ClassVar[str] = "lora_fa"
    recompute: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.recompute, bool):
            raise MedloraError(f"recompute is {self.recompute!r}", "give True or False")

    def update(self, weight: Tensor, rank: int, scale: float, target: Target) -> LowRank:
        """As in :class:`LoRA`."""
        return LowRank(weight, rank, scale, target.rows, target.part, self.dropout, train_a=False)


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

    def find(self, model: nn.Module, head: tuple[str, ...]) -> list[Target]:
        """As in :class:`Method`."""
        wanted = self.targets
        if wanted == "auto":
            wanted = list(dict.fromkeys(w.path for w in weights(model, head) if w.role != "position"))
        return _whole(select(model, head, wanted, self.last), self)

    def updates(self, modules: Mapping[str, nn.Module], targets: Sequence[Target]) -> Updates:
        """As in :class:`Method`; "auto" in the whole model has the normalisations too."""
        found: Updates = {}
        for target in targets:
            module: Any = modules[target.path]
            transposed = getattr(module, "transposed", False)
            gamma = Scale(stored(module, target.name), int(transposed), module.groups if transposed else 1)
            found.setdefault(target.path, {})[target.name] = [gamma]
            bias = module._parameters.get("bias")
            if bias is not None and target.name == "weight" and bias.numel() == gamma.gamma.numel():
                found[target.path]["bias"] = [ScaleShift(bias, gamma)]
        if self.targets == "auto" and self.last is None:
            for path, module in modules.items():
                if isinstance(module, NORMS) and module.weight is not None:
                    gamma = Scale(module.weight)
                    found[path] = {"weight": [gamma]}
                    if module.bias is not None:
                        found[path]["bias"] = [ScaleShift(module.bias, gamma)]
        return found


@dataclass(frozen=True)
class BitFit(Method):
    """Train the biases (Ben Zaken et al. 2021, arXiv 2106.10199), those of normalisations too."""

    name: ClassVar[str] = "bitfit"

    def trains(self, module: nn.Module, name: str) -> bool:
        """As in :class:`Method`."""
        return name == "bias" or name.endswith("_bias")


@dataclass(frozen=True)
class NormTuning(Method):
    """Train weight and bias of the normalisation layers."""

    name: ClassVar[str] = "norm"

    def trains(self, module: nn.Module, name: str) -> bool:
        """As in :class:`Method`."""
        return isinstance(module, NORMS)


@dataclass(frozen=True)
class Probe(Method):
    """Train the head alone: the linear probe."""

    name: ClassVar[str] = "probe"


@dataclass(frozen=True)
class Full(Method):
    """Train everything: full fine-tuning, for comparison. The adapter's file is then as large as the model."""

    name: ClassVar[str] = "full"
    batchnorm: ClassVar[str] = "adapt"

    def trains(self, module: nn.Module, name: str) -> bool:
        """As in :class:`Method`."""
        if module._parameters[name].dtype is torch.int8:  # type: ignore[union-attr]
            raise MedloraError(
                "a base held as int8 cannot be trained in full", "use a low-rank method, or the float model"
            )
        return True


def _whole(targets: list[Target], method: Method) -> list[Target]:
    if any(t.part for t in targets):
        raise MedloraError(f"{method.name} works on whole weights, not on a part of a fused one", "use attention")
    return targets
