"""Draw the figures of the site from real weights; kept in pages/figures, since they take two trainings to make.

    python scripts/docs/figures.py LORA_RUN FULL_RUN

Two runs on the same cohort and backbone, by LoRA and by full fine-tuning, as ``medlora compare`` and
scripts/backbone_folds.py leave them. Those of the site are the first fold of the COVID radiographs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

import medlora
from medlora import adapters, backbones
from medlora.evaluation.figures import COLOURS, GREY, drawing, render
from medlora.phantoms import radiographs

PAGES = Path(__file__).parent / "pages" / "figures"
ROLE_COLOURS = dict(zip(("conv.pointwise", "conv.spatial", "conv.depthwise", "stem"), COLOURS, strict=False))
METHODS = {
    "linear probe": medlora.Probe(),
    "BitFit": medlora.BitFit(),
    "SSF": medlora.SSF(),
    "LoRA, rank 4": medlora.LoRA(rank=4),
    "LoRA, rank 8": medlora.LoRA(rank=8),
    "LoRA, rank 16": medlora.LoRA(rank=16),
    "DoRA, rank 8": medlora.DoRA(rank=8),
    "full fine-tuning": medlora.Full(),
}


def factors(run: medlora.Run) -> dict[str, tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Role, frozen weight, s·B and A of each target, as matrices, in the order of the network."""
    model = medlora.load(run.adapter_path).model
    adapter = adapters.adapter_of(model)
    assert adapter is not None and isinstance(adapter.method, medlora.LoRA)
    tensors, scale = adapter.state_dict(), adapter.method.scale(adapter.method.rank, adapter.method.alpha)
    found = {}
    with adapter.disabled():
        for target in adapter.targets:
            a, b = (tensors[f"{target.path}.lora_{letter}.weight"].flatten(1) for letter in "AB")
            weight = model.get_submodule(target.path).weight.detach().flatten(1).clone()
            found[target.path] = (target.role, weight, scale * b, a)
    return found


def product(path: str, weight: torch.Tensor, b: torch.Tensor, a: torch.Tensor) -> Figure:
    """W, B, A, B·A and their sum, each entry a colour; all on one scale of length."""
    rows, columns = weight.shape
    rank, gap = len(a), 10
    # Left edge, bottom edge (rows from above), matrix, name; in entries.
    x = 0
    parts = []
    for name, matrix, sign in (("W (frozen)", weight, "+"), ("B", b, "·"), ("A", a, "="), ("B·A", b @ a, "→"),
                               ("W + B·A", weight + b @ a, "")):  # fmt: skip
        parts.append((x, name, matrix, sign))
        x += matrix.shape[1] + 3 * gap
    with mpl.rc_context({"font.size": 8.5, "svg.hashsalt": "medlora"}):
        figure = Figure(figsize=(10, 10 * (rows + 66) / x))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-gap, x - gap), ylim=(rows + 22, -44))
        axes.set_axis_off()
        for left, name, matrix, sign in parts:
            most = 3 * float(matrix.std()) if name in "BA" else 3 * float(weight.std())
            top = (rows - matrix.shape[0]) / 2
            axes.imshow(
                matrix, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest",
                extent=(left, left + matrix.shape[1], top + matrix.shape[0], top),
            )  # fmt: skip
            middle = left + matrix.shape[1] / 2
            axes.text(middle, top - 5, name, ha="center", va="bottom", weight="bold")
            axes.text(
                middle, top + matrix.shape[0] + 4, f"{matrix.shape[0]} × {matrix.shape[1]}", ha="center", va="top"
            )
            axes.text(left + matrix.shape[1] + 1.5 * gap, rows / 2, sign, ha="center", va="center", fontsize=16)
        axes.set(xlim=(-gap, x - gap), ylim=(rows + 22, -44))
        text = f"{path}: {weight.numel():,} weights; B and A together {rank * (rows + columns):,}"
        axes.text(0, -42, text, color=GREY, va="top")
    return figure


