"""Where a model looked: a map over the prepared image, and whether the map depends on what was trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from medlora.adapters import adapter_of
from medlora.errors import MedloraError
from medlora.training import saliency
from medlora.training.saliency import METHODS, SOURCES

if TYPE_CHECKING:
    from medlora.evaluation import Calibration
    from medlora.scans import Scan
    from medlora.training.predictor import Predictor
    from medlora.training.task import Task
    from medlora.transforms import Centre

SIMILAR = 0.5
"""Maps whose rank correlation is at least this large, up or down, after the weights were drawn anew, hardly depend on
them: they share a quarter of the variance of their ranks. A convention, as there is no test to pass."""
_FINE = 7  # places on a side; on 4 × 4 Grad-CAM missed every opacity of scripts/where_maps_point.py
_DRAWS = {"occlusion": 1}  # how often weights are drawn anew; three times for the methods that take no time


@dataclass(frozen=True)
class Check:
    """The map with weights drawn anew, compared with the map.

    Attributes:
        stage: which weights; each stage draws those of the stages before it too.
        correlations: Spearman's, one for each draw; 0 where the other map is the same everywhere.
    """

    stage: str
    correlations: tuple[float, ...]

    @property
    def similarity(self) -> float:
        """Mean of the correlations' sizes, since a map turned upside down is the same picture."""
        return float(np.mean(np.abs(self.correlations)))


@dataclass(frozen=True)
class Explanation:
    """A map for one class of one case.

    Attributes:
        image: as prepared, (channels, size, size), 0…1.
        maps: (1, size, size) where all channels share one, else one for each channel; higher is more for the class.
        target: the class.
        probability: of the class, calibrated, as ``predict`` gives it.
        predicted: the answer at the operating point.
        method: one of :data:`medlora.training.saliency.METHODS`.
        layer: module path whose output the map is of; empty for occlusion.
        checks: the sanity check, stage by stage.
        warnings: what to mind, in sentences.
    """

    image: np.ndarray
    maps: np.ndarray
    target: str
    probability: float
    predicted: str
    method: str
    layer: str
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = field(default=())

    def describe(self) -> dict[str, Any]:
        """All but images and maps, as plain values."""
        peaks = [np.unravel_index(int(part.argmax()), part.shape) for part in self.maps]
        return {
            "class": self.target,
            "probability": self.probability,
            "predicted": self.predicted,
            "explained": f"log-odds of {self.target}",
            "method": self.method,
            "source": SOURCES[self.method],
            "layer": self.layer or None,
            "maps": [
                {"low": float(part.min()), "high": float(part.max()), "peak": [int(row), int(column)]}
                for part, (row, column) in zip(self.maps, peaks, strict=True)
            ],
            "sanity": {
                "source": "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv 1810.03292",
                "limit": SIMILAR,
                "stages": [
                    {"weights": check.stage, "correlations": list(check.correlations), "similarity": check.similarity}
                    for check in self.checks
                ],
            },
            "warnings": list(self.warnings),
        }


def explain(
    model: Predictor,
    scan: Scan,
    centre: Centre | None = None,
    target: str | None = None,
    method: str | None = None,
    seed: int = 0,
) -> Explanation:
    """Map where the model looked for one class, and check that the map depends on what was trained.

    What is explained are the log-odds of the class, log p − log (1 − p), so that of two classes both outputs count, and
    of a finding its own alone.

    The check draws weights anew, from the output backwards (Adebayo et al. 2018): those of the head; then those of the
    adapter too; then all others of the backbone. Each tensor is drawn from a normal distribution of its own root mean
    square. A map that stays the same with head and adapter drawn anew is no picture of what was learnt.

    Args:
        model: the adapter on its backbone.
        scan: of the kind that the adapter was made for.
        centre: RAS+ mm, where its cases are places.
        target: the class or finding; none: of two classes the positive one, else the most probable.
        method: one of :data:`~medlora.training.saliency.METHODS`; none: Grad-CAM where the network ends in a map,
            gradient × token where it ends in tokens, but occlusion where either has fewer than 7 × 7 places, as in
            small images, or the channels show different places.
        seed: of the weights drawn anew.

    Raises:
        MedloraError: the scan is not of that kind, the class is unknown, or the method does not fit the network.
    """
    if target is not None and target not in model.classes:
        raise MedloraError(f"the adapter knows no class {target!r}", f"its classes are: {', '.join(model.classes)}")
    if method is not None and method not in METHODS:
        raise MedloraError(f"unknown method {method!r}", f"choose one of: {', '.join(METHODS)}")
    image = torch.as_tensor(model.preset.preparation()(scan, centre))
    probabilities = model.probabilities(model.logits(image[None]))[0]
    if target is None:
        target = model.task.foremost(probabilities)
    index = model.classes.index(target)

    network = LogOdds(model.model, model.task, model.calibration).eval()
    inputs = model.preset.normalise(image[None].to(model.device))
    layer = saliency.last_map(network, inputs)
    if method is None:
        coarse = layer is None or min(layer.grid) < _FINE
        method = layer.method if layer is not None and model.preset.same_places and not coarse else "occlusion"
    apart = method == "occlusion" and not model.preset.same_places

    def maps() -> np.ndarray:
        return saliency.maps(network, inputs, index, method, layer, apart)

    found = maps()
    checks = tuple(_checked(model.model, found, maps, _DRAWS.get(method, 3), seed)) if np.ptp(found) > 0 else ()
    return Explanation(
        image=image.numpy(),
        maps=found,
        target=target,
        probability=float(probabilities[index]),
        predicted=str(model.operating_point.words(probabilities[None], model.classes)[0]),
        method=method,
        layer="" if layer is None or method == "occlusion" else layer.path.removeprefix("model."),
        checks=checks,
        warnings=tuple(_warnings(model, found, checks, method)),
    )


