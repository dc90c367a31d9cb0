"""The state of a training between two epochs: one safetensors file with the trainable part, its optimizer, the best."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medlora import files
from medlora.errors import MedloraError

FILE = "last.safetensors"


@dataclass
class Checkpoint:
    """What a training needs to go on after an epoch.

    Attributes:
        settings: a digest of all that decides the training; another training does not take it up.
        history: a row for each finished epoch.
        adapter, best: the adapter's tensors now, and those of the best epoch.
        optimizer: AdamW's state, by parameter number and name.
        scaler: the loss scale of mixed precision in fp16, if any.
    """

    settings: str
    history: list[dict[str, float]]
    adapter: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    scaler: dict[str, float] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the file, whole or not at all: a process killed at any moment leaves the former or this one."""
        tensors = {f"adapter/{key}": value for key, value in self.adapter.items()}
        tensors |= {f"best/{key}": value for key, value in self.best.items()}
        for number, state in self.optimizer.items():
            tensors |= {f"optimizer/{number}/{key}": torch.as_tensor(value) for key, value in state.items()}
        about = {"settings": self.settings, "history": self.history, "scaler": self.scaler}
        with files.writing(folder / FILE) as partial:
            save_file(
                {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()},
                partial,
                {"medlora": json.dumps(about)},
            )

    @classmethod
    def load(cls, folder: Path) -> Checkpoint | None:
        """The state that ``folder`` holds, or none.

        Raises:
            MedloraError: the file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        parts: dict[str, dict[str, Tensor]] = {"adapter": {}, "best": {}}
        optimizer: dict[int, dict[str, Tensor]] = {}
        try:
            with safe_open(path, "pt") as stored:
                about = json.loads(stored.metadata()["medlora"])
                for name in stored.keys():  # noqa: SIM118 - no mapping
                    kind, _, key = name.partition("/")
                    if kind == "optimizer":
                        number, _, key = key.partition("/")
                        optimizer.setdefault(int(number), {})[key] = stored.get_tensor(name)
                    else:
                        parts[kind][key] = stored.get_tensor(name)
            return cls(about["settings"], about["history"], parts["adapter"], parts["best"], optimizer, about["scaler"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise MedloraError(f"the checkpoint {path} is damaged", "train again with --overwrite") from error


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """The tensors of an optimizer's state by the number of the parameter."""
    return optimizer.state_dict()["state"]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], state: dict[int, dict[str, Tensor]]
) -> None:
    """Put the tensors of :func:`optimizer_state` back, on the device of each parameter."""
    for number, parameter in enumerate(parameters):
        if number in state:
            optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter, copy=True)
                for key, value in state[number].items()
            }
