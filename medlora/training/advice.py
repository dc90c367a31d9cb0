"""The rule by which a comparison of methods becomes advice.

Of each difference in AUC its 95 % interval is looked at, with a margin of 0.02:

1. Where the linear probe is not worse than LoRA by the margin (the interval of LoRA − probe ends below 0.02), use the
   probe: nothing but the head needs training.
2. Where LoRA is not worse than full fine-tuning by the margin (the interval of LoRA − full starts above −0.02), use
   LoRA; that full fine-tuning is better, if by less, is said.
3. Where full fine-tuning is better than LoRA (that interval ends below 0), do not use LoRA here, unless a loss of the
   size found is worth the smaller file; where another method is not worse than full fine-tuning by the margin,
   use that.
4. Else the cases are too few to tell, and it is said how wide the interval is.

The margin is a convention, not a law; a study that depends on it states its own before it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medlora.training.comparing import Row

MARGIN = 0.02


@dataclass(frozen=True)
class Against:
    """The difference of two methods' AUCs, with its 95 % interval."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def advice(rows: Sequence[Row]) -> list[str]:
    """What the rule says, one sentence each; nothing where LoRA was not compared with a probe or full fine-tuning."""
    lora = next((row for row in rows if row.method == "lora"), None)
    if lora is None:
        return []
    probe, full = lora.against.get("probe"), lora.against.get("full")
    if probe is not None and probe.high < MARGIN:
        return [
            f"Do not use LoRA here: the linear probe is not worse by {MARGIN} (LoRA − probe {probe}), and nothing but "
            "its head needs training."
        ]
    said = []
    if probe is not None and probe.low > 0:
        said.append(f"LoRA is better than the linear probe (difference {probe}).")
    elif probe is not None:
        said.append(f"Too few cases to tell LoRA from the linear probe: LoRA − probe {probe}.")
    if full is None:
        return said
    if full.low > -MARGIN:
        less = ", though it is worse by less" if full.high < 0 else ""
        said.append(f"Use LoRA: it is not worse than full fine-tuning by {MARGIN}{less} (LoRA − full {full}).")
    elif full.high < 0:
        better = [
            row.method
            for row in rows
            if row.method not in ("lora", "full", "probe") and row.against["full"].low > -MARGIN
        ]
        instead = f"use {better[0]}, which is not worse than it by {MARGIN}" if better else "train the whole network"
        said.append(
            f"Do not use LoRA here: full fine-tuning is better (LoRA − full {full}); {instead}, unless a loss of "
            f"{-full.difference:.3f} is worth the smaller file."
        )
    else:
        said.append(
            f"Too few cases to tell LoRA from full fine-tuning: LoRA − full {full}, and a loss of {MARGIN} would "
            "matter. Add cases, or judge all of them with --folds."
        )
    return said
