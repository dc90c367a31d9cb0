"""The training loop, on Lightning: cross-entropy, AdamW, warm-up and cosine, the best epoch on the tune split kept."""

from __future__ import annotations

import csv
import logging
import math
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional
from torch.utils.data import DataLoader

from medlora.errors import MedloraError
from medlora.progress import say
from medlora.training.device import pick_device

if TYPE_CHECKING:
    from medlora.adapters import Adapter
    from medlora.training.config import Train
    from medlora.training.prepared import PreparedImages
    from medlora.transforms import Preset


class AdapterTraining(L.LightningModule):
    """One adapter on its backbone, trained on (image, class index, row) batches.

    Args:
        model: the backbone with ``adapter`` attached; images (N, C, H, W) → logits (N, K).
        adapter: what is trained and kept.
        preset: normalises the prepared images.
        class_weights: weight of each class in the loss, (K,), or none.
        settings: of the ``train`` block.
        steps: optimiser steps in the whole run.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        adapter: Adapter,
        preset: Preset,
        class_weights: torch.Tensor | None,
        settings: Train,
        steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.preset = preset
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.settings = settings
        self.steps = steps
        self.history: list[dict[str, float]] = []
        self._losses: list[torch.Tensor] = []
        self._tune: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (N, 1, H, W) → logits (N, K)."""
        return self.model(self.preset.normalise(images))

    def training_step(self, batch: Any, _: int) -> torch.Tensor:  # noqa: D102
        images, labels, _rows = batch
        loss = functional.cross_entropy(
            self(images), labels, weight=self.class_weights, label_smoothing=self.settings.label_smoothing
        )
        if not torch.isfinite(loss):
            raise MedloraError(
                f"the loss became {float(loss)} in epoch {self.current_epoch + 1}: the training diverged",
                "lower the learning rate (--lr), or check the images of the cohort in its check.html",
            )
        self._losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Any, _: int) -> None:  # noqa: D102
        images, labels, _rows = batch
        self._tune.append((self(images).float().cpu(), labels.cpu()))

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        logits, labels = (torch.cat(part) for part in zip(*self._tune, strict=True))
        self._tune.clear()
        losses = torch.stack(self._losses).mean().item() if self._losses else math.nan
        self._losses.clear()
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": losses,
                "tune_loss": float(functional.cross_entropy(logits, labels)),
                "tune_auc": macro_auc(logits.softmax(-1).numpy(), labels.numpy()),
            }
        )

    def configure_optimizers(self) -> Any:  # noqa: D102
        assert self.settings.learning_rate is not None
        optimizer = torch.optim.AdamW(
            self.adapter.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        warm = max(1, round(self.settings.warmup * self.steps))

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.steps - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def macro_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the one-versus-rest AUCs over the classes present; (N, K) and (N,) → 0…1."""
    from sklearn.metrics import roc_auc_score

    present = [k for k in range(probabilities.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    if not present:
        return math.nan
    return float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in present]))


class _KeepBest(Callback):
    """After each epoch: a row in metrics.csv, a line for who waits, and the trainable tensors if they are the best."""

    def __init__(self, metrics: Path) -> None:
        self.metrics = metrics
        self.best: dict[str, torch.Tensor] | None = None
        self.best_row: dict[str, float] = {}
        self._started = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, AdapterTraining)
        row = {**module.history[-1], "seconds": time.monotonic() - self._started}
        first = not self.metrics.exists()
        with self.metrics.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if first:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        better = not self.best_row or row["tune_auc"] > self.best_row["tune_auc"]
        if better:
            self.best_row = row
            self.best = {key: tensor.detach().cpu().clone() for key, tensor in module.adapter.state_dict().items()}
        say(
            f"epoch {row['epoch']:.0f} of {trainer.max_epochs}: loss {row['train_loss']:.3f}, on the tune split loss "
            f"{row['tune_loss']:.3f}, AUC {row['tune_auc']:.3f}{' (best so far)' if better else ''}; "
            f"{row['seconds']:.0f} s"
        )


class _StopBetweenBatches(Callback):
    """Ctrl-C ends the training between two batches; raised within one it can be lost in the libraries' own code."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> _StopBetweenBatches:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self._asked:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        self._asked = True

    def _stop(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def on_train_batch_end(self, *_: Any) -> None:
        self._stop()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._stop()


def fit(
    model: torch.nn.Module,
    adapter: Adapter,
    preset: Preset,
    train: PreparedImages,
    tune: PreparedImages,
    classes: int,
    settings: Train,
    folder: Path,
) -> list[dict[str, float]]:
    """Train ``adapter`` in place; it ends with the tensors of its best epoch by AUC on the tune split.

    Args:
        model: the backbone with the adapter attached.
        adapter: trained in place.
        preset: normalisation and augmentation.
        train, tune: prepared images.
        classes: how many.
        settings: of the ``train`` block.
        folder: of the run; metrics.csv is written there.

    Returns:
        A row for each epoch: epoch, train_loss, tune_loss, tune_auc.

    Raises:
        MedloraError: the loss is no longer finite, or the device does not exist.
        KeyboardInterrupt: Ctrl-C.
    """
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)  # Lightning's notices of other products
    # Modules in evaluation mode are meant: the adapter keeps frozen BatchNorm there; all others train (below).
    for notice in ("does not have many workers", "in eval mode at the start of training", "LeafSpec"):
        warnings.filterwarnings("ignore", message=f".*{notice}")

    augmentation = preset.augmentation().set_random_state(seed=settings.seed)
    weights = None
    if settings.class_weights == "balanced":
        counts = torch.bincount(train.labels, minlength=classes).float()
        weights = counts.sum() / (classes * counts)
    batches = DataLoader(
        train.augmented(augmentation),
        batch_size=settings.batch_size,
        shuffle=True,
        num_workers=settings.num_workers,
        generator=torch.Generator().manual_seed(settings.seed),
        worker_init_fn=_seed_worker,
        persistent_workers=settings.num_workers > 0,
    )
    checks = DataLoader(tune, batch_size=max(32, settings.batch_size))
    module = AdapterTraining(model, adapter, preset, weights, settings, settings.epochs * len(batches))
    accelerator = pick_device(settings.device).type
    keep, stop = _KeepBest(folder / "metrics.csv"), _StopBetweenBatches()
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=settings.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[keep, stop],
        default_root_dir=str(folder),
    )
    try:
        with stop, torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            module.train()  # Lightning leaves each module in the mode that it finds it in
            trainer.fit(module, batches, checks)
    except SystemExit:  # how Lightning ends after Ctrl-C
        raise KeyboardInterrupt from None
    model.cpu()
    assert keep.best is not None
    adapter.load_state_dict(keep.best)
    return module.history


def _seed_worker(worker: int) -> None:
    """Give each worker's augmentation its own seed, drawn from the loader's generator."""
    information = torch.utils.data.get_worker_info()
    assert information is not None
    information.dataset.augmentation.set_random_state(seed=information.seed % 2**32)  # type: ignore[attr-defined]
