"""The linear probe beside a run: fitted on its images, saved as an adapter of its own; the head starts there, too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medlora import adapters
from medlora.progress import say, track
from medlora.training import probe as linear_probe
from medlora.training.finishing import save_judged

if TYPE_CHECKING:
    from medlora.cohorts import Cohort
    from medlora.training.cases import TrainingCases
    from medlora.training.config import Config
    from medlora.training.prepared import PreparedImages
    from medlora.training.task import Task
    from medlora.transforms import Preset


def fit(
    model: torch.nn.Module,
    preset: Preset,
    prepared: dict[str, PreparedImages],
    task: Task,
    device: torch.device,
) -> linear_probe.Probe | None:
    """Fit the linear probe, or say why there is none."""
    if linear_probe.classifier_of(model) is None:
        say("no linear probe: the classifier of this backbone is not one linear layer")
        return None
    sets = []
    for split, images in prepared.items():
        loader = torch.utils.data.DataLoader(images, batch_size=32)
        batches = (preset.normalise(batch) for batch, _labels, _rows in track(loader, f"features of the {split} scans"))
        sets.append((linear_probe.features(model, batches, device), images.labels.numpy()))
    model.cpu()
    probe = task.probe(sets[0], sets[1])
    say(f"linear probe on the frozen features: AUC {probe.tune_auc:.3f} on the tune split")
    return probe


def save(
    model: torch.nn.Module,
    probe: linear_probe.Probe,
    base: dict[str, Any],
    config: Config,
    cohort: Cohort,
    cases: TrainingCases,
    folder: Path,
) -> None:
    """Save the probe as an adapter of its own, so that it is judged as the run's adapter is."""
    adapter = adapters.attach(model, adapters.Probe())
    set_head(model, probe)
    save_judged(model, adapter, base, config, cohort, cases, folder, None)
    adapter.detach()


def set_head(model: torch.nn.Module, probe: linear_probe.Probe) -> None:
    """Write the probe into the classifier of ``model``."""
    head = linear_probe.classifier_of(model)
    assert head is not None
    with torch.no_grad():
        head.weight.copy_(probe.weight)
        head.bias.copy_(probe.bias)
