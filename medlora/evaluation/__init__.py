"""Predictions to the figures a radiology reviewer asks for, with intervals and a report."""

from medlora.evaluation.alignment import gather
from medlora.evaluation.calibration import apply_temperature, brier, calibration_intercept_slope, fit_temperature
from medlora.evaluation.comparison import Difference, delong_test, delong_test_unpaired, holm, paired_proportions
from medlora.evaluation.decision import net_benefit
from medlora.evaluation.discrimination import auc, auc_covariance
from medlora.evaluation.estimate import Estimate
from medlora.evaluation.evaluating import evaluate
from medlora.evaluation.models import Comparison, compare
from medlora.evaluation.operating_point import OperatingPoint, choose_threshold
from medlora.evaluation.partial import partial_auc
from medlora.evaluation.power import power_of_area, sample_size_for_margin, sample_size_for_width
from medlora.evaluation.proportions import likelihood_ratios, predictive_values, proportion
from medlora.evaluation.reading import read_predictions
from medlora.evaluation.report import ReportContext
from medlora.evaluation.result import Evaluation, Metric
from medlora.evaluation.scaling import Calibration, Sigmoids, Temperature, calibration_from, fit_sigmoid
from medlora.evaluation.subgroups import Subgroup

__all__ = [
    "Calibration",
    "Comparison",
    "Difference",
    "Estimate",
    "Evaluation",
    "Metric",
    "OperatingPoint",
    "ReportContext",
    "Sigmoids",
    "Subgroup",
    "Temperature",
    "apply_temperature",
    "auc",
    "auc_covariance",
    "brier",
    "calibration_from",
    "calibration_intercept_slope",
    "choose_threshold",
    "compare",
    "delong_test",
    "delong_test_unpaired",
    "evaluate",
    "fit_sigmoid",
    "fit_temperature",
    "gather",
    "holm",
    "likelihood_ratios",
    "net_benefit",
    "paired_proportions",
    "partial_auc",
    "power_of_area",
    "predictive_values",
    "proportion",
    "read_predictions",
    "sample_size_for_margin",
    "sample_size_for_width",
]
