"""medlora: low-rank adapters that fit pretrained vision models to a hospital's own scans.

>>> import medlora
>>> medlora.LoRA(rank=4).rank
4

Everything is imported when it is first used: ``import medlora`` alone takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medlora._version import __version__
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.adapters import SSF, BitFit, DoRA, Full, LoRA, LoRAFA, NormTuning, Probe
    from medlora.cohorts import Cohort
    from medlora.evaluation import evaluate
    from medlora.training import Predictor, Run, compare_methods, train

_HOMES = {
    "adapters": ("BitFit", "DoRA", "Full", "LoRA", "LoRAFA", "NormTuning", "Probe", "SSF"),
    "cohorts": ("Cohort",),
    "evaluation": ("evaluate",),
    "training": ("Predictor", "Run", "compare_methods", "train"),
}
_HOME_OF = {name: room for room, names in _HOMES.items() for name in names}

__all__ = [
    "SSF",
    "BitFit",
    "Cohort",
    "DoRA",
    "Full",
    "LoRA",
    "LoRAFA",
    "MedloraError",
    "NormTuning",
    "Predictor",
    "Probe",
    "Run",
    "__version__",
    "compare_methods",
    "evaluate",
    "load",
    "train",
]


def load(adapter: str, weights: str | None = None, device: str = "auto") -> Predictor:
    """Load an adapter, ready to predict.

    Args:
        adapter: its folder, or the run that holds it.
        weights: the backbone's weights file, where the adapter was trained on one.
        device: cpu, cuda, mps or auto.

    Raises:
        MedloraError: the folder is no adapter or damaged, or its backbone cannot be had or is another one.
    """
    from medlora.training import Predictor

    return Predictor.load(adapter, weights, device)


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOME_OF:
        return getattr(importlib.import_module(f"medlora.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'medlora' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