def singular_values(weight: torch.Tensor, low_rank: torch.Tensor, full: torch.Tensor) -> Figure:
    """Of the frozen weight and of the updates by LoRA and by full fine-tuning."""
    with drawing(7.2, 3.6) as (figure, axes):
        rank = int(torch.linalg.matrix_rank(low_rank))
        for i, (label, matrix, most) in enumerate(
            (("frozen weight W", weight, None), ("change by full fine-tuning", full, None),
             (f"change by LoRA: {rank} directions", low_rank, rank))
        ):  # fmt: skip
            values = torch.linalg.svdvals(matrix)[:most]
            axes.plot(range(1, len(values) + 1), values, ".-" if most is None else "o-", color=COLOURS[i], label=label)
        axes.set(xlabel="direction, the strongest first", ylabel="singular value", yscale="log", ylim=(1e-3, None))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend()
    return figure


def where(found: dict[str, Any]) -> Figure:
    """Length of each update beside that of its weight."""
    with drawing(9, 3.2) as (figure, axes):
        share = [float((b @ a).norm() / weight.norm()) for _, weight, b, a in found.values()]
        roles = [role for role, *_ in found.values()]
        axes.bar(range(len(share)), share, color=[ROLE_COLOURS[role] for role in roles], width=0.8)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        stages = [".".join(path.split(".")[:2]) if path.startswith("blocks") else path for path in found]
        starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
        axes.set_xticks([i - 0.5 for i in starts], [stages[i].replace("blocks.", "stage ") for i in starts], ha="left")
        axes.set(ylabel="length of update / of weight", xlim=(-0.6, len(share) - 0.4))
        for role in dict.fromkeys(roles):
            axes.plot([], [], "s", color=ROLE_COLOURS[role], label=role)
        axes.legend(ncols=3, loc="upper left")
        axes.set_ylim(0, 1.2 * max(share))
    return figure


def parameters() -> Figure:
    """Trained values by method, in tf_efficientnet_lite0 with two classes."""
    model = backbones.create("tf_efficientnet_lite0", num_classes=2).model
    counts = {}
    for name, method in METHODS.items():
        adapter = adapters.attach(model, method)
        counts[name] = sum(parameter.numel() for parameter in adapter.parameters())
        adapter.detach()
    with drawing(7.2, 3) as (figure, axes):
        bars = axes.barh(list(counts), list(counts.values()), color=COLOURS[0], height=0.65)
        axes.bar_label(
            bars, [f"{count:,}  ({count / counts['full fine-tuning']:.1%})" for count in counts.values()], padding=4
        )
        axes.set(xscale="log", xlabel="trained numbers", xlim=(1e3, 1e8))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.invert_yaxis()
    return figure


def phantoms() -> Figure:
    """Normal and ill phantom radiographs."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        for axes, number in zip(figure.subplots(1, 5), range(3, 8), strict=True):
            image = radiographs.patient(number, seed=0, size=256)[0]
            axes.imshow(image.shown, cmap="gray", vmin=0, vmax=1)
            axes.set_title("opacities" if image.finding else "normal", fontsize=9)
            axes.set_axis_off()
    return figure


def main() -> None:
    """Draw all."""
    lora, full = (medlora.Run.load(folder) for folder in sys.argv[1:3])
    found = factors(lora)
    # A layer small enough to be seen whole, the one of those that changed most.
    small = {
        path: float((b @ a).norm())
        for path, (_, w, b, a) in found.items()
        if w.shape[1] <= 240 and 40 <= w.shape[0] <= 80
    }
    path = max(small, key=lambda name: small[name])
    _, weight, b, a = found[path]
    changed = medlora.load(full.adapter_path).model.get_submodule(path).weight.detach().flatten(1)
    PAGES.mkdir(exist_ok=True)
    figures = {
        "product": product(path, weight, b, a),
        "singular_values": singular_values(weight, b @ a, changed - weight),
        "where": where(found),
        "parameters": parameters(),
    }
    for name, figure in figures.items():
        (PAGES / f"{name}.svg").write_bytes(render(figure, "svg"))
    (PAGES / "phantoms.png").write_bytes(render(phantoms(), "png"))
    print(path, {name: float(np.round(value, 3)) for name, value in small.items()})


if __name__ == "__main__":
    main()
