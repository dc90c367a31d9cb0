"""From what the user asks for ("attention", a role, a path, the last third) to the list of weights that change."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from torch import nn

from medlora.adapters.roles import GROUPS, ROLES, Weight, weights
from medlora.errors import MedloraError

T = TypeVar("T")
CONTAINER = re.compile(r"blocks|layers|stages?|levels|features|encoder|trunk|backbone|body|model|network|transformer")
NUMBERED = re.compile(r"\d+|(dense|trans|res)?(block|layer|stage)s?_?\d+")


@dataclass(frozen=True)
class Target:
    """One weight, or one range of rows of a fused one, that an adapter changes.

    Attributes:
        path: full path of the module.
        name: its parameter, "weight" but for ``nn.MultiheadAttention``.
        role: e.g. "attention.q", "conv.pointwise".
        part: "q", "k" or "v" where only that part of a fused weight changes, else None.
        rows: (start, stop) of the part, else None.
    """

    path: str
    name: str
    role: str
    part: str | None = None
    rows: tuple[int, int] | None = None


def select(
    model: nn.Module,
    head: tuple[str, ...],
    wanted: str | Sequence[str],
    last: str | int | Sequence[int] | None = None,
) -> list[Target]:
    """The targets named by ``wanted`` in the blocks given by ``last``.

    Raises:
        MedloraError: a name is neither role nor path of the model, or nothing is left.
    """
    found = weights(model, head)
    packed = [type(m).__name__ for m in model.modules() if type(m).__module__.startswith("torch.ao.nn.quantized")]
    if packed:
        raise MedloraError(
            f"{packed[0]} packs its weight for inference: no gradient passes it, so no adapter can be trained under it",
            "take the float model, and medlora.adapters.quantize(model) to hold its weights as int8",
        )
    if not found:
        raise MedloraError(
            f"{type(model).__name__} has no weight that can be adapted (linear layer, convolution, attention)"
        )
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise MedloraError("the list of targets is empty", 'name roles or paths, or leave it at "auto"')
    chosen: dict[tuple[str, str, str | None], Target] = {}
    for name in names:
        matched = _matches(name, found)
        if not matched:
            raise _no_match(name, found)
        chosen |= {(t.path, t.name, t.part): t for t in matched}
    targets = _without_parts_of_whole(list(chosen.values()), found)
    return in_last_blocks(targets, found, last)


def _matches(name: str, found: list[Weight]) -> list[Target]:
    if name == "auto":
        groups = ("attention", "conv.pointwise", "conv.spatial")
        targets = [t for group in groups for t in _matches(group, found)]
        return targets or _matches("mlp", found) or _matches("conv", found) or _matches("other", found)
    if name in GROUPS:
        return [Target(w.path, w.name, w.role) for w in found if w.role in GROUPS[name]]
    if name in ROLES:
        targets = [Target(w.path, w.name, w.role) for w in found if w.role == name]
        part = name.rpartition(".")[2]
        for w in found:
            rows = dict(w.parts).get(part)
            if rows and name.startswith("attention."):
                targets.append(Target(w.path, w.name, name, part, rows))
            elif part in ("q", "k", "v") and w.role in ("attention.qkv", "attention.kv") and not w.parts:
                raise MedloraError(
                    f"the rows of {w.path} are not known to lie as q, k and v (they may alternate by head): {name} is "
                    "no range of them",
                    f"adapt it whole: {w.role}",
                )
        return targets
    return [Target(w.path, w.name, w.role) for w in found if w.path == name]


def _without_parts_of_whole(targets: list[Target], found: list[Weight]) -> list[Target]:
    """In the order of the model; a part is dropped where the whole weight is a target too."""
    whole = {(t.path, t.name) for t in targets if t.part is None}
    order = {(w.path, w.name): i for i, w in enumerate(found)}
    kept = [t for t in targets if t.part is None or (t.path, t.name) not in whole]
    return sorted(kept, key=lambda t: (order[t.path, t.name], t.rows or (0, 0)))


def _no_match(name: str, found: list[Weight]) -> MedloraError:
    have = sorted({w.role for w in found})
    if name in ROLES or name in GROUPS:
        return MedloraError(f"the model has no weight with the role {name!r}", f"it has {', '.join(have)}")
    known = [*(w.path for w in found), *ROLES, *GROUPS, "auto"]
    near = difflib.get_close_matches(name, known, 3, 0.3)
    return MedloraError(
        f"target {name!r} is neither a role nor the full path of an adaptable module",
        f"nearest names: {', '.join(near) or '-'}; roles here: {', '.join(have)}",
    )


def block_of(path: str) -> str | None:
    """The block that holds ``path``: "layer1.0" of "layer1.0.conv2"; None outside of blocks."""
    parts = path.split(".")
    end = 0
    for i, part in enumerate(parts[:-1]):
        if NUMBERED.fullmatch(part):
            end = i + 1
        elif not CONTAINER.fullmatch(part):
            break
    return ".".join(parts[:end]) or None


def in_last_blocks(targets: list[Target], found: list[Weight], last: str | int | Sequence[int] | None) -> list[Target]:
    """Those of ``targets`` in the last blocks, and those that come after the last block."""
    if last is None:
        return targets
    blocks = list(dict.fromkeys(b for w in found if (b := block_of(w.path))))
    if not blocks:
        raise MedloraError("the model has no numbered blocks to choose the last of", "name paths as targets instead")
    if isinstance(last, (str, int)):
        try:
            share = Fraction(last, len(blocks)) if isinstance(last, int) else Fraction(last)
        except (ValueError, ZeroDivisionError):
            raise MedloraError(f"last={last!r} is no fraction", "write last='1/3', or block numbers") from None
        if not 0 < share <= 1:
            raise MedloraError(f"last={last!r} of {len(blocks)} blocks", "give a fraction up to 1, or as many at most")
        numbers = range(len(blocks) - max(1, round(len(blocks) * share)), len(blocks))
    else:
        given: list[Any] = list(last) if isinstance(last, Sequence) else [last]
        wrong = [n for n in given if not isinstance(n, int) or not -len(blocks) <= n < len(blocks)]
        if wrong:
            raise MedloraError(
                f"there is no block {wrong[0]}: the model has {len(blocks)}, counted from 0",
                "write last='1/3', or numbers",
            )
        numbers = sorted({n % len(blocks) for n in given})  # type: ignore[assignment]
    chosen = {blocks[n] for n in numbers}
    order = {w.path: i for i, w in enumerate(found)}
    end = max(i for p, i in order.items() if block_of(p))
    with_tail = len(blocks) - 1 in numbers
    kept = [t for t in targets if block_of(t.path) in chosen or (with_tail and order[t.path] > end)]
    if not kept:
        raise MedloraError("no target lies in the chosen blocks", f"the model has {len(blocks)} blocks")
    return kept


def setting(target: Target, default: T, by_name: Mapping[str, T]) -> T:
    """The value for ``target``: by path, else role, else group of roles, else ``default``."""
    group = target.role.partition(".")[0]
    for name in (target.path, target.role, group):
        if name in by_name:
            return by_name[name]
    return default


def check_names(by_name: Mapping[str, object], targets: list[Target]) -> None:
    """Raise where a key of ``by_name`` concerns none of ``targets``."""
    known = {n for t in targets for n in (t.path, t.role, t.role.partition(".")[0])}
    for name in by_name:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 3, 0.3)
            raise MedloraError(f"{name!r} is not among the targets", f"nearest names: {', '.join(near) or '-'}")
