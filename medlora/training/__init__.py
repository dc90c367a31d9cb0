"""Task, cohort and method to a run; an adapter's folder to answers."""

from medlora.training.comparing import MethodComparison, compare_methods
from medlora.training.config import Config
from medlora.training.judging import evaluate_adapter
from medlora.training.predictor import Predictor, adapter_folder
from medlora.training.run import Run
from medlora.training.trainer import train

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