class LogOdds(nn.Module):
    """Network input → calibrated log-odds of each class or finding, log p − log (1 − p); (N, K)."""

    def __init__(self, model: nn.Module, task: Task, calibration: Calibration) -> None:
        super().__init__()
        self.model, self.task, self.calibration = model, task, calibration

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, K)."""
        return self.task.log_odds(self.model(images), self.calibration)


def _checked(model: nn.Module, found: np.ndarray, maps: Any, draws: int, seed: int) -> Iterator[Check]:
    for stage, count in _stages(model).items():
        values = []
        for draw in range(draws):
            with drawn_anew(count, seed + draw):
                values.append(rank_correlation(found, maps()))
        yield Check(stage, tuple(values))


def _stages(model: nn.Module) -> dict[str, list[torch.Tensor]]:
    """Tensors to draw anew, cascading from the output: head; with the adapter's updates; with the backbone's."""
    from medlora.adapters.head import head_paths

    modules = dict(model.named_modules())
    adapter = adapter_of(model)
    head = [
        tensor for path in (adapter.head if adapter else head_paths(model)) for tensor in modules[path].parameters()
    ]
    trained = [] if adapter is None else [t for t in adapter.named_tensors().values() if isinstance(t, nn.Parameter)]
    ids = {id(tensor) for tensor in head}
    both = head + [tensor for tensor in trained if id(tensor) not in ids]
    ids = {id(tensor) for tensor in both}
    # Of the backbone only what is multiplied with: scales and biases of normalisations alone would switch it off.
    rest = [tensor for tensor in model.parameters() if id(tensor) not in ids and tensor.dim() > 1]
    stages = {"head": head, "head and adapter": both, "head, adapter and backbone": both + rest}
    kept: dict[str, list[torch.Tensor]] = {}
    for name, tensors in stages.items():  # a linear probe has no updates, so that two stages are one
        if tensors and all(len(tensors) != len(other) for other in kept.values()):
            kept[name] = tensors
    return kept


@contextmanager
def drawn_anew(tensors: list[torch.Tensor], seed: int) -> Iterator[None]:
    """Within the block each tensor holds normal numbers of its own root mean square; then its own values again."""
    generator = torch.Generator().manual_seed(seed)
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.no_grad():
            for tensor in tensors:
                if tensor.is_floating_point():
                    noise = torch.randn(tensor.shape, generator=generator).to(tensor)
                    tensor.copy_(noise * tensor.square().mean().sqrt())
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two maps, pixel by pixel; 0 where one of them is the same everywhere."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0 or not np.isfinite(second).all():
        return 0.0
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def _warnings(model: Predictor, maps: np.ndarray, checks: tuple[Check, ...], method: str) -> Iterator[str]:
    if np.ptp(maps) == 0:
        yield "The map is the same everywhere: this method finds nothing in the image that speaks for the class."
    trained = [check for check in checks if "backbone" not in check.stage]
    if trained and trained[-1].similarity >= SIMILAR:
        yield (
            f"With the weights of {trained[-1].stage} drawn anew the map stays much the same (rank correlation "
            f"{trained[-1].similarity:.2f}, limit {SIMILAR}): it shows the image or the backbone, not what was learnt."
        )
    if not model.preset.same_places and method != "occlusion":
        yield "The channels show different planes, but share this one map; use the method occlusion for one of each."
