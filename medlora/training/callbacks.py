"""What happens between the epochs and steps of a training: the best epoch kept, the state saved, Ctrl-C heard."""

from __future__ import annotations

import csv
import io
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from medlora import files
from medlora.progress import say
from medlora.training.checkpoint import Checkpoint, optimizer_state

if TYPE_CHECKING:
    import lightning as L

    from medlora.training.batches import Order


class KeepBest(Callback):
    """After each epoch: a row in metrics.csv, a line for who waits, the best tensors kept, and a checkpoint.

    Args:
        folder: of the run.
        digest: of all that decides the training, kept with its checkpoints.
        patience: stop after so many epochs without a better AUC on the tune split; none: never.
        order: told which epoch comes next.
        after: the state that the training goes on from.
        writes: whether it writes and speaks, as one of several processes does.
        chooses: whether the best epoch will be kept, so that it is worth a word which it is.
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        patience: int | None,
        order: Order,
        after: Checkpoint | None,
        writes: bool = True,
        chooses: bool = False,
    ) -> None:
        self.folder, self.digest, self.patience, self.order, self.after = folder, digest, patience, order, after
        self.writes, self.chooses = writes, chooses
        self.rows: list[dict[str, float]] = list(after.history) if after is not None else []
        self.best: dict[str, torch.Tensor] = after.best if after is not None else {}
        self.order.epoch = len(self.rows)
        self._started = time.monotonic() - (self.rows[-1]["seconds"] if self.rows else 0)

    def finished(self, epochs: int) -> bool:
        """Whether nothing is left to train."""
        return len(self.rows) >= epochs or self._waited_enough()

    def _waited_enough(self) -> bool:
        if self.patience is None or not self.rows:
            return False
        aucs = [row["tune_auc"] for row in self.rows]
        return len(aucs) - 1 - aucs.index(max(aucs)) >= self.patience

    def on_train_start(self, trainer: L.Trainer, _: L.LightningModule) -> None:  # noqa: D102
        if self.after is not None and trainer.precision_plugin is not None and self.after.scaler:
            trainer.precision_plugin.load_state_dict(self.after.scaler)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:  # noqa: D102
        row = {**module.history[-1], "seconds": time.monotonic() - self._started}
        better = all(row["tune_auc"] > before["tune_auc"] for before in self.rows)
        self.rows.append(row)
        state = {key: tensor.detach().cpu().clone() for key, tensor in module.adapter.state_dict().items()}
        if better:
            self.best = state
        self.order.epoch = len(self.rows)
        if self.writes:
            self._write(trainer, state)
        epochs = module.settings.passes
        say(
            f"epoch {row['epoch']:.0f} of {epochs}: loss {row['train_loss']:.3f}, on the tune split loss "
            f"{row['tune_loss']:.3f}, AUC {row['tune_auc']:.3f}{' (best so far)' if better and self.chooses else ''}; "
            f"{row['seconds']:.0f} s"
        )
        if self._waited_enough() and len(self.rows) < epochs:
            say(f"no better epoch for {self.patience}: stopped early")
            trainer.should_stop = True

    def _write(self, trainer: L.Trainer, state: dict[str, torch.Tensor]) -> None:
        files.write_text(self.folder / "metrics.csv", _csv(self.rows))
        if trainer.logger is not None:
            trainer.logger.log_metrics({k: v for k, v in self.rows[-1].items() if k != "epoch"}, step=len(self.rows))
        scaler = trainer.precision_plugin.state_dict()
        optimizer = optimizer_state(trainer.optimizers[0])
        Checkpoint(self.digest, self.rows, state, self.best, optimizer, scaler).save(self.folder / "checkpoints")


def _csv(rows: list[dict[str, float]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    return out.getvalue()


class StopBetweenBatches(Callback):
    """Ctrl-C ends the training between two batches; raised within one it can be lost in the libraries' own code."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> StopBetweenBatches:
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

    def on_train_batch_end(self, *_: Any) -> None:  # noqa: D102
        self._stop()

    def on_validation_batch_end(self, *_: Any) -> None:  # noqa: D102
        self._stop()
