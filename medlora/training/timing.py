"""What full fine-tuning would have taken on this machine, measured on a few steps before the training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from medlora import adapters

if TYPE_CHECKING:
    from medlora.training.config import Train
    from medlora.training.prepared import PreparedImages
    from medlora.training.task import Task
    from medlora.transforms import Preset

_STEPS = 3


def seconds_of_full_fine_tuning(
    model: torch.nn.Module, preset: Preset, task: Task, images: PreparedImages, settings: Train, device: torch.device
) -> float:
    """Median of three steps of full fine-tuning, after one to warm up, times the steps of the run; in seconds.

    The model is given back as it was, bit for bit. Reading and augmentation are not counted, as they cost every method
    the same.
    """
    batch = range(min(settings.batch, len(images)))
    inputs = preset.normalise(torch.stack([images[index][0] for index in batch])).to(device)
    labels = images.labels[: len(batch)].to(device)
    loss = task.loss(images.labels, "none", 0.0)
    was_training = model.training
    with torch.random.fork_rng(devices=[]):
        model.to(device)
        adapter = adapters.attach(model, adapters.Full(), batchnorm="frozen")
        try:
            optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-6)
            model.train()
            seconds = []
            for _ in range(1 + _STEPS):
                started = time.perf_counter()
                optimizer.zero_grad()
                loss(model(inputs), labels).backward()
                optimizer.step()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - started)
        finally:
            adapter.detach()
            model.train(was_training).cpu()
    return float(np.median(seconds[1:])) * settings.passes * -(-len(images) // settings.batch)


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
