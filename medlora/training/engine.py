"""The training loop, on Lightning: AdamW, warm-up and cosine, an epoch kept by rule."""

from __future__ import annotations

import logging
import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, Dataset, Subset

from medlora.errors import MedloraError
from medlora.training.batches import AugmentedImages, CachedViews, Order
from medlora.training.callbacks import KeepBest, StopBetweenBatches
from medlora.training.checkpoint import Checkpoint, restore_optimizer
from medlora.training.device import pick_device
from medlora.training.losses import Loss, MaskedLoss, mixed
from medlora.training.processes import Together

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    from medlora.adapters import Adapter
    from medlora.training.config import Train
    from medlora.training.prefix import FrozenPrefix
    from medlora.training.prepared import PreparedImages
    from medlora.training.processes import Member
    from medlora.training.task import Task
    from medlora.transforms import Preset


class DivergedError(MedloraError):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class CachedPrefix:
    """The part of the network that is computed once, and what it gave for some views of each training image.

    Attributes:
        prefix: the cut network.
        features: (N, V, ``*prefix.shape``), float16, in a memory-mapped file.
    """

    prefix: FrozenPrefix
    features: np.memmap[Any, Any]


class AdapterTraining(L.LightningModule):
    """One adapter on its backbone, trained on (image, target, row) batches.

    Args:
        model: the backbone with ``adapter`` attached; images (N, C, H, W) → logits (N, K).
        adapter: what is trained and kept.
        preset: normalises the prepared images.
        task: gives the figures of an epoch.
        loss: of a batch.
        settings: of the ``train`` block.
        steps: optimiser steps of an epoch.
        prefix: where training batches hold what this gave instead of images.
        names: of the training images, for messages.
        after: the state to go on from.
        order: of the training images.
        tune_labels: target of each tune image, (N,) or (N, K).
        member: this process among several that train together.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        adapter: Adapter,
        preset: Preset,
        task: Task,
        loss: Loss | MaskedLoss,
        settings: Train,
        steps: int,
        prefix: FrozenPrefix | None,
        names: list[str],
        after: Checkpoint | None,
        order: Order,
        tune_labels: torch.Tensor,
        member: Member | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.preset = preset
        self.task = task
        self.loss = loss
        self.settings = settings
        self.steps = steps
        self.prefix = prefix
        self.names = names
        self.after = after
        self.order = order
        self.tune_labels = tune_labels
        self.member = member
        self.history: list[dict[str, float]] = list(after.history) if after is not None else []
        self._losses: list[torch.Tensor] = []
        self._tune: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (N, C, H, W) → logits (N, K)."""
        return self.model(self.preset.normalise(images))

    def training_step(self, batch: Any, number: int) -> torch.Tensor:  # noqa: D102
        # Dropout and mixup draw from here; set anew in each step, they do not depend on where a run was interrupted.
        rank = (self.member.rank,) if self.member is not None and self.member.rank else ()
        state = np.random.SeedSequence((self.settings.seed, len(self.history), number, *rank)).generate_state(1)
        torch.manual_seed(int(state[0]))
        inputs, labels, rows = batch
        if self.settings.mixup:
            inputs, partner, share = mixed(inputs, self.settings.mixup)
        logits = self.prefix.suffix(inputs) if self.prefix is not None else self(inputs)
        loss = self.loss(logits, labels)
        if self.settings.mixup:
            loss = share * loss + (1 - share) * self.loss(logits, labels[partner])
        mean = loss.detach()
        if self.member is not None:
            # Gradients are averaged over the processes, whose parts of a batch differ in size.
            loss = loss * (self.member.world * self.order.share(number))
            mean = loss.detach() / self.member.world
            dist.all_reduce(mean)
        if not torch.isfinite(mean):
            raise DivergedError(
                f"the loss became {float(mean)} in epoch {len(self.history) + 1}, at the scans "
                f"{', '.join(self.names[row] for row in rows.tolist()[:4])} …: the training diverged",
                "lower the learning rate (--lr), or look at these scans; the state after the epoch before is kept in "
                "checkpoints/",
            )
        self._losses.append(mean)
        return loss

    def on_validation_start(self) -> None:  # noqa: D102
        if self.member is not None and self.adapter.batchnorm == "adapt":
            for statistics in self.model.buffers():  # those of the last step; DDP sends them before the next one
                dist.broadcast(statistics, 0)

    def validation_step(self, batch: Any, _: int) -> None:  # noqa: D102
        images, _labels, rows = batch
        self._tune.append((self(images).float().cpu(), rows.cpu()))

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        part, rows = (torch.cat(parts) for parts in zip(*self._tune, strict=True))
        self._tune.clear()
        labels = self.tune_labels
        logits = part.new_zeros(len(labels), part.shape[1])
        logits[rows] = part
        if self.member is not None:  # each process has its own rows and zeros elsewhere: the sum is exact
            logits = logits.to(self.device)
            dist.all_reduce(logits)
            logits = logits.cpu()
        losses = torch.stack(self._losses).mean().item() if self._losses else math.nan
        self._losses.clear()
        loss, auc = self.task.figures(logits, labels)
        self.history.append({"epoch": len(self.history) + 1, "train_loss": losses, "tune_loss": loss, "tune_auc": auc})

    def configure_optimizers(self) -> Any:  # noqa: D102
        rate, total = self.settings.learning_rate, self.settings.passes * self.steps
        assert rate is not None
        parameters = list(self.adapter.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=self.settings.weight_decay)
        if self.after is not None:
            restore_optimizer(optimizer, parameters, self.after.optimizer)
        warm, done = max(1, round(self.settings.warmup * total)), len(self.history) * self.steps

        def factor(step: int) -> float:
            step += done
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    model: torch.nn.Module,
    adapter: Adapter,
    preset: Preset,
    train: PreparedImages,
    tune: PreparedImages,
    task: Task,
    settings: Train,
    folder: Path,
    names: list[str],
    cached: CachedPrefix | None = None,
    digest: str = "",
    after: Checkpoint | None = None,
    member: Member | None = None,
    logger: Logger | None = None,
    watching: Callback | None = None,
) -> dict[str, float]:
    """Train ``adapter`` in place; it ends with the tensors of the epoch that ``settings.keep`` names.

    Args:
        model: the backbone with the adapter attached.
        adapter: trained in place.
        preset: normalisation and augmentation.
        train, tune: prepared images.
        task: what is asked.
        settings: of the ``train`` block.
        folder: of the run; metrics.csv and checkpoints/ are written there.
        names: scan_ids of the training images, for messages.
        cached: what the frozen prefix gave for the training images; tune images always go through the whole network.
        digest: of all that decides the training, kept with its checkpoints.
        after: go on from this state.
        member: this process, where several train together; each calls this function with the same network, and what
            the first one has in its trained tensors is where all begin. The batch is shared by all, and only the first
            one writes.
        logger: gets the row of each epoch too.
        watching: a callback of Lightning's, called after the epoch is saved.

    Returns:
        The row of the epoch kept: epoch, train_loss, tune_loss, tune_auc.

    Raises:
        DivergedError: the loss is no longer finite.
        MedloraError: the device does not exist.
        KeyboardInterrupt: Ctrl-C.
    """
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)  # Lightning's notices of other products
    # Modules in evaluation mode are meant: the adapter keeps frozen BatchNorm there; all others train (below).
    for notice in ("does not have many workers", "in eval mode at the start of training", "LeafSpec"):
        warnings.filterwarnings("ignore", message=f".*{notice}")

    device = pick_device(settings.device)
    if settings.precision == "16-mixed" and device.type != "cuda":
        raise MedloraError(
            f"train.precision=16-mixed needs a CUDA device, and this is {device.type}",
            "use bf16-mixed, or 32-true",
        )
    loss = task.loss(train.labels, settings.class_weights, settings.label_smoothing)
    rank, world = (member.rank, member.world) if member is not None else (0, 1)
    order = Order(len(train), settings.batch, settings.seed, loss.drawing, rank, world)
    seen: Dataset[Any]
    if cached is not None:
        seen = CachedViews(cached.features, train.labels, settings.seed)
    else:
        seen = AugmentedImages(train, preset.augmentation(), settings.seed, settings.num_workers)
    workers = settings.num_workers if cached is None else 0  # reading from a memory map needs none
    batches = DataLoader(seen, batch_sampler=order, num_workers=workers, persistent_workers=workers > 0)
    if len(tune) < world:
        raise MedloraError(f"{len(tune)} tune cases cannot be shared by {world} processes", "lower --devices")
    checks = DataLoader(Subset(tune, range(rank, len(tune), world)), batch_size=max(32, settings.batch))
    steps = -(-len(order) // settings.accumulate)
    prefix = cached.prefix if cached is not None else None
    module = AdapterTraining(
        model, adapter, preset, task, loss, settings, steps, prefix, names, after, order, tune.labels, member
    )
    keep = KeepBest(folder, digest, settings.patience, order, after, rank == 0, not _keeps_last(settings))
    stop = StopBetweenBatches()
    if after is not None:
        adapter.load_state_dict(after.adapter)
    if keep.finished(settings.passes):
        return _kept(adapter, keep, settings)
    if settings.gradient_checkpointing:
        checkpoint_gradients(model)
    trainer = L.Trainer(
        accelerator=device.type,
        strategy="auto" if member is None else DDPStrategy(cluster_environment=Together(member)),
        devices=1 if member is None else member.devices,
        num_nodes=1 if member is None else member.nodes,
        max_epochs=settings.passes - len(module.history),
        precision=settings.precision,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip or None,
        logger=logger or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[keep, stop] if watching is None else [keep, stop, watching],
        default_root_dir=str(folder),
    )
    try:
        connected = nullcontext() if member is None else member.connected(device)
        with stop, torch.random.fork_rng(devices=[]), connected:
            module.train()  # Lightning leaves each module in the mode that it finds it in
            trainer.fit(module, batches, checks)
    except SystemExit:  # how Lightning ends after Ctrl-C
        raise KeyboardInterrupt from None
    except (RuntimeError, ConnectionError, EOFError) as error:
        # Seen from here a process that died is one of: PyTorch's own message, or a pipe to it that has broken.
        if workers and (not isinstance(error, RuntimeError) or str(error).startswith("DataLoader worker")):
            assert isinstance(seen, AugmentedImages)
            at = ", ".join(names[index] for index in seen.at.tolist() if index >= 0)
            raise MedloraError(
                f"a process that augments ended unexpectedly; they were at the scans {at}",
                "look at these scans, or lower --num-workers where memory may have run out; --resume goes on after the "
                "last finished epoch",
            ) from error
        raise
    model.cpu()
    return _kept(adapter, keep, settings)


def _keeps_last(settings: Train) -> bool:
    return settings.keep == "last" or (settings.keep is None and settings.patience is None)


def _kept(adapter: Adapter, keep: KeepBest, settings: Train) -> dict[str, float]:
    """Leave the adapter with the tensors of the epoch to keep; that epoch's row."""
    if _keeps_last(settings):
        return keep.rows[-1]  # the adapter has its tensors
    adapter.load_state_dict(keep.best)
    return max(keep.rows, key=lambda row: row["tune_auc"])


def checkpoint_gradients(model: torch.nn.Module) -> None:
    """Compute activations again in the backward pass instead of keeping them, as timm's models can."""
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise MedloraError(
            f"{type(model).__name__} cannot compute activations again",
            "set train.gradient_checkpointing=false, and a smaller --batch-size with train.accumulate",
        ) from error
