"""Task, cohort and method to a run; an adapter's folder to answers.

Each name is imported when it is first used: who only predicts does not wait for what trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medlora.training.comparing import MethodComparison, compare_methods
    from medlora.training.config import Config
    from medlora.training.judging import evaluate_adapter
    from medlora.training.predictor import Predictor, adapter_folder
    from medlora.training.run import Run
    from medlora.training.trainer import train

_HOME_OF = {
    "Config": "config",
    "MethodComparison": "comparing",
    "Predictor": "predictor",
    "Run": "run",
    "adapter_folder": "predictor",
    "compare_methods": "comparing",
    "evaluate_adapter": "judging",
    "train": "trainer",
}

__all__ = [
    "Config",
    "MethodComparison",
    "Predictor",
    "Run",
    "adapter_folder",
    "compare_methods",
    "evaluate_adapter",
    "train",
]


def __getattr__(name: str) -> Any:
    import gc
    import importlib

    if name not in _HOME_OF:
        raise AttributeError(f"module 'medlora.training' has no attribute {name!r}")
    collecting = gc.isenabled()
    gc.disable()  # the collector would look through thousands of new modules, again and again, and find nothing
    try:
        return getattr(importlib.import_module(f"medlora.training.{_HOME_OF[name]}"), name)
    finally:
        if collecting:
            gc.enable()


def __dir__() -> list[str]:
    return sorted(__all__)
