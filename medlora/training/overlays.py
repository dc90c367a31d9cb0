"""Pictures of an explanation: the image, the map over it, and what its colours mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medlora import files

if TYPE_CHECKING:
    from medlora.training.explaining import Explanation

NOTICE = "Research use only: not a medical device. A map shows where the model looked, not where disease is."


def draw(explanation: Explanation, names: tuple[str, ...], folder: Path) -> list[Path]:
    """Write one PNG for each channel of the image; the paths.

    Args:
        explanation: what to draw.
        names: of the channels.
        folder: that exists.
    """
    from matplotlib.figure import Figure

    high = max(float(np.abs(explanation.maps).max()), 1e-12)
    written = []
    for number, (image, name) in enumerate(zip(explanation.image, names, strict=True)):
        part = explanation.maps[number if len(explanation.maps) > 1 else 0]
        figure = Figure(figsize=(9.6, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
        signed = bool(explanation.maps.min() < 0)
        shown = right.imshow(
            part,
            cmap="coolwarm" if signed else "inferno",
            vmin=-high if signed else 0,
            vmax=high,
            alpha=np.clip(0.15 + 0.6 * np.abs(part) / high, 0, 0.75),
            interpolation="bilinear",
        )
        bar = figure.colorbar(shown, ax=right, fraction=0.046, pad=0.02)
        bar.set_label(_meaning(explanation))
        left.set_title(f"prepared image: {name}", fontsize=10)
        right.set_title(
            f"{explanation.method}: {_plain(explanation.target)}, probability {explanation.probability:.3f}",
            fontsize=10,
        )
        figure.supxlabel(NOTICE, fontsize=8)
        path = folder / f"{number + 1}-{name}.png"
        with files.writing(path) as partial:
            figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
        written.append(path)
    return written


def _meaning(explanation: Explanation) -> str:
    if explanation.method == "occlusion":
        return "fall of the log-odds when covered"
    return "speaks for the class (no unit)"


def _plain(text: str) -> str:
    """``text`` as matplotlib shows it, without reading dollars as formulas."""
    return text.replace("$", r"\$")
