"""Task, cohort and method to a run; an adapter's folder to answers."""

from medlora.training.config import Config
from medlora.training.judging import evaluate_adapter
from medlora.training.predictor import Predictor, adapter_folder
from medlora.training.run import Run
from medlora.training.trainer import train

__all__ = ["Config", "Predictor", "Run", "adapter_folder", "evaluate_adapter", "train"]
