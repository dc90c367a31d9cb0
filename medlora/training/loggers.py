"""The figures of each epoch for a tool that shows many runs side by side, where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from medlora.training.config import Config

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
# Paths may hold what must not leave the hospital.
_LEFT_OUT = {"data.cohort", "data.cache", "model.weights"}


def logger_for(name: str, folder: Path) -> Logger:
    """Lightning's logger, writing below ``folder`` alone: nothing is sent anywhere.

    Args:
        name: ``tensorboard``, ``mlflow`` or ``wandb`` (its offline mode; ``wandb sync`` sends a run later).
        folder: of the run.

    Raises:
        MedloraError: its package is not installed.
    """
    package = PACKAGES[name]
    if find_spec(package) is None:
        raise MedloraError(f"train.logger={name} needs the package {package}", f"pip install 'medlora[{name}]'")
    from lightning.pytorch import loggers

    if name == "tensorboard":
        return loggers.TensorBoardLogger(folder, name="tensorboard", version="")
    if name == "mlflow":
        store = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
        return loggers.MLFlowLogger("medlora", tracking_uri=store, artifact_location="mlflow-artifacts")
    return loggers.WandbLogger("medlora", save_dir=folder, project="medlora", offline=True)


def settings_for(config: Config) -> dict[str, Any]:
    """All settings by dotted name, without those that are paths."""
    found = {f"{block}.{key}": value for block, values in config for key, value in values}
    return {name: value for name, value in found.items() if name not in _LEFT_OUT}
