"""Predictions to the figures a radiology reviewer asks for, with intervals and a report."""

from medlora.evaluation.calibration import apply_temperature, brier, calibration_intercept_slope, fit_temperature
from medlora.evaluation.comparison import Difference, delong_test, delong_test_unpaired, holm, paired_proportions
from medlora.evaluation.discrimination import auc, auc_covariance
from medlora.evaluation.estimate import Estimate
from medlora.evaluation.evaluating import evaluate
from medlora.evaluation.operating_point import OperatingPoint, choose_threshold
from medlora.evaluation.proportions import likelihood_ratios, predictive_values, proportion
from medlora.evaluation.report import ReportContext
from medlora.evaluation.result import Evaluation, Metric
from medlora.evaluation.table import read_predictions

__all__ = [
    "Difference",
    "Estimate",
    "Evaluation",
    "Metric",
    "OperatingPoint",
    "ReportContext",
    "apply_temperature",
    "auc",
    "auc_covariance",
    "brier",
    "calibration_intercept_slope",
    "choose_threshold",
    "delong_test",
    "delong_test_unpaired",
    "evaluate",
    "fit_temperature",
    "holm",
    "likelihood_ratios",
    "paired_proportions",
    "predictive_values",
    "proportion",
    "read_predictions",
]
